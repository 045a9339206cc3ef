import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from mmcam.scenes.draw import draw
from mmcam.scenes.kinds import BY_NAME, NAMES
from mmcam.scenes.language import captions
from mmcam.scenes.questions import questions
from mmcam.scenes.world import SIZE
from mmcam.scenes.write import _run_lengths, scenes, write

COUNT = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("world"), "val", COUNT, seed=7, captions_each=3, questions_each=5)


def read(folder, name):
    return json.loads((folder / "annotations" / f"{name}.json").read_text())


def test_the_files_lie_where_coco_s_lie(folder):
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert names == [
        "annotations/captions_val.json",
        "annotations/instances_val.json",
        "annotations/v2_OpenEnded_scenes_val_questions.json",
        "annotations/v2_scenes_val_annotations.json",
        *[f"val/scenes_val_{i:012d}.png" for i in range(1, COUNT + 1)],
    ]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11, NumPy 2.4
def test_pycocotools_reads_masks_boxes_and_areas(folder):
    coco = COCO(folder / "annotations" / "instances_val.json")
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(NAMES)
    for image_id, scene in enumerate(scenes(7, "val", COUNT), start=1):
        _, masks = draw(scene)
        found = coco.loadAnns(coco.getAnnIds(imgIds=image_id))
        assert len(found) == len(masks)
        for thing, mask, annotation in zip(scene.things, masks, found, strict=True):
            (category,) = coco.loadCats(annotation["category_id"])
            assert (category["name"], category["supercategory"]) == (thing.kind, BY_NAME[thing.kind].group)
            packed = coco.annToRLE(annotation)
            assert (coco.annToMask(annotation) == mask).all()
            assert annotation["area"] == rle.area(packed) == mask.sum()
            assert annotation["bbox"] == rle.toBbox(packed).tolist()
            assert annotation["iscrowd"] == 0


def test_pictures_are_those_of_the_scenes(folder):
    content = read(folder, "instances_val")
    for image, scene in zip(content["images"], scenes(7, "val", COUNT), strict=True):
        assert (image["height"], image["width"]) == (SIZE, SIZE)
        picture = Image.open(folder / "val" / image["file_name"])
        assert picture.tobytes() == draw(scene)[0].tobytes()


def test_captions_read_as_coco_s_and_say_what_they_are_about(folder):
    coco, instances = COCO(folder / "annotations" / "captions_val.json"), read(folder, "instances_val")
    kinds = {thing["id"]: NAMES[thing["category_id"] - 1] for thing in instances["annotations"]}
    owners = {thing["id"]: thing["image_id"] for thing in instances["annotations"]}
    for image_id, scene in enumerate(scenes(7, "val", COUNT), start=1):
        found = coco.loadAnns(coco.getAnnIds(imgIds=image_id))
        assert [sentence["caption"] for sentence in found] == [caption.text for caption in captions(scene, 3)]
        for sentence in found:
            assert sentence["caption"].split() == sentence["words"]
            assert len(sentence["about"]) == len(sentence["words"])
            for word, about in zip(sentence["words"], sentence["about"], strict=True):
                assert {owners[thing] for thing in about} <= {image_id}
                if word in NAMES:
                    assert {kinds[thing] for thing in about} == {word}


def test_questions_and_annotations_belong_together_as_in_vqa_v2(folder):
    asked = read(folder, "v2_OpenEnded_scenes_val_questions")
    answered = read(folder, "v2_scenes_val_annotations")
    assert (asked["task_type"], asked["data_type"], asked["data_subtype"]) == ("Open-Ended", "scenes", "val")
    ids = [question["question_id"] for question in asked["questions"]]
    assert ids == [annotation["question_id"] for annotation in answered["annotations"]]
    assert len(set(ids)) == len(ids)
    owners = {thing["id"]: thing["image_id"] for thing in read(folder, "instances_val")["annotations"]}
    rows = iter(zip(asked["questions"], answered["annotations"], strict=True))
    for image_id, scene in enumerate(scenes(7, "val", COUNT), start=1):
        for expected in questions(scene, 5):
            question, annotation = next(rows)
            assert question["image_id"] == annotation["image_id"] == question["question_id"] // 1000 == image_id
            assert question["question"] == expected.text
            assert annotation["multiple_choice_answer"] == expected.answer
            assert [answer["answer"] for answer in annotation["answers"]] == [expected.answer] * 10
            assert [answer["answer_id"] for answer in annotation["answers"]] == list(range(1, 11))
            assert annotation["form"] == expected.form
            assert len(annotation["about"]) == len(expected.about)
            assert {owners[thing] for thing in annotation["about"]} <= {image_id}
            kind = {"yes": "yes/no", "no": "yes/no"}.get(expected.answer, "other")
            assert annotation["answer_type"] == ("number" if expected.answer.isdigit() else kind)
    assert next(rows, None) is None


def test_ids_count_from_one(folder):
    for name in ("captions_val", "instances_val"):
        content = read(folder, name)
        for rows in (content["images"], content["annotations"]):
            assert [row["id"] for row in rows] == list(range(1, len(rows) + 1))


def test_writing_twice_writes_the_same(folder, tmp_path):
    again = write(tmp_path, "val", COUNT, seed=7, captions_each=3, questions_each=5)
    for path in folder.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (again / path.relative_to(folder)).read_bytes()


def test_splits_share_a_folder(tmp_path):
    write(tmp_path, "train", 1)
    write(tmp_path, "hard", 1)
    assert Counter(path.suffix for path in (tmp_path / "annotations").iterdir()) == {".json": 8}
    assert {path.name for path in tmp_path.iterdir()} == {"annotations", "train", "hard"}


@pytest.mark.parametrize(
    ("mask", "runs"),
    [
        ([[0, 0], [0, 0]], [4]),
        ([[1, 1], [1, 1]], [0, 4]),
        ([[0, 1], [0, 1]], [2, 2]),  # column by column
        ([[1, 0], [0, 1]], [0, 1, 2, 1]),
        ([[0, 0, 1], [1, 0, 0]], [1, 1, 2, 1, 1]),
    ],
)
def test_run_lengths_by_hand(mask, runs):
    assert _run_lengths(np.array(mask, dtype=bool)) == runs
