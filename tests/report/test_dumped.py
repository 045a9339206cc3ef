"""A dump as a page: pictures from its data, words against the truth, and the command."""

import base64
import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmcam.cli import main
from mmcam.draw import upsample
from mmcam.dumps.store import MapWriter
from mmcam.errors import UserError
from mmcam.metrics.pointing import pointing
from mmcam.report import write
from mmcam.report.dumped import Dumped
from mmcam.report.judged import marks
from mmcam.sources import Source
from mmcam.task import Sample
from mmcam.truth import Things, Truth
from tests.report.pages import explanation, read

HALVES = {"class_path": "tests.truths.Halves", "init_args": {"count": 3}}
TINY = {"class_path": "tests.tiny_task.TinyTask"}


def at(*places):
    """Maps of 3 x 4, each with one place that is not zero."""
    maps = torch.zeros(len(places), 3, 4)
    for row, (y, x) in enumerate(places):
        maps[row, y, x] = 1 + row
    return maps


def write_dump(path, *ones, data=HALVES, task=TINY, failures=None, **settings):
    config = {"task": task, "settings": {"targets": "predicted", **settings}}
    with MapWriter(path, config=config | ({"data": data} if data else {}), layer="conv2") as maps:
        maps.append(ones)
        maps.fail(failures or {})
    return path


@pytest.fixture
def dump(tmp_path, monkeypatch):
    """Three pictures of `Halves`: the dog is on the left, the cat on the right, a pizza nowhere."""
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    first = explanation("h0", ("a", "dog", "cat"), at((0, 0), (1, 0), (2, 0)))
    second = explanation("h1", ("pizza", "dog"), at((0, 0), (0, 3)))
    third = explanation("h2", ("dog", "cat"), torch.stack([torch.zeros(3, 4), at((1, 3))[0]]))
    write_dump(Path("run/maps.h5"), first, second, third, failures={"h9": "broken"})
    return tmp_path


def page_of(*words):
    assert main(["report", "run", "--force", *words]) == 0
    return read(Path("run/report.html"))


def test_words_are_held_against_the_truth(dump):
    """The peak of the first cat is on the left, that of the second dog on the right; a zero map points nowhere."""
    found = page_of()
    assert found.index["marks"] == [".+-", "?-", "-+"]
    assert found.index["right"] == []
    assert found.index["columns"] == {"says_dog": [1.0, 1.0, 1.0]}
    assert found.index["answers"] is False  # TinyTask speaks in sentences
    assert found.islands["maps-0"]["given"] == ["a dog left of the cat"]
    assert found.index["flags"] == ["000", "00", "10"]
    assert "h9" in found.texts["unexplained"]
    assert found.texts["missed"].split()[-6:] == ["dog", "2", "3", "cat", "1", "2"]
    assert found.texts["absent"].split()[-2:] == ["pizza", "1"]


def test_pictures_are_those_of_the_data(dump):
    found = page_of()
    assert found.index["pictures"] == [0, 1, 2]
    drawn = [np.random.RandomState(number).randint(0, 256, (30, 40, 3)).mean(2).ravel() for number in range(3)]
    for number in range(3):
        with Image.open(BytesIO(base64.b64decode(found.islands[f"picture-{number}"]["jpeg"]))) as image:
            seen = np.asarray(image).mean(2).ravel()
        alike = [np.corrcoef(seen, pixels)[0, 1] > 0.8 for pixels in drawn]  # JPEG does not love noise
        assert alike == [other == number for other in range(3)]


class Bordered(Truth):
    """One thing in the top left, another in the bottom right, both with a border that counts for nothing."""

    ids = ("x",)

    def sample(self, number):
        return Sample(Image.new("RGB", (8, 6)), "x")

    def things(self, number):
        masks = torch.zeros(2, 6, 8, dtype=torch.bool)
        masks[0, :3, :4] = masks[1, 3:, 4:] = True
        ignored = torch.zeros(6, 8, dtype=torch.bool)
        ignored[2:4] = ignored[:, 3:5] = True
        return Things.of_masks(("one", "two"), masks, ignored)

    def about(self, number, words):
        return [{"one": (0,), "two": (1,), "both": (0, 1)}.get(word) for word in words]


