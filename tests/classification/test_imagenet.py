"""The sample has two classes: by wnid the cat is 0 and the coffee 1, by the devkit's numbers they are 2 and 1."""

import pytest
import torch

from classification.imagenet import ImageNet, KaggleImageNet
from mmcam.config import resolve
from mmcam.errors import UserError
from mmcam.sources import Source
from tests.annotated import BOMB, copied, half, is_refused, replaced

KIT = "devkit/data/"
BLACKLIST = KIT + "ILSVRC2015_clsloc_validation_blacklist.txt"
TRUTH = KIT + "ILSVRC2015_clsloc_validation_ground_truth.txt"
XML = "Annotations/CLS-LOC/val/ILSVRC2012_val_00000002.xml"
CAT, COFFEE = "n02123045", "n07920052"


@pytest.fixture
def folder(tmp_path):
    return copied(tmp_path / "ilsvrc", "ilsvrc2015_clsloc")


@pytest.fixture
def both(folder):
    (folder / BLACKLIST).write_text("")
    return ImageNet(str(folder))


def test_the_blacklist_is_left_out(folder):
    assert ImageNet(str(folder)).ids == ["ILSVRC2012_val_00000001"]


def test_classes_are_numbered_by_their_wnids_in_order(both):
    assert both.ids == ["ILSVRC2012_val_00000001", "ILSVRC2012_val_00000002"]
    assert both.wnids == [CAT, COFFEE]
    assert [both.given(i) for i in (0, 1)] == [("0",), ("1",)]
    assert both.sample(1).image.size == (240, 160)


def test_boxes_count_from_zero_and_include_their_last_pixel(both):
    assert both.things(0).boxes.tolist() == [[0, 0, 212, 160]]
    coffee = both.things(1)
    assert coffee.boxes.tolist() == [[68, 6, 164, 117], [82, 39, 150, 77]]
    assert coffee.names == (COFFEE, COFFEE)
    assert coffee.masks.shape == (2, 160, 240)


@pytest.mark.parametrize(
    "word", ["1", COFFEE, "espresso", "Espresso", "espresso rather than tabby", "espresso, coffee"]
)
def test_the_right_class_by_any_of_its_names_means_all_boxes(both, word):
    assert both.about(1, [word]) == [(0, 1)]
    assert both.about(0, [word]) == [()]
    assert both.judge({0: [word], 1: [word]})["class_right"].tolist() == [0, 1]


def test_a_word_that_names_no_class_is_an_error(both):
    with pytest.raises(UserError, match="unknown class 'expresso': did you mean 'espresso'"):
        both.about(0, ["expresso"])


def test_a_name_of_two_classes_means_both(folder):
    """Of the thousand, two are "crane" in the devkit: the bird and the machine, which torchvision tells apart."""
    names = {134: "crane", 517: "crane", 281: "tabby"}
    lines = [f"n{number:08d} {1000 - number} {names.get(number, f'name_{number}')}" for number in range(1000)]
    (folder / KIT / "map_clsloc.txt").write_text("\n".join(lines))
    (folder / TRUTH).write_text("866\n1000\n")
    (folder / BLACKLIST).write_text("")
    source = ImageNet(str(folder))
    assert source.classes == [134, 0]
    words = ("crane", "crane bird", "name 0", "tench", "517")
    judged = {word: source.judge({0: [word], 1: [word]})["class_right"].tolist() for word in words}
    assert judged == {"crane": [1, 0], "crane bird": [1, 0], "name 0": [0, 1], "tench": [0, 1], "517": [0, 0]}


def test_kaggle_s_copy_says_the_same(folder, both):
    kaggle = KaggleImageNet(str(folder))
    assert (kaggle.ids, kaggle.classes, kaggle.wnids) == (both.ids, both.classes, both.wnids)
    for number in (0, 1):
        assert torch.equal(kaggle.things(number).masks, both.things(number).masks)
    assert kaggle.about(0, ["tabby cat", "tabby", "espresso"]) == [(0,), (0,), ()]


def test_kaggle_s_inner_folder(folder, tmp_path):
    (folder / "ILSVRC").mkdir()
    (folder / "Data").rename(folder / "ILSVRC" / "Data")
    assert KaggleImageNet(str(folder)).sample(0).image.size == (240, 160)


