import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmcam.errors import UserError
from vqa.human import VqaHat, VqaX

FILES = Path(__file__).parents[1] / "data" / "annotations"
V1, V2, HAT = FILES / "vqa_v1", FILES / "vqa_v2", FILES / "vqa_hat"


@pytest.fixture
def hat(tmp_path):
    return shutil.copytree(HAT / "vqahat_val", tmp_path / "hat")


@pytest.fixture
def pointed(tmp_path):
    """As VQA-X: three maps in a file; one as an array of its own, two in a stack."""
    (tmp_path / "visual").mkdir()
    maps = np.random.default_rng(0).random((3, 14, 20))
    np.savez(tmp_path / "visual" / "102001.npz", first=maps[0], others=maps[1:])
    return tmp_path / "visual", maps


def test_only_questions_with_maps_are_asked():
    data = VqaHat(str(V1), str(HAT / "vqahat_val"))
    assert data.ids == ["1010", "1021"]
    assert [data.sample(i).text for i in (0, 1)] == ["What animal is this?", "What color is the saucer?"]
    assert data.given(0) == ("cat",)
    assert data.about(0, ["cat", "dog"]) == [(), ()]  # so that the maps are judged
    assert len(data.things(0)) == 0


def test_the_maps_of_all_three_people_in_their_order():
    data = VqaHat(str(V1), str(HAT / "vqahat_val"))
    maps = data.human(1)
    assert maps is not None
    expected = [np.asarray(Image.open(HAT / "vqahat_val" / f"1021_{k}.png")) / 255 for k in (1, 2, 3)]
    assert torch.equal(maps, torch.from_numpy(np.stack(expected)).float())
    assert maps.shape == (3, 160, 240)


def test_the_tenth_person_comes_after_the_ninth(hat):
    for k in range(4, 11):
        picture = Image.new("L", (240, 160), k)
        picture.putpixel((239, 159), 99)
        picture.save(hat / f"1010_{k}.png")
    maps = VqaHat(str(V1), str(hat)).human(0)
    assert maps is not None
    assert (maps[:, 0, 0] * 255).round().tolist()[3:] == [4, 5, 6, 7, 8, 9, 10]


def test_constant_maps_are_left_out_and_counted(hat):
    Image.new("L", (240, 160), 0).save(hat / "1010_1.png")
    Image.new("L", (240, 160), 9).save(hat / "1010_3.png")
    data = VqaHat(str(V1), str(hat))
    for _ in range(2):  # counted once
        maps = data.human(0)
        assert maps is not None
        assert maps.shape == (1, 160, 240)
        assert data.constant == {"1010_1.png[0]", "1010_3.png[0]"}
    Image.new("L", (240, 160), 9).save(hat / "1010_2.png")
    assert data.human(0) is None
    assert len(data.constant) == 3


def test_colour_maps_become_grey(hat):
    grey = Image.open(hat / "1010_1.png")
    before = VqaHat(str(V1), str(hat)).human(0)
    Image.merge("RGB", [grey] * 3).save(hat / "1010_1.png")
    after = VqaHat(str(V1), str(hat)).human(0)
    assert before is not None
    assert after is not None
    assert torch.equal(before, after)


def test_a_map_of_another_version_or_split_is_refused():
    with pytest.raises(
        UserError, match=r"2010_1.png: expected a map of a question .* but 2010 is none of it, nor are 0 more; .*VQA v1"
    ):
        VqaHat(str(V1), str(HAT / "vqahat_train"))
    with pytest.raises(UserError, match=r"OpenEnded_mscoco_val2014_questions.json is missing"):
        VqaHat(str(V2), str(HAT / "vqahat_val"))


@pytest.mark.parametrize("name", ["1010.png", "x_1.png", "1010_1_2.png", "COCO_val2014_1.png"])
def test_a_map_of_another_name_is_refused(hat, name):
    (hat / "1010_1.png").rename(hat / name)
    with pytest.raises(UserError, match=rf"{name}: expected a file named <question id>_<person>.png"):
        VqaHat(str(V1), str(hat))


def test_other_files_do_no_harm_but_there_must_be_maps(hat, tmp_path):
    (hat / ".1010_1.png").write_bytes(b"")
    (hat / "README.txt").write_text("maps")
    assert len(VqaHat(str(V1), str(hat))) == 2
    with pytest.raises(UserError, match="expected a folder with people's maps"):
        VqaHat(str(V1), str(tmp_path / "nowhere"))


def test_maps_that_cannot_be_read(hat):
    data = VqaHat(str(V1), str(hat))
    (hat / "1010_2.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"1010_2.png"):
        data.human(0)
    Image.open(hat / "1021_1.png").resize((24, 16)).save(hat / "1021_2.png")
    with pytest.raises(UserError, match=r"1021_1.png: expected all maps of a question to be of one size"):
        data.human(1)


def test_vqa_x_reads_all_arrays_of_a_file(pointed):
    folder, maps = pointed
    data = VqaX(str(V2), str(folder))
    assert data.ids == ["102001"]
    assert data.sample(0).text == "What color is the saucer?"
    read = data.human(0)
    assert torch.equal(read, torch.from_numpy(maps).float())


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros(5)}, r"got float64 of shape \(5,\) as 'a'"),
        ({"a": np.array([["x"]])}, "got <U1 of shape"),
        ({"a": np.array([[{}]], dtype=object)}, "got a file that has none"),
        ({"a": np.array([[1.0, np.nan]])}, "got 'a' from nan to nan"),
        ({"a": np.array([[1.0, -1.0]])}, r"got 'a' from -1.0 to 1.0"),
        ({"a": np.ones((2, 3)), "b": np.ones((3, 2))}, r"of one size, got shapes \[\(2, 3\), \(3, 2\)\]"),
        ({}, "of one size, got shapes"),
        (b"PK", "got a file that has none"),
        (b"", "got a file that has none"),
    ],
)
def test_a_file_of_vqa_x_without_maps(pointed, arrays, message):
    file = pointed[0] / "102001.npz"
    if isinstance(arrays, bytes):
        file.write_bytes(arrays)
    else:
        np.savez(file, **arrays)
    data = VqaX(str(V2), str(pointed[0]))
    with pytest.raises(UserError, match=rf"102001.npz: expected people's maps, .*{message}"):
        data.human(0)


def test_a_single_array_saved_as_npz_by_mistake(pointed):
    file = pointed[0] / "102001.npz"
    with file.open("wb") as stream:
        np.save(stream, np.ones((3, 3)))
    with pytest.raises(UserError, match=r"102001.npz: expected people's maps"):
        VqaX(str(V2), str(pointed[0])).human(0)