def test_marks_are_the_pointing_game(seed):
    """Held against `mmcam.metrics.pointing` on random maps, borders, constant maps and windows."""
    truth, names = Bordered(), ("one", "two", "both")
    seen = set()
    for turn in range(40):
        signed = torch.randn(3, 4, 5) if turn else torch.ones(3, 4, 5)
        window = (0.0, 0.0, 6.0, 8.0) if turn % 2 else (-1.0, 1.0, 5.0, 9.0)
        one = explanation("x", names, signed, size=(6, 8), window=window)
        things = truth.things(0)
        masks = torch.stack([things.masks[list(about)].any(0) for about in truth.about(0, names)])
        values = pointing(upsample(one.maps, one.size, one.window), masks, ignored=things.ignored)
        expected = "".join("." if value.isnan() else "+" if value else "-" for value in values)
        assert marks(truth, 0, one) == expected
        seen |= set(expected)
    assert seen == {".", "+", "-"}


def test_without_truth_there_are_no_marks():
    truth = Bordered()
    assert marks(truth, 0, explanation("x", ("a", "b"), size=(6, 8))) == ""
    assert marks(truth, 0, explanation("x", ("one",), size=(7, 8))) == ""  # of another picture
    truth.human = lambda number: torch.ones(1, 2, 2)
    assert marks(truth, 0, explanation("x", ("one",), size=(6, 8))) == ""


def test_broken_annotations_do_not_end_a_report(tmp_path, caplog):
    from tests.truths import Halves

    class Broken(Halves):
        def things(self, number):
            raise UserError("no instances")

        def judge(self, said):
            raise UserError("no answers")

    write_dump(tmp_path / "maps.h5", explanation("h0"))
    dumped = Dumped(tmp_path / "maps.h5", Broken())
    (one,) = dumped
    assert one.image is not None
    assert one.marks == ""
    assert dumped.columns() == {}
    assert [record.getMessage() for record in caplog.records] == [
        "h0 is not judged: no instances",
        "what was said is not judged: no answers",
    ]


def test_data_that_are_gone_leave_the_maps(dump, capsys):
    where = {"class_path": "mmcam.sources.Files", "init_args": {"where": "photos"}}
    write_dump(Path("gone.h5"), explanation("h0"), data=where)
    assert main(["report", "gone.h5", "--title", "Gone"]) == 0
    found = read(Path("gone.html"))
    assert [tag["class"] for _, tag in found.tags if tag.get("role") == "note"] == ["note"]
    assert "There are no pictures here, only maps" in found.text
    assert "photos" in found.islands["maps-0"]["missing"]
    assert found.index["pictures"] == [-1]
    write_dump(Path("mute.h5"), explanation("h0"), data=None)
    assert main(["report", "mute.h5"]) == 0
    assert "the file does not say where they are" in Path("mute.html").read_text()
    assert page_of("--no-pictures").index["pictures"] == [-1] * 3


def test_a_picture_that_is_missing_or_another_is_told(dump, capsys):
    Path("photos").mkdir()
    Image.new("RGB", (40, 30), "red").save("photos/whole.png")
    Path("photos/broken.png").write_bytes(b"no picture")
    Image.new("RGB", (41, 30)).save("photos/other.png")
    where = {"class_path": "mmcam.sources.Files", "init_args": {"where": "photos"}}
    names = ("whole.png", "broken.png", "other.png", "lost.png")
    write_dump(Path("photos.h5"), *map(explanation, names), data=where)
    assert main(["report", "photos.h5"]) == 1
    assert "3 pictures are missing" in capsys.readouterr().err
    found = read(Path("photos.html"))
    assert found.index["pictures"] == [0, -1, -1, -1]
    reasons = [found.islands[f"maps-{number}"].get("missing", "") for number in range(4)]
    assert reasons[0] == ""
    assert "expected a picture" in reasons[1]
    assert reasons[2] == "expected the explained picture of 40 x 30, got one of 41 x 30"
    assert reasons[3] == "not in the data"


