import pytest

from captioning.karpathy import KarpathySplit
from mmcam.errors import UserError
from tests.annotated import changed, copied, half, is_refused, replaced

FILE = "dataset_coco.json"


@pytest.fixture
def folder(tmp_path):
    return copied(tmp_path / "karpathy", "karpathy", "coco_instances")


def coco(folder, split, instances=True):
    return KarpathySplit(
        str(folder / FILE), str(folder / "images"), split, str(folder / "annotations") if instances else ""
    )


def test_restval_is_a_split_of_its_own_and_of_val2014(folder):
    one, other = coco(folder, "restval"), coco(folder, "test")
    assert (one.ids, other.ids) == (["COCO_val2014_000000000101"], ["COCO_val2014_000000000102"])
    assert coco(folder, "restval+test").ids == one.ids + other.ids
    assert one.given(0)[0] == "A cat with green eyes looks at the camera."
    assert one.sample(0).image.size == (240, 160)


def test_things_come_from_coco_s_file_by_coco_s_id(folder):
    coffee = coco(folder, "test")
    assert coffee.things(0).names == ("cup", "spoon")
    assert coffee.about(0, ["a", "spoon", "and", "a", "cat"]) == [None, (1,), None, None, ()]
    assert coco(folder, "test", instances=False).about(0, ["a", "spoon"]) == [None, None]


def test_flickr8k_has_neither_folders_nor_coco_s_ids(folder):
    source = KarpathySplit(str(folder / "dataset_flickr8k.json"), str(folder / "images/flickr8k"), "train")
    assert source.ids == ["1000000101_0000000065"]
    assert source.sample(0).image.size == (240, 160)
    assert source.given(0)[0] == "A cat with green eyes looks at the camera ."
    assert source.about(0, ["cat"]) == [None]
    with pytest.raises(UserError, match="captions alone do not say where"):
        source.things(0)


def test_an_unknown_split_names_the_known_ones(folder):
    with pytest.raises(UserError, match=r"unknown split of .*dataset_coco\.json 'restvall': did you mean 'restval'"):
        coco(folder, "restvall")


def first(change):
    return changed(lambda content: change(content["images"][0]))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (half, "expected whole JSON"),
        (changed(lambda c: c.pop("images")), "expected 'images' as list, got none"),
        (first(lambda image: image.pop("split")), r"images\[0\]: expected 'split' as str, got none"),
        (first(lambda image: image.pop("sentences")), r"images\[0\]: expected 'sentences' as list"),
        (first(lambda image: image.update(sentences=[], sentids=[])), r"images\[0\]: expected sentences, got none"),
        (first(lambda image: image["sentences"][2].pop("raw")), r"images\[0\].sentences\[2\]: expected 'raw'"),
        (first(lambda image: image["sentences"][2].update(imgid=1)), r"sentences\[2\]: expected 'imgid' 0, .*got 1"),
        (first(lambda image: image.update(sentids=[9])), r"images\[0\]: expected 'sentids' to be those"),
        (
            first(lambda image: image["sentences"][1].update(sentid=0)),
            r"sentences\[1\]: expected each sentid once, got 0",
        ),
        (
            changed(lambda c: c["images"][1].update(cocoid=101)),
            r"images\[1\]: expected each cocoid once, got 101 again",
        ),
        (changed(lambda c: c["images"].append(c["images"][0])), r"images\[2\]: expected each filename once"),
        (replaced('"filepath": "val2014"', '"filepath": "../val2014"'), r"images\[0\]: .*leads elsewhere"),
        (replaced("COCO_val2014_000000000102.jpg", "/etc/passwd"), r"images\[1\]: .*'/etc/passwd', which leads"),
    ],
)
def test_broken_files(folder, edit, message):
    is_refused(folder, FILE, edit, message, lambda: coco(folder, "restval"))
