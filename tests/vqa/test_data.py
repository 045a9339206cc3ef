import json
import shutil
from math import nan
from pathlib import Path

import pytest
import torch

from mmcam.class_path import import_class
from mmcam.config import resolve
from mmcam.errors import UserError
from mmcam.image import read_image
from mmcam.scenes.draw import draw
from mmcam.scenes.questions import questions
from mmcam.scenes.write import scenes
from mmcam.truth import Truth
from vqa.clevr import Clevr
from vqa.clevr_xai import ClevrXai
from vqa.data import (
    FORMS,
    AskedPictures,
    AskedScenes,
    by_form,
    matched,
)
from vqa.gqa import Gqa
from vqa.published import Asked

FILES = Path(__file__).parents[1] / "data" / "annotations"
QUESTION_FILE = "Questions/v2_OpenEnded_mscoco_val2014_questions.json"
ANNOTATION_FILE = "Annotations/v2_mscoco_val2014_annotations.json"


@pytest.mark.parametrize(("version", "prefix", "ids"), [("vqa_v1", "", "1010"), ("vqa_v2", "v2_", "101000")])
def test_both_versions_in_the_folders_of_their_own_tools(version, prefix, ids):
    data = AskedPictures(str(FILES / version), "val2014", prefix=prefix)
    assert data.ids[0] == ids
    sample = data.sample(0)
    assert (sample.text, sample.id) == ("What animal is this?", ids)
    picture = FILES / version / "Images" / "mscoco" / "val2014" / "COCO_val2014_000000000101.jpg"
    assert sample.image.tobytes() == read_image(picture).tobytes()
    assert data.given(0) == ("cat",)
    assert data.asked[0].answers == ("cat",) * 9 + ("kitten",)
    assert len(data.paths) == 2
    assert {len(question.answers) for question in data.asked} == {10}


def test_of_vqa_nothing_is_known_about_where_things_are():
    data = AskedPictures(str(FILES / "vqa_v2"), "val2014")
    assert len(data.things(0)) == 0
    assert data.things(0).masks.shape == (0, 160, 240)
    assert data.about(0, ["cat", "dog"]) == [None, None]
    assert data.human(0) is None


def test_answers_that_are_not_published_are_not_judged(tmp_path):
    root = shutil.copytree(FILES / "vqa_v2", tmp_path / "v2")
    (root / "Annotations" / "v2_mscoco_val2014_annotations.json").unlink()
    data = AskedPictures(str(root), "val2014")
    assert data.given(0) == ()
    assert data.judge({0: ["cat"]}) == {}


def test_values_are_reported_by_form():
    values = by_form("right", torch.tensor([1.0, 0.0, nan]), ["yes/no", "", "other"])
    assert {name: value.tolist()[:2] for name, value in values.items()} == {
        "right": [1, 0],
        "right_other": [pytest.approx(nan, nan_ok=True)] * 2,
        "right_yes_no": [1, pytest.approx(nan, nan_ok=True)],
    }
    assert by_form("right", torch.tensor([nan]), ["yes/no"]) == {}


def test_the_first_answer_is_judged():
    asked = {i: Asked(str(i), 0, "?", answer) for i, answer in enumerate(["dog", "dog", "dog", "", "dog"])}
    said = {4: ["Dog"], 0: ["dog", "cat"], 1: ["cat", "dog"], 2: [], 3: ["cat"]}
    assert matched(said, asked)["exact_match"].tolist() == [1, 1, 0, 0, pytest.approx(nan, nan_ok=True)]


def test_judged_as_by_the_official_code():
    data = AskedPictures(str(FILES / "vqa_v2"), "val2014")
    results = json.loads(next((FILES / "vqa_v2" / "Results").iterdir()).read_text())
    expected = json.loads((FILES / "vqa_v2" / "expected_accuracy.json").read_text())
    said = {data.ids.index(str(row["question_id"])): [row["answer"], "more"] for row in reversed(results)}
    judged = data.judge(said)
    theirs = [expected["perQuestion"][data.ids[number]] / 100 for number in said]
    assert judged["vqa_accuracy"].tolist() == pytest.approx(theirs)
    assert round(100 * judged["vqa_accuracy"].mean().item(), 2) == expected["overall"]
    for form, value in expected["perAnswerType"].items():
        name = f"vqa_accuracy_{form.replace('/', '_')}"
        assert round(100 * judged[name].nanmean().item(), 2) == value