def test_data_named_by_the_user_must_be_those_of_the_dump(dump, capsys):
    Path("photos").mkdir()
    Image.new("RGB", (40, 30), "red").save("photos/whole.png")
    assert main(["report", "run", "--data", "photos"]) == 2
    assert "got data without 'h0'" in capsys.readouterr().err
    scenes = {"class_path": "vqa.data.AskedScenes", "init_args": {"split": "test", "count": 2, "seed": 3}}
    write_dump(Path("scenes.h5"), explanation("test-0-q0"), data=scenes)
    Path("other.yaml").write_text(json.dumps({"data": {**scenes, "init_args": {**scenes["init_args"], "seed": 4}}}))
    assert main(["report", "scenes.h5", "--data", "other.yaml"]) == 2
    assert "seed 3, got seed 4" in capsys.readouterr().err


def test_questions_of_one_picture_share_it(tmp_path, monkeypatch):
    from vqa.data import AskedScenes

    monkeypatch.chdir(tmp_path)
    source = AskedScenes(count=2, seed=3)
    asked = [source.sample(number) for number in range(3)]
    ones = [
        explanation(sample.id, (source.given(i)[0] if i else "wrong", "zebra"), prompt=sample.text, size=(96, 96))
        for i, sample in enumerate(asked)
    ]
    arguments = {"split": "test", "count": 2, "seed": 3}
    write_dump(
        Path("maps.h5"),
        *ones,
        data={"class_path": "vqa.data.AskedScenes", "init_args": arguments},
        task={"class_path": "vqa.VQATask"},
    )
    assert main(["report", "maps.h5"]) == 0
    found = read(Path("maps.html"))
    assert [sample.id for sample in asked] == ["test-0-q0", "test-0-q1", "test-1-q0"]
    assert found.index["pictures"] == [0, 0, 1]
    assert found.index["prompts"] == [sample.text for sample in asked]
    assert found.index["answers"] is True
    assert found.index["separator"] == ", "
    assert found.index["right"] == [0.0, 1.0, 1.0]
    assert "exact_match" in found.index["columns"]
    assert found.islands["maps-1"]["given"] == list(source.given(1))
    assert "About what is not there" in found.texts["failures"]
    assert "Hallucinated" not in found.texts["failures"]


def test_what_people_said_is_not_judged(tmp_path):
    from tests.truths import Halves

    ones = [explanation("h0", ("dog",)), explanation("h0:given", ("cat",)), explanation("h1:given-2", ("cat",))]
    write_dump(tmp_path / "maps.h5", *ones, targets="both")
    dumped = Dumped(tmp_path / "maps.h5", Halves())
    assert [one.image is not None for one in dumped] == [True] * 3
    assert dumped.columns() == {"says_dog": [1.0, None, None]}
    write_dump(tmp_path / "given.h5", explanation("h0", ("dog",)), targets="given")
    given = Dumped(tmp_path / "given.h5", Halves())
    assert len(list(given)) == 1
    assert given.columns() == {}


def results_of(ids, values, **conditions):
    figure = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 4, "excluded": 0}
    pictures = {"ids": ids, "values": {"grad_cam": {"pointing": values}, "centre": {"pointing": values}}}
    rows = {"grad_cam": {"pointing": figure}, "centre": {"pointing": figure}}
    return {"title": "Maps", "rows": rows, "notes": [], "conditions": conditions, "tables": [], "pictures": pictures}


def test_figures_of_an_evaluation_are_shown_and_sort(dump, capsys):
    Path("run.json").write_text(json.dumps(results_of(["h2", "h0"], [0.25, None])))
    found = page_of("--results", "run.json")
    assert found.index["columns"]["pointing"] == [None, None, 0.25]
    assert "0.500 ± 0.250 (n = 4)" in found.texts["metrics"].replace("\N{NO-BREAK SPACE}", " ")
    Path("run.json").write_text(json.dumps(results_of(["z"], [0.25])))
    assert main(["report", "run", "--force", "--results", "run.json"]) == 2
    assert "results of other pictures" in capsys.readouterr().err
    Path("run.json").write_text("{}")
    assert main(["report", "run", "--force", "--results", "run.json"]) == 2


def test_results_about_people_belong_to_what_people_said(tmp_path):
    write_dump(tmp_path / "maps.h5", explanation("h0"), explanation("h0:given"), targets="both")
    from tests.truths import Halves

    dumped = Dumped(tmp_path / "maps.h5", Halves())
    assert dumped.evaluated(results_of(["h0"], [0.5])) == {"pointing": [0.5, None]}
    assert dumped.evaluated(results_of(["h0"], [0.5], explained="given")) == {"pointing": [0.5, 0.5]}


