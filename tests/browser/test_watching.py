"""The watching itself: a page that asks for another host, fails or opens a dialogue is found out."""

import pytest

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("<img src='http://192.0.2.1/x.png'>", "elsewhere"),
        ("<script src='https://example.org/x.js'></script>", "elsewhere"),
        ("<script>new WebSocket('ws://192.0.2.1/')</script>", "elsewhere"),
        ("<script>throw new Error('broken')</script>", "unexcused"),
        ("<script>console.error('said')</script>", "unexcused"),
        ("<script>alert('hurt')</script>", "unexcused"),
    ],
)
def test_bad_pages_are_found_out(open_page, watched, tmp_path, body, what):
    (tmp_path / "page.html").write_text(f"<!DOCTYPE html><title>x</title>{body}")
    page = open_page()
    page.goto((tmp_path / "page.html").as_uri(), wait_until="domcontentloaded")
    for _ in range(200):
        if not getattr(watched, what):
            page.wait_for_timeout(50)  # lets what the page does come in
    assert getattr(watched, what)
    watched.requests.clear()
    watched.excuse("")


def test_what_is_on_this_machine_may_be_asked_for(watched):
    here = ["file:///tmp/x", "data:,x", "blob:null/1", "http://127.0.0.1:7860/", "http://localhost/", "http://[::1]:1/"]
    away = ["http://10.0.0.1/", "https://example.org/", "http://127.0.0.1.example.org/", "http://0.0.0.0/"]
    watched.requests.extend([*here, *away])
    assert watched.elsewhere == away
    watched.requests.clear()
