"""The file: what its islands hold, that nothing breaks out of them, and that nothing is fetched."""

import base64
import hashlib
import re
import weakref
from dataclasses import replace
from io import BytesIO

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from mmcam.errors import UserError
from mmcam.report import Facts, Shown, write
from tests.report.pages import explanation, read, shown


def page(tmp_path, *ones, facts=None, **options):
    write(tmp_path / "page.html", ones, facts, overwrite=True, **options)
    return read(tmp_path / "page.html")


def bytes_of(text):
    return list(base64.b64decode(text))


def test_a_map_is_in_its_island_as_bytes_of_its_own_maximum(tmp_path):
    """By hand: 255 times a quarter is 63.75, times a half 127.5, which rounds to the even 128; below zero is zero."""
    signed = torch.tensor([[[0.0, 1.0, -3.0], [2.0, 4.0, 0.0]], [[0.0, 0, 0], [0, 0, 8]]])
    one = shown("p", ("a", "dog"), signed=signed, size=(20, 40), window=(5.0, 10.0, 25.0, 30.0))
    island = page(tmp_path, one).islands["maps-0"]
    assert island["size"] == [20, 40]
    assert island["window"] == [0.25, 0.25, 1.25, 0.75]
    (maps,) = island["maps"]
    assert maps["shape"] == [2, 3]
    assert bytes_of(maps["places"]) == [0, 64, 0, 128, 255, 0, 0, 0, 0, 0, 0, 255]
    assert maps["peaks"] == [4.0, 8.0]
    assert maps["flags"] == "00"


def test_flags_and_scores_that_are_not_finite(tmp_path):
    signed = torch.ones(4, 2, 2)
    signed[1], signed[2], signed[3, 0, 0] = 0, -1, torch.nan
    one = explanation("p", ("w", "x", "y", "z"), signed=signed)
    one = replace(one, scores=torch.tensor([-0.123456, float("nan"), -float("inf"), 2.0]))
    found = page(tmp_path, Shown({"grad_cam": one}))
    assert found.index["flags"] == ["0123"]
    assert found.index["scores"] == [[-0.1235, None, None, 2.0]]
    places = bytes_of(found.islands["maps-0"]["maps"][0]["places"])
    assert places == [255] * 4 + [0] * 4 + [0] * 4 + [0, 255, 255, 255]


def test_words_heard_are_in_the_island_of_the_maps(tmp_path):
    scores = torch.tensor([[0.123456, -2.0], [float("nan"), 0.0]])
    one = replace(
        explanation("p"), heard=("is", "it"), heard_scores=scores, image_shares=torch.tensor([0.25, torch.nan])
    )
    found = page(tmp_path, Shown({"grad_cam": one}), shown("q"))
    island = found.islands["maps-0"]
    assert (island["heard"], island["seen"]) == (["is", "it"], [0.25, None])
    assert island["heard_scores"] == [[0.1235, -2.0], [None, 0.0]]
    assert not {"heard", "heard_scores", "seen"} & set(found.islands["maps-1"])
    assert "what the model heard" in found.texts["about"]
    assert "what the model heard" not in page(tmp_path, shown("q")).texts["about"]


def test_a_large_map_is_averaged_down(tmp_path):
    signed = torch.zeros(1, 4, 8)
    signed[0, :2, :2], signed[0, 2:, 6:] = torch.tensor([[1.0, 3], [5, 7]]), 2.0  # means 4 and 2
    (maps,) = page(tmp_path, shown("p", ("a",), signed=signed), map_side=4).islands["maps-0"]["maps"]
    assert maps["shape"] == [2, 4]
    assert bytes_of(maps["places"]) == [255, 0, 0, 0, 0, 0, 0, 128]
    assert maps["peaks"] == [7.0]  # of the map itself


def test_pictures_are_small_jpegs_and_each_is_there_once(tmp_path):
    large = Image.new("RGB", (1000, 500), "blue")
    ones = [
        shown("p"),
        shown("q", prompt="what?"),
        Shown({"grad_cam": explanation("r")}, large),
        shown("s", colour=None),
    ]
    found = page(tmp_path, *ones, side=200)
    assert found.index["pictures"] == [0, 0, 1, -1]
    assert [name for name in found.islands if name.startswith("picture")] == ["picture-0", "picture-1"]
    island = found.islands["picture-1"]
    with Image.open(BytesIO(base64.b64decode(island["jpeg"]))) as image:
        assert (image.format, image.size) == ("JPEG", (200, 100))
        assert np.abs(np.asarray(image)[50, 100].astype(int) - [0, 0, 255]).max() < 5
    assert (island["width"], island["height"]) == (200, 100)
    assert found.islands["picture-0"]["width"] == 40  # not enlarged