def test_several_methods_and_a_part_of_them(dump, capsys):
    one = explanation("h0", ("dog",), at((1, 0)))
    other = explanation("h0", ("dog",), at((1, 3)), method="hires_cam")
    with MapWriter("two.h5", config={"data": HALVES}, layer="conv2", methods=("grad_cam", "hires_cam")) as maps:
        maps.append([one], others={"hires_cam": [other]})
    assert main(["report", "two.h5"]) == 0
    found = read(Path("two.html"))
    assert found.index["methods"] == ["grad_cam", "hires_cam"]
    first, second = (list(base64.b64decode(maps["places"])) for maps in found.islands["maps-0"]["maps"])
    assert (first.index(255), second.index(255)) == (4, 7)
    assert found.index["marks"] == ["+"]
    assert main(["report", "two.h5", "--methods", "hires_cam", "--out", "one.html"]) == 0
    assert read(Path("one.html")).index["marks"] == ["-"]
    assert main(["report", "two.h5", "--methods", "hires", "--out", "none.html"]) == 2
    assert "hires_cam" in capsys.readouterr().err


def test_the_command(dump, capsys):
    assert main(["report", "run", "--limit", "2", "--date", "today"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("2 explained, 2 pictures, 5 maps, 0.")
    assert out[1] == "run/report.html"
    first = Path("run/report.html").read_bytes()
    assert main(["report", "run"]) == 2
    assert "run/report.html exists already" in capsys.readouterr().err
    assert Path("run/report.html").read_bytes() == first
    assert page_of("--limit", "2", "--date", "today").text.encode() == first  # byte by byte
    for words, said in (
        (["nowhere"], "nowhere"),
        (["run", "--force", "--limit", "0"], "--limit: expected 1 or more"),
        (["run", "--force", "--side", "2"], "side: expected 16"),
        (["run", "--force", "--data", "x", "--no-pictures"], "leave one out"),
        ([str(dump)], "expected a finished dump"),
    ):
        assert main(["report", *words]) == 2
        assert said in capsys.readouterr().err


class Graded(Source):
    """Pictures without end, each of its own colours."""

    def __init__(self, count: int) -> None:
        self.ids = [f"g{number:05}" for number in range(count)]
        self.ramp = np.linspace(0, 255, 320).astype(np.uint8)[None, :, None] * np.ones((240, 1, 3), np.uint8)

    def sample(self, number):
        shift = np.array([number % 250, number // 250 * 10, 90], np.uint8)
        return Sample(Image.fromarray(self.ramp + shift), self.ids[number])


def large(tmp_path, count, words=5):
    source = Graded(count)
    names = tuple(f"word{number}" for number in range(words))
    with MapWriter(tmp_path / "maps.h5", config={}, layer="conv2") as maps:
        for start in range(0, count, 500):
            some = source.ids[start : start + 500]
            maps.append([explanation(name, names, torch.rand(words, 14, 14), size=(240, 320)) for name in some])
    index = write(tmp_path / "page.html", Dumped(tmp_path / "maps.h5", source))
    assert (index.shown, index.pictures, index.maps) == (count, count, count * words)
    return (tmp_path / "page.html").stat().st_size


def test_a_page_grows_by_what_a_picture_and_its_maps_take(tmp_path):
    """A map of 14 x 14 is 264 characters of base64."""
    (tmp_path / "few").mkdir()
    (tmp_path / "more").mkdir()
    few, more = large(tmp_path / "few", 50, 1), large(tmp_path / "more", 50, 11)
    assert 264 * 500 < more - few < 300 * 500


@pytest.mark.slow
def test_five_thousand_pictures(tmp_path):
    size = large(tmp_path, 5000)
    assert size < 60_000_000
    found = read(tmp_path / "page.html")
    assert len(found.islands) == 10001
    assert len(json.dumps(found.index)) < 1_000_000  # what a browser reads at once


def test_the_source_must_have_the_pictures(tmp_path):
    write_dump(tmp_path / "maps.h5", explanation("elsewhere"))
    with pytest.raises(UserError, match="got data without 'elsewhere'"):
        Dumped(tmp_path / "maps.h5", Graded(2))
