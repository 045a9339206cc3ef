import pytest
import torch

from captioning.visual_genome import Regions
from mmcam.errors import UserError
from tests.annotated import changed, copied, half, is_refused, replaced

REGIONS = "region_descriptions.json"


@pytest.fixture
def folder(tmp_path):
    return copied(tmp_path / "vg", "visual_genome")


def test_each_region_is_a_sample(folder):
    source = Regions(str(folder))
    assert source.ids == ["5001", "5002", "5003", "5004", "5005", "5006"]
    assert [source.given(i) for i in (0, 5)] == [("a striped cat",), ("red saucer under the cup",)]
    assert source.sample(0).image.tobytes() != source.sample(3).image.tobytes()
    assert source.sample(3).image.tobytes() == source.sample(5).image.tobytes()
    assert source.sample(4).id == "5005"


def test_the_box_is_the_one_thing_and_every_word_is_about_it(folder):
    source = Regions(str(folder))
    things = source.things(1)
    assert things.names == ("green eye of the cat",)
    assert things.boxes.tolist() == [[71, 46, 111, 80]]
    assert int(things.masks.sum()) == 40 * 34
    assert bool(things.masks[0, 46:80, 71:111].all())
    assert things.masks.shape == (1, 160, 240)
    assert not things.exact
    assert source.about(1, ["pink", "nose"]) == [(0,), (0,)]


def test_the_first_version_counts_from_one_and_says_the_same(folder):
    new, old = Regions(str(folder)), Regions(str(folder), regions="region_descriptions_v1.0.json")
    assert old.ids == new.ids
    assert all(torch.equal(new.things(i).boxes, old.things(i).boxes) for i in range(6))


def test_names_as_on_the_web_page(folder):
    text = (folder / REGIONS).read_text().replace('"id": 3000', '"image_id": 3000')
    (folder / REGIONS).write_text(text)
    assert len(Regions(str(folder))) == 6


def test_densecap_s_split(folder):
    assert Regions(str(folder), "train").ids == ["5001", "5002", "5003"]
    assert Regions(str(folder), "val").ids == []
    with pytest.raises(UserError, match=r"unknown split of .*densecap_splits\.json 'tets': did you mean 'test'"):
        Regions(str(folder), "tets")


def test_boxes_are_clipped_and_may_vanish(folder):
    def grow(content):
        content[0]["regions"][0].update(x=-5, y=150, width=500, height=500)
        content[0]["regions"][1].update(x=400, width=3)
        content[0]["regions"][2].update(width=0)

    (folder / REGIONS).write_text(changed(grow)((folder / REGIONS).read_text()))
    source = Regions(str(folder))
    assert source.things(0).boxes.tolist() == [[0, 150, 240, 160]]
    assert [int(source.things(i).masks.sum()) for i in range(3)] == [10 * 240, 0, 0]


def test_what_is_said_is_held_against_the_phrase(folder):
    judged = Regions(str(folder)).judge({0: ["a", "striped", "cat"], 3: ["dog"]})
    assert judged["rouge_l"].tolist() == pytest.approx([1, 0])


@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        (REGIONS, half, "expected whole JSON"),
        (REGIONS, lambda text: "{}", "expected a list"),
        (REGIONS, changed(lambda c: c[1].pop("id")), r"\[1\]: expected 'id' as int, got none"),
        (REGIONS, changed(lambda c: c[1].update(id=5)), r"\[1\]: image_data.json has no picture 5"),
        (REGIONS, changed(lambda c: c[1]["regions"][2].pop("phrase")), r"\[1\].regions\[2\]: expected 'phrase'"),
        (REGIONS, changed(lambda c: c[1]["regions"][2].update(x="1")), r"\[1\].regions\[2\]: expected 'x' as a number"),
        (REGIONS, changed(lambda c: c[1]["regions"][2].update(width=-1)), "expected a box, got one of -1 x 131"),
        (REGIONS, changed(lambda c: c[1]["regions"][2].update(image_id=3)), "expected a region of the picture 3000102"),
        (REGIONS, changed(lambda c: c[1]["regions"][2].update(region_id=5001)), "expected each region once, got 5001"),
        (REGIONS, changed(lambda c: c[0].pop("regions")), r"\[0\]: expected 'regions' as list"),
        ("image_data.json", half, "expected whole JSON"),
        ("image_data.json", changed(lambda c: c.append(c[0])), r"\[2\]: expected each picture once, got 3000101 again"),
        ("image_data.json", changed(lambda c: c[0].pop("width")), r"\[0\]: expected 'width'"),
        (
            "image_data.json",
            replaced("VG_100K/3000101", "secret/3000101"),
            r"\[0\]: url: expected a picture in VG_100K",
        ),
        ("image_data.json", replaced("3000101.jpg", "7.jpg"), r"\[0\]: url: expected the picture 3000101, got '7.jpg'"),
        ("image_data.json", replaced("3000101.jpg", "3000101.\\\\..\\\\a"), "leads elsewhere"),
        ("image_data.json", changed(lambda c: c.pop(0)), "lacks 1 pictures of the split, the first is 3000101"),
        ("densecap_splits.json", half, "expected whole JSON"),
        (
            "densecap_splits.json",
            changed(lambda c: c["train"].append(3000101)),
            "train: expected the ids of pictures, each",
        ),
        ("densecap_splits.json", changed(lambda c: c.update(train=["a"])), "train: expected the ids"),
    ],
)
def test_broken_files(folder, file, edit, message):
    split = "train" if file != REGIONS else ""
    is_refused(folder, file, edit, message, lambda: Regions(str(folder), split))
