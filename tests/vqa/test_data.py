import json
from pathlib import Path

import pytest

from mmcam.errors import UserError
from mmcam.scenes.language import questions
from mmcam.scenes.write import scenes, write
from vqa.data import Asked, VqaV2, common_answers, of_split

QUESTIONS = [
    {"image_id": 9, "question": "is there a dog ?", "question_id": 9000},
    {"image_id": 4, "question": "where is it ?", "question_id": 4000},
    {"image_id": 9, "question": "is it big ?", "question_id": 9001},
]
ANNOTATIONS = [
    {"question_id": 9001, "multiple_choice_answer": "no"},
    {"question_id": 4000, "multiple_choice_answer": "left"},
    {"question_id": 9000, "multiple_choice_answer": "yes"},
]


@pytest.fixture
def files(tmp_path):
    (tmp_path / "q.json").write_text(json.dumps({"questions": QUESTIONS}))
    (tmp_path / "a.json").write_text(json.dumps({"annotations": ANNOTATIONS}))
    return tmp_path / "q.json", tmp_path / "a.json"


def test_questions_find_their_annotations_and_pictures_by_id(files):
    data = VqaV2(Path("p"), *files, "COCO_val2014_{:012d}.jpg")
    assert data.paths == [Path("p/COCO_val2014_000000000009.jpg"), Path("p/COCO_val2014_000000000004.jpg")]
    assert data.asked == [
        Asked("9000", 0, "is there a dog ?", "yes"),
        Asked("4000", 1, "where is it ?", "left"),
        Asked("9001", 0, "is it big ?", "no"),
    ]


def test_answers_that_are_not_published_are_empty(files):
    data = VqaV2(Path("p"), files[0], None)
    assert [question.answer for question in data.asked] == ["", "", ""]
    assert data.paths == [Path("p/9.png"), Path("p/4.png")]


def test_a_limit_counts_pictures(files):
    data = VqaV2(Path("p"), *files, limit=1)
    assert data.paths == [Path("p/9.png")]
    assert [question.id for question in data.asked] == ["9000", "9001"]


def test_the_scenes_are_read_by_the_same_reader(tmp_path):
    write(tmp_path, "val", 3, seed=7, questions_each=4)
    notes = tmp_path / "annotations"
    form = "scenes_val_{:012d}.png"
    names = (notes / "v2_OpenEnded_scenes_val_questions.json", notes / "v2_scenes_val_annotations.json")
    data = VqaV2(tmp_path / "val", *names, form)
    expected = [(i, q.text, q.answer) for i, scene in enumerate(scenes(7, "val", 3)) for q in questions(scene, 4)]
    assert [(question.picture, question.question, question.answer) for question in data.asked] == expected
    assert all(path.is_file() for path in data.paths)


def test_a_question_without_annotation_is_named(files):
    files[1].write_text(json.dumps({"annotations": ANNOTATIONS[1:]}))
    with pytest.raises(UserError, match=r"a.json: 1 questions have no annotation, the first is 9001"):
        VqaV2(Path("p"), *files)


@pytest.mark.parametrize(("which", "key"), [(0, "questions"), (1, "annotations")])
def test_files_of_another_kind_are_refused(files, which, key):
    files[which].write_text('{"images": []}')
    with pytest.raises(UserError, match=rf"lacks \['{key}'\]"):
        VqaV2(Path("p"), *files)
    files[which].write_text('{"questions"')
    with pytest.raises(UserError, match="is not whole JSON"):
        VqaV2(Path("p"), *files)
    files[which].unlink()
    with pytest.raises(UserError, match=r"\.json is missing"):
        VqaV2(Path("p"), *files)


def test_common_answers_come_first():
    asked = [Asked(str(i), 0, "?", answer) for i, answer in enumerate(["no", "yes", "2", "yes", "no", "yes"])]
    assert common_answers(asked, 10) == ["yes", "no", "2"]
    assert common_answers(asked, 2) == ["yes", "no"]
    assert common_answers([], 2) == []


@pytest.mark.parametrize("key", ["image_id", "question_id", "question"])
def test_entries_that_are_not_whole_are_said_in_one_line(files, key):
    rows = [{name: value for name, value in row.items() if name != key} for row in QUESTIONS]
    files[0].write_text(json.dumps({"questions": rows}))
    with pytest.raises(UserError, match=rf"q.json or its annotations: expected entries as in VQA v2, .*: '{key}'"):
        VqaV2(Path("p"), *files)
    files[0].write_text(json.dumps({"questions": ["is there a dog ?"]}))
    with pytest.raises(UserError, match="got one that is not whole"):
        VqaV2(Path("p"), *files)


def test_names_of_pictures_are_made_of_split_and_id(files):
    form = of_split("COCO_{split}_{{:012d}}.jpg", "val2014")
    assert form == "COCO_val2014_{:012d}.jpg"
    assert of_split("{{}}.png", "val") == "{}.png"
    files[0].write_text(json.dumps({"questions": [{"image_id": "x", "question": "?", "question_id": 9000}]}))
    with pytest.raises(UserError, match=r"file_name: expected a format such as .*Unknown format code 'd'"):
        VqaV2(Path("p"), *files, form)


@pytest.mark.parametrize(
    "name", ["COCO_{split}_{:012d}.jpg", "{id}.jpg", "{{.png", "{{:q}}.png", "{split}.png", "a.png"]
)
def test_names_of_pictures_that_are_no_format(name):
    with pytest.raises(UserError, match=r"file_name: expected a format such as .*, got"):
        of_split(name, "val")