def test_opening_reads_no_boxes_and_no_pictures(folder):
    for name in ("Annotations", "Data"):
        for file in (folder / name / "CLS-LOC/val").iterdir():
            file.unlink()
    source = ImageNet(str(folder))
    assert source.judge({0: ["tabby"]})["class_right"].tolist() == [1]
    with pytest.raises(UserError, match="no such file"):
        source.things(0)


@pytest.mark.parametrize("kind", [ImageNet, KaggleImageNet])
def test_only_the_validation_set(folder, kind):
    with pytest.raises(UserError, match="unknown split"):
        kind(str(folder), "test")


@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        (XML, half, "expected whole XML"),
        (XML, lambda text: BOMB, "expected no document type"),
        (XML, replaced(COFFEE, CAT), f"object 1: expected {COFFEE}, as in the ground truth, got {CAT}"),
        (XML, replaced("ILSVRC2012_val_00000002", "ILSVRC2012_val_00000001"), "is about another picture"),
        (XML, replaced("<ymax>116</ymax>", ""), "object 1: expected ymax"),
        (TRUTH, lambda text: "2\n7\n", "line 2: map_clsloc.txt has no class 7"),
        (TRUTH, lambda text: "2\ntabby\n", "line 2: expected a number from 1, got 'tabby'"),
        (BLACKLIST, lambda text: "3\n", "line 1: expected a number from 1 to 2, got '3'"),
        (KIT + "map_clsloc.txt", replaced(" 1 espresso", ""), "line 1: expected <wnid> <id> <name>"),
        (KIT + "map_clsloc.txt", replaced(" 1 ", " 2 "), "line 2: expected each class once"),
        ("ImageSets/CLS-LOC/val.txt", replaced("val_00000002", "val_00000001"), "line 2: expected each picture once"),
        ("ImageSets/CLS-LOC/val.txt", replaced(" 2", " 3"), "line 2: expected a number from 1 to 2, got '3'"),
        ("ImageSets/CLS-LOC/val.txt", replaced("ILSVRC2012_val_00000002", "../../x"), "line 2: .* leads elsewhere"),
    ],
)
def test_broken_files(folder, file, edit, message):
    if file != BLACKLIST:
        (folder / BLACKLIST).write_text("")
    is_refused(folder, file, edit, message, lambda: ImageNet(str(folder)).things(1))


def test_a_list_that_is_longer_than_the_ground_truth(folder):
    (folder / BLACKLIST).write_text("")
    (folder / TRUTH).write_text("2\n")
    with pytest.raises(UserError, match=r"val\.txt: line 2: expected a number from 1 to 1, got '2'"):
        ImageNet(str(folder))


@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        ("LOC_val_solution.csv", replaced("ImageId", "Image"), "expected the columns ImageId and PredictionString"),
        ("LOC_val_solution.csv", replaced("68 6 163", "68 6"), "line 3: expected '<wnid> x1 y1 x2 y2'"),
        ("LOC_val_solution.csv", replaced("68 6 163 116", "68 6 67 116"), "line 3: expected '<wnid> x1 y1 x2 y2'"),
        ("LOC_val_solution.csv", replaced("116 n07920052", "116 n02123045"), "line 3: .*of one class"),
        (
            "LOC_val_solution.csv",
            replaced(",n02123045", ",n00000000"),
            "line 2: LOC_synset_mapping.txt has no class n0",
        ),
        ("LOC_val_solution.csv", replaced("val_00000002", "val_00000001"), "line 3: expected each picture once"),
        ("LOC_val_solution.csv", replaced("ILSVRC2012_val_00000001", "../x"), "line 2: .*leads elsewhere"),
        ("LOC_val_solution.csv", replaced("n02123045 0 0 211 159", ""), "line 2: expected '<wnid> x1 y1 x2 y2'"),
        ("LOC_synset_mapping.txt", replaced(" espresso", ""), "expected lines '<wnid> <names>'"),
        ("LOC_synset_mapping.txt", replaced("n07920052", "n02123045"), "each wnid once"),
    ],
)
def test_broken_files_of_kaggle(folder, file, edit, message):
    is_refused(folder, file, edit, message, lambda: KaggleImageNet(str(folder)))


def test_the_shipped_section():
    assert resolve("classification/imagenet_val", "data", Source)["init_args"]["split"] == "val"
