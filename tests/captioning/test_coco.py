"""COCO's captions and instances; the areas are those that COCO's own code gave for the sample."""

import json

import pytest
import torch

from captioning.data import CaptionedPictures
from mmcam.annotations.instances import CocoInstances
from mmcam.config import instantiate, resolve
from mmcam.errors import UserError
from mmcam.image import read_image
from mmcam.sources import Source
from tests.annotated import SAMPLES, changed, copied, half, is_refused, replaced, union

CAPTIONS, INSTANCES = "annotations/captions_val2014.json", "annotations/instances_val2014.json"
CAT, CUP, SPOON, TABLE = 27531, 8332, 1216, 14400


@pytest.fixture
def folder(tmp_path):
    return copied(tmp_path / "coco", "coco_captions", "coco_instances")


@pytest.fixture
def pictures(folder):
    return CaptionedPictures(str(folder), "val2014")


def test_pictures_and_captions(pictures):
    assert pictures.ids == ["COCO_val2014_000000000101", "COCO_val2014_000000000102"]
    assert pictures.given(0)[0] == "A cat with green eyes looks at the camera."
    assert [len(pictures.given(i)) for i in (0, 1)] == [5, 5]
    assert pictures.sample(1).image.size == (240, 160)


def test_outlines_have_the_published_areas_and_crowds_are_ignored(pictures):
    cat, coffee = pictures.things(0), pictures.things(1)
    assert (cat.names, coffee.names) == (("cat",), ("cup", "spoon"))
    assert [int(mask.sum()) for mask in (*cat.masks, *coffee.masks)] == [CAT, CUP, SPOON]
    assert cat.ignored is None
    assert coffee.ignored is not None
    assert int(coffee.ignored.sum()) == TABLE
    assert bool(coffee.ignored[100:].all())
    assert cat.exact
    assert coffee.exact
    for number in (0, 1):
        assert coffee.boxes[number].tolist() == union(coffee, [number])


@pytest.mark.parametrize(
    ("number", "words", "expected"),
    [
        (0, "a brown and orange cat is sitting", [None, None, None, None, (0,), None, None]),
        (0, "a cat and a spoon", [None, (0,), None, None, ()]),
        (1, "A red Cup and saucer with a metal spoon .", [None, None, (0,), None, None, None, None, None, (1,), None]),
        (1, "a cup on a wooden table", [None, (0,), None, None, None, None]),
        (1, "a dog", [None, None]),  # a category that the file does not have: nobody looked for it
    ],
)
def test_words_mean_things_of_their_category(pictures, number, words, expected):
    assert pictures.about(number, words.split()) == expected


def test_without_instances_words_mean_nothing(folder):
    (folder / INSTANCES).unlink()
    pictures = CaptionedPictures(str(folder), "val2014")
    assert pictures.about(0, ["a", "cat"]) == [None, None]
    with pytest.raises(UserError, match="captions alone do not say where"):
        pictures.things(0)


def test_opening_reads_neither_pictures_nor_instances(folder):
    for file in (folder / "val2014").iterdir():
        file.write_bytes(b"")
    (folder / INSTANCES).write_text("{")
    pictures = CaptionedPictures(str(folder), "val2014")
    assert len(pictures.given(0)) == 5
    with pytest.raises(UserError, match="an empty file"):
        pictures.sample(0)
    with pytest.raises(UserError, match=r"instances_val2014\.json: expected whole JSON"):
        pictures.about(0, ["cat"])


def test_masks_are_made_when_asked_for(folder):
    (folder / INSTANCES).write_text(
        changed(lambda c: c["annotations"][1].update(segmentation=[[1, 2, 3]]))((folder / INSTANCES).read_text())
    )
    pictures = CaptionedPictures(str(folder), "val2014")
    assert pictures.about(1, ["cup"]) == [(0,)]
    assert len(pictures.things(0)) == 1
    with pytest.raises(UserError, match=r"instances_val2014\.json: annotations\[1\]: expected 'segmentation'"):
        pictures.things(1)


def test_compressed_text_is_the_same_place(folder):
    """The results file has the table as text."""
    entry = changed(lambda c: c["annotations"][-1].update(segmentation=crowd["segmentation"]))
    crowd = json.loads((SAMPLES / "coco_instances/results/instances_val2014_sample_results.json").read_text())[0]
    before = CocoInstances(folder / INSTANCES).things(102).ignored
    (folder / INSTANCES).write_text(entry((folder / INSTANCES).read_text()))
    after = CocoInstances(folder / INSTANCES).things(102).ignored
    assert before is not None
    assert after is not None
    assert torch.equal(before, after)