def test_answers_about_scenes_are_about_what_the_question_is_about():
    data = AskedScenes("test", 12, questions_each=6)
    number = 0
    for scene in scenes(0, "test", 12):
        masks = draw(scene)[1]
        for question in questions(scene, 6):
            things = data.things(number)
            assert things.names == tuple(thing.kind for thing in scene.things)
            assert (things.masks.numpy() == masks).all()
            assert things.exact
            assert data.about(number, [question.answer, "something else"]) == [question.about] * 2
            assert data.sample(number).text == question.text
            if question.form == "what":  # the answer is the name of the thing
                assert [things.names[i] for i in question.about] == [question.answer]
            if (question.form, question.answer) == ("exists", "no"):
                assert question.about == ()
            number += 1
    assert number == len(data)
    right = {i: list(data.given(i)) for i in range(len(data))}
    judged = data.judge(right)
    assert judged["exact_match"].tolist() == [1] * len(data)
    assert set(judged) == {"exact_match"} | {f"exact_match_{form}" for form in FORMS}
    assert data.judge({3: ["nonsense"], 5: right[5]})["exact_match"].tolist() == [0, 1]


def test_naming_answers_alone():
    every, naming = AskedScenes("test", 12, questions_each=6), AskedScenes("test", 12, questions_each=6, forms=["what"])
    assert naming.ids == every.ids  # so that it judges dumps of all questions
    kept = [i for i in range(len(naming)) if naming.about(i, ["x"]) != [None]]
    assert len(kept) >= 5
    for i in range(len(naming)):
        assert (i in kept) == every.sample(i).text.startswith(
            ("what is left", "what is right", "what is above", "what is b")
        )
    with pytest.raises(UserError, match="unknown form of question 'waht': did you mean 'what'"):
        AskedScenes("test", 1, forms=["waht"])


READERS = {
    "gqa": ("gqa", "questions/val_balanced_questions.json", lambda root: Gqa(root)),
    "scene graphs": ("gqa", "sceneGraphs/val_sceneGraphs.json", lambda root: Gqa(root)),
    "clevr": ("clevr", "questions/CLEVR_val_questions.json", lambda root: Clevr(root)),
    "clevr-xai": ("clevr_xai", "CLEVR-XAI_simple_questions.json", lambda root: ClevrXai(root)),
    "questions": ("vqa_v2", QUESTION_FILE, lambda root: AskedPictures(root, "val2014")),
    "annotations": ("vqa_v2", ANNOTATION_FILE, lambda root: AskedPictures(root, "val2014")),
}


@pytest.fixture(params=READERS)
def reader(request, tmp_path):
    """A data set's folder, one of its files, and what reads it."""
    name, file, read = READERS[request.param]
    root = shutil.copytree(FILES / name, tmp_path / name)
    read(str(root))
    return root, root / file, read


def test_files_that_are_cut_short_or_something_else(reader):
    root, file, read = reader
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"\xff\xfe\x00", b"[1, 2]", b"3", b"[" * 100_000):
        file.write_bytes(content)
        with pytest.raises(UserError, match=file.name):
            read(str(root))


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "..\\secret.png", "C:\\secret.png", "a\0.png"])
@pytest.mark.parametrize("which", ["clevr", "clevr-xai", "gqa"])
def test_names_of_pictures_stay_in_their_folder(tmp_path, which, name):
    folder, file, read = READERS[which]
    root = shutil.copytree(FILES / folder, tmp_path / folder)
    content = json.loads((root / file).read_text())
    if which == "gqa":
        content["09000001"]["imageId"] = name
    else:
        content["questions"][0]["image_filename"] = name
    (root / file).write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"{file.rpartition('/')[2]}: .*expected the name of a file in"):
        read(str(root))


@pytest.mark.parametrize("which", ["clevr", "clevr-xai"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[0].pop("question"), r"questions\[0\]: expected 'question' as str, got none"),
        (lambda rows: rows[0].pop("question_index"), r"questions\[0\]: expected 'question_index' as int"),
        (lambda rows: rows[0].update(question_index="../0"), r"questions\[0\]: expected 'question_index' as int"),
        (lambda rows: rows.append(rows[0]), r"expected each id once, got 0 again"),
        (lambda rows: rows[0].update(answer=[1]), r"questions\[0\]: expected 'answer' as a text"),
    ],
)
def test_what_is_wrong_with_clevr_is_said_with_its_place(tmp_path, which, change, message):
    folder, file, read = READERS[which]
    root = shutil.copytree(FILES / folder, tmp_path / folder)
    content = json.loads((root / file).read_text())
    change(content["questions"])
    (root / file).write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"{file.rpartition('/')[2]}: .*{message}"):
        read(str(root))


@pytest.mark.parametrize("name", ["vqa/gqa", "vqa/clevr", "vqa/vqa_hat", "vqa/vqa_v2", "vqa/easy_vqa", "vqa/scenes"])
def test_every_shipped_data_section_is_that_of_a_truth(name):
    section = resolve(name, "data", Truth)
    assert issubclass(import_class(section["class_path"], "data.class_path", Truth), Truth)
    assert "split" in section["init_args"]
