"""The page as one file: what is in it, and in a browser from the first click to the analysed answers."""

import base64
import json
import threading
from pathlib import Path

import pytest

from mmcam.errors import UserError
from mmcam.study import Store, Study, export, read_answers, serve
from mmcam.study.analysis import analyse
from mmcam.study.page import page
from tests.report.pages import Reader
from tests.study.studies import right_value, study

CHROMIUM = Path("/usr/bin/chromium")


def read(path):
    return Reader(path.read_text(encoding="utf-8")).page


def test_the_file_holds_all_pictures_and_no_key(folder, tmp_path):
    made = Study.load(folder)
    size = export(made, folder, tmp_path / "page.html")
    assert size == (tmp_path / "page.html").stat().st_size
    found = read(tmp_path / "page.html")
    assert found.islands["study"] == json.loads(json.dumps(made.open_part()))
    files = {name: (folder / "pictures" / name).read_bytes() for trial in made.trials for name in trial.pictures}
    assert {
        name: base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))
        for name, url in found.islands["files"].items()
    } == files
    assert "grad_cam" not in found.text
    (policy,) = (tag["content"] for tag in found.all("meta") if tag.get("http-equiv") == "Content-Security-Policy")
    assert "connect-src 'none'" in policy
    assert not any(tag.get("src") for tag in found.all("script"))
    again = tmp_path / "again.html"
    export(made, folder, again)
    assert again.read_bytes() == (tmp_path / "page.html").read_bytes()
    with pytest.raises(UserError, match="exists already"):
        export(made, folder, again)


def test_texts_cannot_leave_their_place():
    made = study(4)
    bad = "</script><script>alert(1)</script><b>"
    vars(made).update(title=bad, consent=(bad,))
    text = page(made)
    assert "<script>alert" not in text
    assert "<b>" not in text
    assert Reader(text).page.islands["study"]["title"] == bad


def test_labels_and_groups_have_names():
    for kind in ("discrimination", "words", "trust"):
        found = Reader(page(study(4, kind=kind))).page
        assert found.all("html")[0]["lang"] == "en"
        ids = {tag["id"] for _, tag in found.tags if tag.get("id")}
        for _, tag in found.tags:
            assert tag.get("aria-labelledby", "title") in ids
            assert tag.get("for", "title") in ids | {"text"}
        radios = [tag for tag in found.all("input") if tag.get("type") == "radio"]
        assert [tag["value"] for tag in radios] == (["-2", "-1", "0", "1", "2"] if kind == "trust" else [])


@pytest.fixture
def browser():
    if not CHROMIUM.exists():
        pytest.skip("needs Debian's chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


def open_page(browser, url, **options):
    """A page that notes errors and every request."""
    sheet = browser.new_context(viewport={"width": 400, "height": 800}, **options).new_page()
    sheet.set_default_timeout(60000)
    notes: dict[str, list[str]] = {"errors": [], "requests": []}
    sheet.on("pageerror", lambda error: notes["errors"].append(str(error)))
    sheet.on("console", lambda said: notes["errors"].append(said.text) if said.type == "error" else None)
    sheet.on("request", lambda request: notes["requests"].append(request.url))
    sheet.goto(url)
    return sheet, notes


def begin(sheet):
    assert sheet.locator("#begin").is_disabled()
    sheet.check("#agree")
    sheet.click("#begin")
    sheet.wait_for_selector("#asking:not([hidden])")
    return sheet.locator("#asking .code").text_content()


def on_screen(made, sheet, code, done):
    """The trial that is shown: the next of the plan, with its question, options and picture."""
    trial = made.by_id[made.plan(code)[done]]
    sheet.wait_for_function(
        "text => document.getElementById('count').textContent === text", arg=f"{done + 1} of {made.length}"
    )
    assert sheet.locator("#question").text_content() == trial.question
    assert sheet.locator("#pictures img").count() == len(trial.pictures)
    return trial


def fits(sheet):
    return sheet.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.browser
def test_one_answers_by_keys_goes_away_and_comes_back(browser, folder):
    made = Study.load(folder)
    server = serve(made, folder, 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        sheet, notes = open_page(browser, server.url, color_scheme="dark")
        assert fits(sheet)
        code = begin(sheet)
        for done in range(made.length):
            if done == 4:
                sheet.reload()
                sheet.check("#agree")
                assert sheet.input_value("#code") == code
                sheet.click("#resume")
            trial = on_screen(made, sheet, code, done)
            assert fits(sheet)
            sides = made.sides(trial, code)
            spans = sheet.locator("#choices span").all_text_contents()
            assert spans == [trial.options[option] for option in sides]
            sheet.wait_for_selector("#choices button:enabled")
            value = right_value(made, trial, code)
            if done % 2:
                sheet.keyboard.press(str(value + 1))
            else:
                sheet.click(f"#choices button[data-value='{value}']")
        sheet.wait_for_selector("#end:not([hidden])")
        assert notes["errors"] == []
        assert all(url.startswith((server.url, "data:")) for url in notes["requests"])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        server.store.close()
    with Store(folder, made) as store:
        found = analyse(made, store.answers())
    assert (found.people, found.complete) == (1, 1)
    assert {one.value for one in found.methods.values()} == {1}


@pytest.mark.browser
def test_the_file_is_answered_and_its_answers_are_read(browser, folder, tmp_path):
    made = Study.load(folder)
    export(made, folder, tmp_path / "page.html")
    sheet, notes = open_page(browser, (tmp_path / "page.html").as_uri())
    code = begin(sheet)
    for done in range(made.length):
        trial = on_screen(made, sheet, code, done)
        sheet.wait_for_selector("#choices button:enabled")
        sheet.keyboard.press(str(right_value(made, trial, code) + 1))
    sheet.wait_for_selector("#end:not([hidden])")
    with sheet.expect_download() as download:
        sheet.click("#download")
    download.value.save_as(tmp_path / "answers.json")
    assert download.value.suggested_filename == f"answers-{made.id}-{code}.json"
    assert sheet.input_value("#text") == (tmp_path / "answers.json").read_text()
    assert notes["errors"] == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in notes["requests"])
    found = analyse(made, read_answers(made, [tmp_path / "answers.json"]))
    assert found.complete == 1
    assert {one.value for one in found.methods.values()} == {1}
    assert found.inattentive == ()


@pytest.mark.browser
def test_trust_is_answered_by_keys_alone(browser, folder, tmp_path):
    from PIL import Image

    made = study(4, ("only",), "trust", attention=2)
    (tmp_path / "pictures").mkdir()
    for trial in made.trials:
        for name in trial.pictures:
            Image.new("RGB", (96, 96), "teal").save(tmp_path / "pictures" / name)
    export(made, tmp_path, tmp_path / "page.html")
    sheet, notes = open_page(browser, (tmp_path / "page.html").as_uri())
    code = begin(sheet)
    for done in range(made.length):
        trial = on_screen(made, sheet, code, done)
        assert fits(sheet)
        value = right_value(made, trial, code)
        key = str(value + 3)
        # Keys count as soon as the pictures are there.
        while sheet.locator("#scale input:checked").count() == 0:
            sheet.keyboard.press(key)
        assert sheet.locator("#scale input:checked").get_attribute("value") == str(value)
        sheet.keyboard.press("Enter")
    sheet.wait_for_selector("#end:not([hidden])")
    (tmp_path / "answers.json").write_text(sheet.input_value("#text"))
    found = analyse(made, read_answers(made, [tmp_path / "answers.json"]))
    assert found.methods["only"].value == 2
    assert found.inattentive == ()
    assert notes["errors"] == []