def test_the_index_holds_what_is_searched(tmp_path):
    ones = [
        shown("p", ("a", "dog"), marks=".+", prompt="where?", given=("a cat", "a dog")),
        shown("q", ("dog", "a", "dog"), marks="-.?", colour=None, missing="it is gone"),
        shown("r", ()),
    ]
    columns = {"right": [1.0, 0.0, None], "cider": [0.123456, None, 2.0]}
    found = page(tmp_path, *ones, columns=lambda: columns, facts=Facts(separator=", "))
    index = found.index
    assert index["ids"] == ["p", "q", "r"]
    assert index["prompts"] == ["where?", "", ""]
    assert index["vocabulary"] == ["a", "dog"]
    assert index["words"] == [[0, 1], [1, 0, 1], []]
    assert index["marks"] == [".+", "-.?", ""]
    assert index["right"] == [1.0, 0.0, None]
    assert index["columns"] == {"cider": [0.1235, None, 2.0]}
    assert index["answers"] is True
    assert found.islands["maps-0"]["given"] == ["a cat", "a dog"]
    assert found.islands["maps-1"]["missing"] == "it is gone"
    assert "2 with a" not in found.texts["failures"]
    assert re.search(r"Low pointing\s+1 with", found.texts["failures"])
    assert re.search(r"judged wrong", found.texts["failures"])
    assert re.findall(r"\w+", found.texts["missed"])[-3:] == ["dog", "1", "2"]  # one of two judged
    assert re.findall(r"\w+", found.texts["absent"])[-2:] == ["dog", "1"]


def test_colours_are_those_of_matplotlib(tmp_path):
    colours = page(tmp_path, shown()).index["colours"]
    assert next(iter(colours)) == "viridis"
    assert "jet" in colours
    for name, text in colours.items():
        table = np.array(bytes_of(text)).reshape(256, 3)
        for step in (0, 100, 255):
            assert np.abs(table[step] - 255 * np.array(matplotlib.colormaps[name](step))[:3]).max() <= 0.5


EVIL = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<!--<script>",
    "' onmouseover='alert(1)",
    "{{ 7*7 }}",
    "]]>\u2028\x00&lt;",
)


def test_nothing_breaks_out_of_its_place(tmp_path):
    ones = [shown(f"{text}{i}", (text, "a"), prompt=text, given=(text,), marks="?-") for i, text in enumerate(EVIL)]
    ones.append(shown("gone", colour=None, missing=EVIL[1]))
    results = {
        "title": EVIL[0],
        "rows": {EVIL[1]: {EVIL[2]: {"value": 0.5, "low": 0.4, "high": 0.6, "n": 3, "excluded": 0}}},
        "notes": [EVIL[3]],
        "conditions": {EVIL[0]: EVIL[1]},
        "tables": [],
    }
    facts = Facts(EVIL[1], {EVIL[0]: EVIL[1]}, (EVIL[2],), {EVIL[1]: EVIL[0]}, date=EVIL[1], results=results)
    columns = {EVIL[1]: [0.5] * len(ones)}
    found = page(tmp_path, *ones, facts=facts, columns=lambda: columns)
    kinds = [attributes.get("type") for attributes in found.all("script")]
    assert kinds.count(None) == 1  # its own
    assert set(kinds) == {None, "application/json"}
    assert found.all("img") == []
    assert not any(name.startswith("on") or name == "style" for _, tag in found.tags for name in tag)
    assert found.index["vocabulary"] == [EVIL[0], "a", *EVIL[1:], "dog"]
    assert found.index["prompts"][: len(EVIL)] == list(EVIL)
    assert list(found.index["columns"]) == [EVIL[1]]
    assert found.islands["maps-7"]["missing"] == EVIL[1]
    islands = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', found.text, re.DOTALL)
    assert len(islands) == len(found.islands)
    assert not any(set("<>&'\u2028") & set(island) for island in islands)
    assert EVIL[0] in found.texts["absent"]  # as text
    assert "49" not in found.texts["absent"]


