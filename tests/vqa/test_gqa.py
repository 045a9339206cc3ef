import json
import shutil
from pathlib import Path

import pytest
import torch

from mmcam.errors import UserError
from mmcam.image import read_image
from mmcam.metrics.gqa import gqa_grounding, gqa_grounding_official
from vqa.gqa import Gqa, GqaAnswers

GQA = Path(__file__).parents[1] / "data" / "annotations" / "gqa"


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(GQA, tmp_path / "gqa")


def edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_questions_pictures_and_answers():
    data = Gqa(str(GQA))
    assert data.ids == ["09000001", "09000002"]
    sample = data.sample(0)
    assert (sample.id, sample.text) == ("09000001", "Is there a spoon on the saucer?")
    assert sample.image.tobytes() == read_image(GQA / "images" / "2000102.jpg").tobytes()
    assert [data.given(i) for i in (0, 1)] == [("yes",), ("green",)]
    assert Gqa(str(GQA), limit=1).ids == ["09000001"]


def test_things_are_the_objects_of_the_scene_graph():
    things = Gqa(str(GQA)).things(0)
    assert things.names == ("cup", "saucer", "spoon")
    assert not things.exact
    assert things.boxes[2].tolist() == [129, 26, 129 + 42, 26 + 106]
    assert things.masks.shape == (3, 160, 240)
    assert things.masks[2].sum() == 42 * 106
    assert things.masks[2, 26:132, 129:171].all()


def test_answers_are_about_what_question_and_full_answer_point_at_as_often_as_they_do():
    data = Gqa(str(GQA))
    assert data.about(0, ["yes", "no"]) == [(2, 1, 2, 1), (2, 1, 2, 1)]
    assert data.about(1, ["green"]) == [(1, 1)]
    assert data.things(1).names == ("cat", "eye", "eye")


def test_the_right_answer_is_about_what_itself_points_at(folder):
    assert GqaAnswers(str(GQA)).about(0, ["yes"]) == [(2, 1)]
    file = folder / "questions" / "val_balanced_questions.json"
    edit(file, lambda content: content["09000002"]["annotations"].update(answer={"0": "900003"}))
    assert GqaAnswers(str(folder)).about(1, ["green", "blue"]) == [(2,), (1,)]
    assert Gqa(str(folder)).about(1, ["green", "blue"]) == [(1, 1), (1, 1)]


@pytest.mark.parametrize("reader", [Gqa, GqaAnswers])
def test_an_object_that_is_not_there(reader):
    data = reader(str(GQA), kind="all")  # one numbered part
    assert data.ids == ["09000001", "09000002", "09000003"]
    assert data.about(2, ["no"]) == [()]
    assert data.things(2).names == ("cup", "saucer", "spoon")


@pytest.mark.parametrize("argument", ["scene", "scene "])
def test_a_question_about_the_scene_is_about_the_whole_picture(folder, argument):
    def ask(content):
        content["09000001"]["semantic"][0]["argument"] = argument

    edit(folder / "questions" / "val_balanced_questions.json", ask)
    data = Gqa(str(folder))
    assert data.about(0, ["yes"]) == [(2, 1, 2, 1, 3)]
    things = data.things(0)
    assert things.names == ("cup", "saucer", "spoon", "scene")
    assert things.boxes[3].tolist() == [0, 0, 240, 160]
    assert things.masks[3].all()
    assert len(data.things(1)) == 3
    assert GqaAnswers(str(folder)).about(0, ["yes"]) == [(2, 1)]


def test_a_question_that_points_at_nothing(folder):
    def ask(content):
        content["09000001"]["annotations"] = {"question": {}, "answer": {}, "fullAnswer": {}}

    edit(folder / "questions" / "val_balanced_questions.json", ask)
    assert Gqa(str(folder)).about(0, ["yes", "no"]) == [None, None]
    assert GqaAnswers(str(folder)).about(0, ["yes"]) == [None]


