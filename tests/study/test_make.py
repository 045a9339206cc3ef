"""Out of a dump: what is asked about, what is drawn, and the command."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmcam.cli import main
from mmcam.errors import UserError
from mmcam.study import Store, Study
from mmcam.study.make import make, paint
from tests.study.studies import at, codes, explanation, right_value, write_dump


def digests(folder):
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_discrimination_asks_about_the_thing_that_the_map_shows(made_once):
    study = Study.load(made_once)
    assert study.methods == ("grad_cam", "hires_cam")
    assert len(study.trials) == 8 * 2 + 2
    for trial in study.trials:
        if trial.is_check:
            assert trial.pictures == ()
            continue
        assert set(trial.options) == {"dog", "cat"}
        assert trial.word == trial.options[trial.key]
        (name,) = trial.pictures
        with Image.open(made_once / "pictures" / name) as image:
            assert image.size == (64, 48)
            pixels = np.asarray(image).astype(float)
        if trial.method == 0:  # colours where the map is; elsewhere the picture is nearly grey
            left, right = (np.ptp(half, axis=2).mean() for half in np.split(pixels, 2, axis=1))
            assert (left > right) == (trial.word == "dog")


def test_the_same_seed_makes_the_same_files(made_once, tmp_path):
    dump = made_once.parent / "maps.h5"
    make(tmp_path / "again", dump, kind="discrimination", pairs=8, side=64, attention=2, opacity=1.0)
    assert digests(tmp_path / "again") == digests(made_once)
    other = make(tmp_path / "other", dump, kind="discrimination", pairs=8, side=64, attention=2, opacity=1.0, seed=1)
    assert other.id != Study.load(made_once).id


def test_words_asks_about_two_words_that_name_something(tmp_path):
    ones = [explanation(f"h{number}", ("the", "dog", "left", "cat")) for number in range(4)]
    study = make(tmp_path / "s", write_dump(tmp_path / "maps.h5", ones), kind="words", pairs=4, side=64)
    assert {frozenset(trial.options) for trial in study.trials} == {frozenset(("dog", "cat"))}
    assert all(trial.question == "Which word does this map explain?" for trial in study.trials if not trial.is_check)


def test_words_that_are_about_the_same_are_not_asked_against_each_other(tmp_path):
    """Two dogs a picture: "dog" and "dogs" mean both; without annotations, a plural and a capital are known."""
    ones = [explanation(f"h{number}", ("dogs", "Dog", "dog")) for number in range(4)]
    dump = write_dump(tmp_path / "maps.h5", ones)
    (tmp_path / "plain").mkdir()
    for number in range(4):
        Image.new("RGB", (40, 30)).save(tmp_path / "plain" / f"h{number}.png")
    with pytest.raises(UserError, match="expected 4 pictures to ask about, found 0"):
        make(tmp_path / "s", dump, kind="words", pairs=4)
    other = [explanation(f"h{number}.png", ("dog", "Dogs", "cat")) for number in range(4)]
    dump = write_dump(tmp_path / "others.h5", other)
    study = make(tmp_path / "s", dump, kind="words", pairs=4, side=64, data=str(tmp_path / "plain"))
    assert all("cat" in trial.options for trial in study.trials)


def test_words_for_what_is_not_there_are_not_asked_about(tmp_path):
    ones = [explanation(f"h{number}", ("dog", "cat", "pizza")) for number in range(4)]
    study = make(tmp_path / "s", write_dump(tmp_path / "maps.h5", ones), kind="words", pairs=4, side=64)
    assert {option for trial in study.trials for option in trial.options} == {"dog", "cat"}


def test_discrimination_needs_a_map_of_either_thing(tmp_path):
    """Of pictures whose dog alone was said, "dog" would always be right."""
    ones = [explanation(f"h{number}", ("dog", "cat") if number < 2 else ("dog",)) for number in range(6)]
    dump = write_dump(tmp_path / "maps.h5", ones)
    with pytest.raises(UserError, match="expected 4 pictures to ask about, found 2"):
        make(tmp_path / "s", dump, kind="discrimination", pairs=4)


def test_maps_that_show_nothing_are_left_out(tmp_path):
    empty = torch.zeros(2, 3, 4)
    ones = [explanation(f"h{n}", ("dog", "cat"), empty if n < 3 else None) for n in range(6)]
    dump = write_dump(tmp_path / "maps.h5", ones)
    with pytest.raises(UserError, match="expected 4 pictures to ask about, found 3"):
        make(tmp_path / "s", dump, kind="discrimination", pairs=4)
    assert not (tmp_path / "s").exists()
    sources = {t.source for t in make(tmp_path / "s", dump, kind="discrimination", pairs=2, attention=0).trials}
    assert sources < {"h3", "h4", "h5"}


def test_trust_shows_the_models_that_it_says(tmp_path):
    """The first model looks at the left for "dog", the second at the right; they differ in what else they say."""
    names = [f"h{number}" for number in range(4)]
    first = [explanation(name, ("dog", "pizza", "cat"), at((1, 0), (0, 0), (0, 0))) for name in names]
    second = [explanation(name, ("pizza", "dog"), at((0, 0), (1, 3))) for name in [*names, "h9"]]
    dumps = write_dump(tmp_path / "a.h5", first), write_dump(tmp_path / "b.h5", second)
    study = make(tmp_path / "s", *dumps, kind="trust", pairs=4, side=64, attention=1, opacity=1.0)
    for trial in study.trials[:-1]:
        assert (trial.word, trial.options) == ("dog", ())
        assert trial.question.startswith("Both programs say “dog”.")
        for option, name in enumerate(trial.pictures):
            with Image.open(tmp_path / "s" / "pictures" / name) as image:
                pixels = np.asarray(image).astype(float)
            left, right = (np.ptp(half, axis=2).mean() for half in np.split(pixels, 2, axis=1))
            assert (right > left) == (option == trial.key)  # the key is the second model
    assert {trial.key for trial in study.trials[:-1]} == {0, 1}


def test_a_map_is_painted_where_its_window_is():
    """A window over the right half of the picture: the left half is the colour of zero."""
    one = explanation("x", ("a",), torch.ones(1, 2, 2))
    one = type(one)(**{**vars(one), "window": (0.0, 20.0, 30.0, 40.0)})
    pixels = np.asarray(paint(Image.new("RGB", (40, 30)), one, 0, 80, "gray", 1.0))
    assert pixels.shape == (60, 80, 3)
    assert pixels[:, :40].max() == 0
    assert pixels[:, 40:].min() == 255


def test_what_cannot_be_made_is_told(made_once, tmp_path):
    dump = made_once.parent / "maps.h5"
    with pytest.raises(UserError, match="holds a study already"):
        make(made_once, dump, kind="discrimination", pairs=8)
    with pytest.raises(UserError, match="trust: expected two dumps, got one"):
        make(tmp_path / "s", dump, kind="trust")
    with pytest.raises(UserError, match="words: expected one dump, got two"):
        make(tmp_path / "s", dump, dump, kind="words")
    with pytest.raises(UserError, match="unknown method"):
        make(tmp_path / "s", dump, kind="words", methods=("grad_kam",))
    Image.new("RGB", (40, 30)).save(tmp_path / "h0.png")
    with pytest.raises(UserError, match="expected annotated data"):
        make(tmp_path / "s", dump, kind="discrimination", pairs=4, data=str(tmp_path / "h0.png"))
    assert not (tmp_path / "s").exists()


def test_the_command_from_dump_to_table(made_once, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(made_once.parent / "maps.h5", "maps.h5")
    Path("consent.txt").write_text("We are\nwe.\n\nYou may stop.\n", encoding="utf-8")
    words = "--kind discrimination --trials 8 --side 64 --consent consent.txt --out s"
    assert main(["study", "make", "maps.h5", *words.split()]) == 0
    assert "9 questions a person, 4 groups, methods grad_cam, hires_cam" in capsys.readouterr().out
    study = Study.load(Path("s"))
    assert study.consent == ("We are we.", "You may stop.")
    assert main(["study", "analyse", "s"]) == 2
    assert "expected answers, found none" in capsys.readouterr().err
    assert main(["study", "export", "s", "--out", "page.html"]) == 0
    assert main(["study", "export", "s", "--out", "page.html"]) == 2
    assert main(["study", "export", "s", "--out", "page.html", "--force"]) == 0
    with Store(Path("s"), study) as store:
        code = store.begin()
        for name in study.plan(code):
            store.add(code, {"trial": name, "value": right_value(study, study.by_id[name], code)})
    other = next(one for one in codes(study, 5) if one != code)
    answers = [{"trial": name, "value": 1} for name in study.plan(other)]
    Path("one.json").write_text(json.dumps({"study": study.id, "code": other, "answers": answers}))
    assert main(["study", "analyse", "s", "one.json", "--least-checks", "0", "--json", "found.json"]) == 0
    printed = capsys.readouterr().out
    assert "2 people, 2 answered all" in printed
    for told in (f"study {study.id}, discrimination, made with seed 0", "dump: maps.h5", "by chance", "5000 throws"):
        assert told in printed
    assert json.loads(Path("found.json").read_text())["methods"]["grad_cam"]["value"] == 0.75
    mine = [{"trial": name, "value": 1} for name in study.plan(code)]
    Path("mine.json").write_text(json.dumps({"study": study.id, "code": code, "answers": mine}))
    assert main(["study", "analyse", "s", "mine.json"]) == 2
    assert "of other people than the folder's" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("mak d", "did you mean 'make'"),
        ("make d --kind words", "--out FOLDER"),
        ("make a b c --out x", "expected a dump, or two, got 3"),
        ("serve", "expected a study, got 0"),
        ("serve d --kind trust", "--kind belongs to mmcam study make"),
        ("serve d --out x", "--out belongs to mmcam study make and export"),
        ("serve d", "make one with mmcam study make"),
        ("analyse d.json", "expected the study's folder first"),
        ("make d --out x --opacity 2", "from 0 to 1"),
        ("analyse d --throws 3", "--throws"),
    ],
)
def test_wrong_commands_are_told(words, message, capsys):
    assert main(["study", *words.split()]) == 2
    assert message in capsys.readouterr().err
