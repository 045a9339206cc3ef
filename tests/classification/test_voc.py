import numpy as np
import pytest
from PIL import Image

from classification.voc import CLASSES, Voc, VocSegmentation
from mmcam.config import resolve
from mmcam.errors import UserError
from mmcam.sources import Source
from tests.annotated import BOMB, copied, half, iou, is_refused, replaced

XML = "Annotations/2007_000102.xml"


@pytest.fixture
def folder(tmp_path):
    return copied(tmp_path, "pascal_voc") / "VOC2012"


@pytest.fixture
def boxes(folder):
    return Voc(str(folder))


@pytest.fixture
def outlines(folder):
    return VocSegmentation(str(folder))


def test_the_twenty_classes_are_in_alphabetical_order():
    assert len(CLASSES) == 20
    assert list(CLASSES) == sorted(CLASSES)


def test_boxes_count_from_one_and_include_their_last_pixel(boxes):
    assert boxes.ids == ["2007_000101", "2007_000102"]
    cat = boxes.things(0)
    assert (cat.names, cat.boxes.tolist()) == (("cat",), [[0, 0, 211, 160]])
    assert int(cat.masks.sum()) == 211 * 160
    assert cat.ignored is None


def test_difficult_things_are_ignored_places(boxes):
    things = boxes.things(1)
    assert things.names == ("diningtable",)
    assert things.boxes.tolist() == [[0, 0, 240, 160]]
    assert things.ignored is not None
    assert int(things.ignored.sum()) == 42 * 106
    assert bool(things.ignored[26:132, 129:171].all())
    assert boxes.given(1) == ("diningtable",)


def test_a_class_means_its_things(boxes):
    assert boxes.about(1, ["diningtable", "dining table", "cat", "bottle"]) == [(0,), (0,), (), None]
    judged = boxes.judge({0: ["cat"], 1: ["cat", "diningtable"]})
    assert judged["class_right"].tolist() == [1, 0]
    assert boxes.judge({1: ["bottle"]})["class_right"].isnan().tolist() == [True]
    with pytest.raises(UserError, match="unknown class of VOC 'cats': did you mean 'cat'"):
        boxes.about(0, ["cats"])


def test_pictures_of_one_class(folder):
    assert Voc(str(folder), "cat_val").ids == ["2007_000101"]
    assert Voc(str(folder), "bottle_val").ids == []
    with pytest.raises(UserError, match=r"dog_val\.txt: there is no such file"):
        Voc(str(folder), "dog_val")


def test_outlines_are_read_from_the_palette(folder, outlines):
    cat, coffee = outlines.things(0), outlines.things(1)
    objects = np.asarray(Image.open(folder / "SegmentationObject/2007_000102.png"))
    assert cat.names == ("cat",)
    assert coffee.exact
    assert coffee.ignored is not None
    for thing, number in enumerate(sorted(set(objects.flat) - {0, 255})):
        assert int(coffee.masks[thing].sum()) == int((objects == number).sum()) > 0
    assert int(coffee.ignored.sum()) == int((objects == 255).sum()) > 0
    assert not bool((coffee.masks.any(0) & coffee.ignored).any())
    assert outlines.given(1) == (", ".join(sorted(set(coffee.names))),)
    assert outlines.about(0, ["cat", "dog"]) == [(0,), ()]
    assert outlines.judge({0: ["cat"]})["class_right"].tolist() == [1]


def test_the_outline_of_the_cat_fills_its_box(boxes, outlines):
    assert iou(outlines.things(0).boxes[0].tolist(), boxes.things(0).boxes[0].tolist()) > 0.9


def write(path, pixels):
    image = Image.fromarray(pixels.astype(np.uint8), "L").convert("P")
    image.putdata(pixels.flatten().tolist())
    image.save(path)