def test_the_official_score_of_a_map_by_hand():
    """All of the map is on a cell of 24 x 16 pixels in both spoon and saucer; two words point at each: four times 1."""
    data = Gqa(str(GQA))
    maps = torch.zeros(1, 10, 10)
    maps[0, 6, 6] = 0.7  # x from 144 to 168, y from 96 to 112
    boxes = [data.things(0).boxes[list(data.about(0, ["yes"])[0] or ())]]
    assert gqa_grounding_official(maps, boxes, (160, 240)).tolist() == pytest.approx([4])
    assert gqa_grounding(maps, boxes, (160, 240)).tolist() == pytest.approx([1])


def test_judged_by_exact_match_open_and_binary_questions_apart():
    judged = Gqa(str(GQA)).judge({1: ["green", "blue"], 0: ["no"]})
    assert judged["exact_match"].tolist() == [1, 0]
    assert torch.equal(judged["exact_match_open"].isnan(), torch.tensor([False, True]))
    assert torch.equal(judged["exact_match_binary"].isnan(), torch.tensor([True, False]))


def test_parts_are_read_in_their_order_and_an_id_of_two_parts_is_refused(folder):
    whole = json.loads((folder / "questions" / "val_balanced_questions.json").read_text())
    (folder / "questions" / "val_balanced_questions.json").unlink()
    parts = folder / "questions" / "val_balanced_questions"
    parts.mkdir()
    for number, identity in (("2", "09000001"), ("10", "09000002")):
        (parts / f"val_balanced_questions_{number}.json").write_text(json.dumps({identity: whole[identity]}))
    assert Gqa(str(folder)).ids == ["09000001", "09000002"]
    (parts / "val_balanced_questions_3.json").write_text(json.dumps(whole))
    with pytest.raises(UserError, match=r"_3.json: question '09000001': expected each id once"):
        Gqa(str(folder))


def test_the_files_may_lie_beside_one_another_as_they_are_unpacked(folder):
    for file in [*(folder / "questions").iterdir(), *(folder / "sceneGraphs").iterdir()]:
        file.rename(folder / file.name)
    assert Gqa(str(folder)).ids == Gqa(str(GQA)).ids


def test_splits_without_scene_graphs_have_questions_only(folder):
    rows = {"1": {"question": "What is this?", "imageId": "2000101", "isBalanced": True}}
    (folder / "questions" / "test_balanced_questions.json").write_text(json.dumps(rows))
    data = Gqa(str(folder), split="test")
    assert data.given(0) == ()
    assert len(data.things(0)) == 0
    assert data.things(0).masks.shape == (0, 160, 240)
    assert data.about(0, ["cat"]) == [None]
    assert data.judge({0: ["cat"]}) == {}


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("questions", lambda c: c["09000001"].update(imageId="7"), "question '09000001': expected a picture of .*'7'"),
        (
            "questions",
            lambda c: c["09000001"]["annotations"]["question"].update({"3": "1"}),
            r"question '09000001', annotations.question: expected word '3' to point at an object .*'1'",
        ),
        (
            "questions",
            lambda c: c["09000001"]["semantic"].append({"operation": "exist"}),
            r"question '09000001'\.semantic\[3\]: expected 'argument' as str, got none",
        ),
        (
            "graphs",
            lambda c: c["2000102"]["objects"]["900012"].update(w="wide"),
            "picture '2000102', object '900012': expected 'w' as a number, got 'wide'",
        ),
        ("graphs", lambda c: c["2000102"].update(width=0), "picture '2000102': expected a size of 1 to"),
        ("graphs", lambda c: c.update({"2000102": [1]}), r"picture '2000102': expected an object, got \[1\]"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(folder, file, change, message):
    name = "questions/val_balanced_questions.json" if file == "questions" else "sceneGraphs/val_sceneGraphs.json"
    edit(folder / name, change)
    with pytest.raises(UserError, match=f"{Path(name).name}: {message}"):
        Gqa(str(folder))


def test_a_missing_scene_graph_file_is_named(folder):
    (folder / "sceneGraphs" / "val_sceneGraphs.json").unlink()
    with pytest.raises(UserError, match=r"sceneGraphs/val_sceneGraphs.json: there is no such file"):
        Gqa(str(folder))