def test_the_page_asks_for_nothing(tmp_path):
    found = page(tmp_path, shown())
    assert not re.search(r"\w://|https?:|mailto:", found.text)  # not even in the credits
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|WebSocket|import\(|innerHTML|eval\(", found.text)
    for tag, attributes in found.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "video", "audio")
        for name in ("src", "href", "action", "data"):
            assert attributes.get(name) in (None, "#cards"), (tag, attributes)
    (policy,) = (tag["content"] for tag in found.all("meta") if tag.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().partition(" ")[::2] for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert "unsafe" not in policy
    for rule, (content,) in (("script-src", found.scripts), ("style-src", found.styles)):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"


def test_people_can_use_it_without_a_mouse(tmp_path):
    found = page(tmp_path, shown(marks="+-"))
    assert found.tags[0] == ("html", {"lang": "en"})
    tabs = [tag for _, tag in found.tags if tag.get("role") == "tab"]
    panels = {tag["id"]: tag for _, tag in found.tags if tag.get("role") == "tabpanel"}
    assert [tab["aria-controls"] for tab in tabs] == ["gallery", "failures", "about"]
    assert all(panels[tab["aria-controls"]]["aria-labelledby"] == tab["id"] for tab in tabs)
    identities = [tag["id"] for _, tag in found.tags if "id" in tag]
    assert len(set(identities)) == len(identities)
    text = found.text
    for control in ("search", "word", "answer", "low", "high", "right", "only", "sort", "method", "colours", "opacity"):
        assert re.search(rf'<label[^>]*>[^<]+<(input|select)[^>]* id="{control}"', text), control
    (style,) = found.styles
    assert "prefers-color-scheme: dark" in style
    assert ":focus-visible" in style
    assert re.search(r'name="viewport" content="width=device-width', text)


def test_the_same_gives_the_same_bytes_but_for_the_date(tmp_path):
    ones = [shown("p"), shown("q", colour="blue")]
    for name in ("one", "two"):
        write(tmp_path / f"{name}.html", ones, Facts(date=""))
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    write(tmp_path / "dated.html", ones, Facts(date="1 May 2026"))
    credits = read(tmp_path / "dated.html").texts["credits"]
    assert credits.startswith("1 May 2026. Made with mmcam")


def test_a_file_is_not_overwritten_and_half_a_file_does_not_stay(tmp_path):
    path = tmp_path / "deep" / "page.html"
    write(path, [shown()])
    before = path.read_bytes()
    with pytest.raises(UserError, match="exists already; overwrite it with --force"):
        write(path, [shown("other")])

    def breaking():
        yield shown("other")
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        write(path, breaking(), overwrite=True)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]


def test_no_more_than_one_picture_is_held(tmp_path):
    held: list[weakref.ref] = []

    def many():
        for number in range(50):
            one = shown(f"p{number}", colour=(5 * number, 255 - 5 * number, 0))
            held.append(weakref.ref(one.image))
            yield one
            del one
            assert sum(each() is not None for each in held) <= 1

    index = write(tmp_path / "page.html", many())
    assert (index.shown, index.pictures, index.maps, index.missing) == (50, 50, 100, 0)


@pytest.mark.parametrize(
    ("ones", "said"),
    [
        ([shown("p"), shown("q", method="hires_cam")], "q: expected maps by grad_cam, got hires_cam"),
        ([shown("p", marks="+")], "p: expected 2 marks, got 1"),
        (
            [Shown({"grad_cam": explanation("p"), "hires_cam": explanation("p", ("x",), method="hires_cam")})],
            "p: expected the same words",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, ones, said):
    with pytest.raises(UserError, match=said):
        write(tmp_path / "page.html", ones)
    assert list(tmp_path.iterdir()) == []


def test_columns_are_as_long_as_what_is_shown(tmp_path):
    with pytest.raises(UserError, match="column x: expected 1 values, got 2"):
        write(tmp_path / "page.html", [shown()], columns=lambda: {"x": [1.0, 2.0]})
    with pytest.raises(UserError, match="side: expected 16 pixels or more, got 3"):
        write(tmp_path / "page.html", [shown()], side=3)


def test_nothing_to_show_is_a_page_too(tmp_path):
    found = page(tmp_path, facts=Facts("None", failures={"p": "broken"}))
    assert found.index["ids"] == []
    assert "broken" in found.texts["unexplained"]


def test_tables_and_plots_of_results(tmp_path):
    """By hand: from 0 to 0.8 in 180 pixels from 110 on, 0.4 ends at 200, and its interval is 0.3 to 0.5."""
    figure = {"value": 0.4, "low": 0.3, "high": 0.5, "n": 12, "excluded": 1}
    best = {"value": 0.8, "low": None, "high": None, "n": 12, "excluded": 1}
    none = {"value": None, "low": None, "high": None, "n": 0, "excluded": 13}
    results = {
        "title": "Maps against the truth",
        "rows": {"grad_cam": {"pointing": figure, "iou": none, "n": 3}, "centre": {"pointing": best}},
        "notes": ["A note."],
        "conditions": {"layer": "layer4"},
        "tables": [{"title": "What was said", "rows": {"model": {"cider": figure}}, "notes": [], "conditions": {}}],
    }
    found = page(tmp_path, shown(), facts=Facts(results=results))
    text = found.texts["metrics"].replace("\N{NO-BREAK SPACE}", " ")
    for said in ("Maps against the truth", "0.400 ± 0.100 (n = 12)", "0.800 (n = 12)", "–", "A note.", "What was said"):
        assert said in text
    rects = found.all("rect")
    assert [(rect["class"], rect["x"], rect["width"]) for rect in rects] == [
        ("first", "110.0", "90.0"),
        ("other", "110.0", "180.0"),
        ("first", "110.0", "144.0"),  # 0.4 of 0.5
    ]
    whiskers = [(line["x1"], line["x2"]) for line in found.all("line") if line["class"] == "whisker"]
    assert whiskers[0] == ("177.5", "222.5")
    assert whiskers[1] == ("290.0", "290.0")
    assert next(svg["aria-label"] for svg in found.all("svg")) == "pointing: grad_cam 0.400, centre 0.800"
    assert [tag["id"] for _, tag in found.tags if tag.get("role") == "tab"][2] == "tab-metrics"
