"""VQA's files: questions find their annotations, and what is wrong is said with its place."""

import json
from pathlib import Path

import pytest

from mmcam.errors import UserError
from mmcam.scenes.questions import questions
from mmcam.scenes.write import scenes, write
from vqa.published import Asked, VqaV2, common_answers, files_of, of_split

FILES = Path(__file__).parents[1] / "data" / "annotations"

QUESTIONS = [
    {"image_id": 9, "question": "is there a dog ?", "question_id": 9000},
    {"image_id": 4, "question": "where is it ?", "question_id": 4000},
    {"image_id": 9, "question": "is it big ?", "question_id": 9001},
]


def annotation(question, image, answers, **more):
    most = max(answers, key=answers.count)
    rows = [{"answer": answer, "answer_confidence": "yes", "answer_id": i} for i, answer in enumerate(answers, 1)]
    return {"question_id": question, "image_id": image, "multiple_choice_answer": most, "answers": rows, **more}


ANNOTATIONS = [
    annotation(9001, 9, ["no"] * 8 + ["yes"] * 2, answer_type="yes/no"),
    annotation(4000, 4, ["left"] * 10),
    annotation(9000, 9, ["yes"] * 10, answer_type="yes/no"),
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
        Asked("9000", 0, "is there a dog ?", "yes", ("yes",) * 10, "yes/no"),
        Asked("4000", 1, "where is it ?", "left", ("left",) * 10),
        Asked("9001", 0, "is it big ?", "no", ("no",) * 8 + ("yes",) * 2, "yes/no"),
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


@pytest.mark.parametrize(
    ("which", "entry", "change", "message"),
    [
        (0, 1, lambda row: row.pop("image_id"), r"q.json: questions\[1\]: expected 'image_id' as int, got none"),
        (0, 2, lambda row: row.pop("question_id"), r"q.json: questions\[2\]: expected 'question_id' as int"),
        (
            0,
            0,
            lambda row: row.update(question=["?"]),
            r"q.json: questions\[0\]: expected 'question' as str, got \['\?",
        ),
        (
            0,
            2,
            lambda row: row.update(question_id=4000),
            r"q.json: questions\[2\]: expected each id once, got 4000 again",
        ),
        (1, 1, lambda row: row.pop("answers"), r"a.json: annotations\[1\]: expected 'answers' as list, got none"),
        (1, 1, lambda row: row["answers"][9].pop("answer"), r"annotations\[1\].answers\[9\]: expected 'answer' as str"),
        (1, 0, lambda row: row.pop("multiple_choice_answer"), r"annotations\[0\]: expected 'multiple_choice_answer'"),
        (1, 2, lambda row: row.update(question_id=4000), r"a.json: annotations\[2\]: expected each id once, got 4000"),
        (1, 2, lambda row: row.update(image_id=4), r"a.json: expected question 9000 to be of picture 9, got 4"),
        (1, 2, lambda row: row.update(image_id=True), r"annotations\[2\]: expected 'image_id' as int, got True"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(files, which, entry, change, message):
    key = ("questions", "annotations")[which]
    content = json.loads(files[which].read_text())
    change(content[key][entry])
    files[which].write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        VqaV2(Path("p"), *files)


@pytest.mark.parametrize("which", [0, 1])
def test_entries_that_are_none(files, which):
    key = ("questions", "annotations")[which]
    files[which].write_text(json.dumps({key: ["is there a dog ?"]}))
    with pytest.raises(UserError, match=rf"{key}\[0\]: expected an object, got 'is there a dog \?'"):
        VqaV2(Path("p"), *files)
    files[which].write_text(json.dumps({key: {"9000": {}}}))
    with pytest.raises(UserError, match=rf"expected '{key}' as list"):
        VqaV2(Path("p"), *files)


def test_names_of_pictures_are_made_of_split_and_id(files):
    form = of_split("COCO_{split}_{{:012d}}.jpg", "val2014")
    assert form == "COCO_val2014_{:012d}.jpg"
    assert of_split("{{}}.png", "val") == "{}.png"
    with pytest.raises(UserError, match=r"file_name: expected a format such as .*Unknown format code 'q'"):
        VqaV2(Path("p"), *files, "{:q}.jpg")
    with pytest.raises(UserError, match=r"file_name: expected the name of a file in p, got '../9.jpg'"):
        VqaV2(Path("p"), *files, "../{}.jpg")


@pytest.mark.parametrize(
    "name", ["COCO_{split}_{:012d}.jpg", "{id}.jpg", "{{.png", "{{:q}}.png", "{split}.png", "a.png"]
)
def test_names_of_pictures_that_are_no_format(name):
    with pytest.raises(UserError, match=r"file_name: expected a format such as .*, got"):
        of_split(name, "val")


def test_multiple_choice_questions_are_read_as_well():
    root = FILES / "vqa_v1"
    files = [root / "Questions" / f"{kind}_mscoco_val2014_questions.json" for kind in ("MultipleChoice", "OpenEnded")]
    notes = root / "Annotations" / "mscoco_val2014_annotations.json"
    assert VqaV2(root, files[0], notes).asked == VqaV2(root, files[1], notes).asked


def test_files_of_a_split_are_found_in_either_layout_also_mixed(tmp_path):
    files = files_of(tmp_path, "val", "scenes")
    ours = ("val", "annotations/v2_OpenEnded_scenes_val_questions.json", "annotations/v2_scenes_val_annotations.json")
    assert files == tuple(tmp_path / name for name in ours)
    (tmp_path / "Questions").mkdir()
    (tmp_path / "val").mkdir()
    questions = tmp_path / "Questions" / "v2_OpenEnded_scenes_val_questions.json"
    assert files_of(tmp_path, "val", "scenes") == (files[0], questions, files[2])
    files[1].parent.mkdir()
    files[1].touch()
    assert files_of(tmp_path, "val", "scenes")[1] == files[1]
    assert files_of(tmp_path, "val", "scenes", "")[1].name == "OpenEnded_scenes_val_questions.json"