def test_a_caption_that_people_wrote_is_worth_more_than_another(pictures):
    good, bad = pictures.given(0)[1].split(), pictures.given(1)[1].split()
    judged = pictures.judge({0: good, 1: good})
    assert set(judged) == {"cider_d", "rouge_l", "sentence_bleu_4"}
    assert all(values.shape == (2,) and values[0] > values[1] for values in judged.values())
    assert judged["rouge_l"][0] == pytest.approx(1)
    assert judged["sentence_bleu_4"][0] == pytest.approx(1)
    assert pictures.judge({1: bad, 0: good})["rouge_l"].tolist() == pytest.approx([1, 1])
    assert pictures.judge({}) == {}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (half, "is not whole JSON"),
        (changed(lambda c: c.pop("images")), r"lacks \['images'\]"),
        (changed(lambda c: c["images"][1].pop("id")), r"images\[1\]: expected 'id' as int, got none"),
        (changed(lambda c: c["annotations"][3].update(image_id=7)), r"annotations\[3\]: image_id: .* no picture 7"),
        (changed(lambda c: c["annotations"][3].pop("caption")), r"annotations\[3\]: expected 'caption'"),
        (changed(lambda c: c["annotations"].append(c["annotations"][0])), r"annotations\[10\]: .*once, got 1001 again"),
        (changed(lambda c: c["images"].append(c["images"][0])), r"images\[2\]: expected each id once, got 101 again"),
        (
            replaced("COCO_val2014_000000000102.jpg", "../../secret.jpg"),
            r"images\[1\]: .*'../../secret.jpg', which leads",
        ),
        (replaced("COCO_val2014_000000000102.jpg", "/etc/passwd"), "which leads elsewhere"),
    ],
)
def test_broken_captions(folder, edit, message):
    is_refused(folder, CAPTIONS, edit, message, lambda: CaptionedPictures(str(folder), "val2014"))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (half, "expected whole JSON, got a file that is cut short"),
        (changed(lambda c: c.pop("categories")), "expected 'categories' as list, got none"),
        (changed(lambda c: c["images"][0].pop("height")), r"images\[0\]: expected 'height' as int, got none"),
        (changed(lambda c: c["images"][0].update(height=10**9)), r"images\[0\]: expected a size"),
        (
            changed(lambda c: c["annotations"][2].update(category_id=4)),
            r"annotations\[2\]: category_id: .* no such id as 4",
        ),
        (changed(lambda c: c["annotations"][2].update(image_id=4)), r"annotations\[2\]: image_id: .* no such id as 4"),
        (changed(lambda c: c["annotations"][2].update(id=1)), r"annotations\[2\]: expected each id once, got 1 again"),
        (changed(lambda c: c["annotations"][2].update(iscrowd="no")), "expected 'iscrowd' as 0 or 1"),
        (
            changed(lambda c: c["annotations"][3]["segmentation"]["counts"].pop()),
            r"annotations\[3\].segmentation: expected",
        ),
        (changed(lambda c: c["annotations"][3].pop("segmentation")), r"annotations\[3\]: expected 'segmentation'"),
        (changed(lambda c: c["images"].pop()), "image_id: the file has no such id as 102"),
    ],
)
def test_broken_instances(folder, edit, message):
    is_refused(folder, INSTANCES, edit, message, lambda: CaptionedPictures(str(folder), "val2014").things(1))


def test_instances_of_another_split(folder):
    def other(content):
        content["images"] = content["images"][:1]
        content["annotations"] = content["annotations"][:1]

    (folder / INSTANCES).write_text(changed(other)((folder / INSTANCES).read_text()))
    with pytest.raises(UserError, match="expected the picture 102, but the file does not have it"):
        CaptionedPictures(str(folder), "val2014").things(1)


def test_the_shipped_section(folder):
    made = instantiate("captioning/coco", "data", Source, {"data": str(folder)})
    assert isinstance(made, CaptionedPictures)
    assert made.sample(0).image.tobytes() == read_image(folder / "val2014/COCO_val2014_000000000101.jpg").tobytes()


@pytest.mark.parametrize(
    "name", ["captioning/karpathy", "captioning/flickr8k", "captioning/flickr30k", "captioning/visual_genome"]
)
def test_every_data_set_has_a_section(name):
    assert resolve(name, "data", Source)["init_args"]["split"] == "test"