@pytest.fixture
def drawn(folder):
    """A cat and two dogs; the objects' numbers are not the classes'."""
    cat, dog = CLASSES.index("cat") + 1, CLASSES.index("dog") + 1
    classes = np.array([[dog, dog, 255, cat], [0, dog, 255, 0]])
    objects = np.array([[1, 1, 255, 2], [0, 3, 255, 0]])
    write(folder / "SegmentationClass/2007_000101.png", classes)
    write(folder / "SegmentationObject/2007_000101.png", objects)
    return folder


def test_objects_of_one_class_are_told_apart(drawn):
    things = VocSegmentation(str(drawn)).things(0)
    assert things.names == ("dog", "cat", "dog")
    assert [mask.nonzero().tolist() for mask in things.masks] == [[[0, 0], [0, 1]], [[0, 3]], [[1, 1]]]
    assert things.ignored is not None
    assert things.ignored.nonzero().tolist() == [[0, 2], [1, 2]]
    assert VocSegmentation(str(drawn)).given(0) == ("cat, dog",)


def test_without_objects_a_class_is_one_thing(drawn):
    (drawn / "SegmentationObject/2007_000101.png").unlink()
    things = VocSegmentation(str(drawn)).things(0)
    assert things.names == ("cat", "dog")
    assert [int(mask.sum()) for mask in things.masks] == [1, 3]


@pytest.mark.parametrize(
    ("name", "pixels", "message"),
    [
        ("SegmentationClass", np.full((2, 4), 21), r"2007_000101\.png: expected classes 0 to 20 and 255, got 21"),
        ("SegmentationObject", np.zeros((3, 4)), r"expected the size of the classes, \(2, 4\), got \(3, 4\)"),
        ("SegmentationObject", np.array([[0, 0, 0, 0], [7, 0, 0, 0]]), "object 7 lies on the background"),
    ],
)
def test_pictures_that_do_not_fit(drawn, name, pixels, message):
    write(drawn / name / "2007_000101.png", pixels)
    with pytest.raises(UserError, match=message):
        VocSegmentation(str(drawn)).things(0)


def test_pictures_that_are_none(drawn):
    file = drawn / "SegmentationClass/2007_000101.png"
    Image.new("RGB", (4, 2)).save(file)
    with pytest.raises(UserError, match="expected a picture with a palette"):
        VocSegmentation(str(drawn)).things(0)
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(UserError, match="expected a whole PNG picture"):
        VocSegmentation(str(drawn)).names(0)
    file.unlink()
    with pytest.raises(UserError, match="there is no such file; only pictures of ImageSets/Segmentation"):
        VocSegmentation(str(drawn)).names(0)


@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        (XML, half, "expected whole XML"),
        (XML, lambda text: BOMB, "expected no document type"),
        (
            XML,
            replaced("<name>bottle</name>", "<name>botle</name>"),
            "object 2: expected one of VOC's classes.* 'botle'",
        ),
        (XML, replaced("<name>bottle</name>", ""), "object 2: expected a name"),
        (XML, replaced("2007_000102.jpg", "2007_000101.jpg"), "is about another picture"),
        (XML, replaced("<xmax>171</xmax>", "<xmax>1</xmax>"), "object 2: expected a box, got x from 130 to 1"),
        ("ImageSets/Main/val.txt", lambda text: "../../x\n", "leads elsewhere"),
        ("ImageSets/Main/val.txt", lambda text: text + "2007_000101\n", "line 3: expected each picture once"),
        (
            "ImageSets/Main/val.txt",
            replaced("000101", "000101 2"),
            "line 1: expected a picture and, for a class, 1, 0 or",
        ),
    ],
)
def test_broken_files(folder, file, edit, message):
    is_refused(folder, file, edit, message, lambda: Voc(str(folder)).things(1))


@pytest.mark.parametrize("name", ["voc2007", "voc2012_segmentation"])
def test_the_shipped_sections(name):
    assert resolve(f"classification/{name}", "data", Source)["init_args"]["data"].startswith("data/VOCdevkit")
