import shutil
from pathlib import Path

import numpy as np
import pytest

from mmcam.errors import UserError
from vqa.clevr_xai import ClevrXai

XAI = Path(__file__).parents[1] / "data" / "annotations" / "clevr_xai"


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(XAI, tmp_path / "xai")


@pytest.mark.parametrize(
    ("split", "kind", "folder_of"),
    [
        ("simple", None, "simple_questions_single_object"),
        ("simple", "all_objects", "simple_questions_all_objects"),
        ("complex", None, "complex_questions_unique_first_nonempty"),
        ("complex", "unique", "complex_questions_unique"),
        ("complex", "union", "complex_questions_union"),
        ("complex", "all_objects", "complex_questions_all_objects"),
    ],
)
def test_the_mask_is_the_thing_that_the_answer_is_about(split, kind, folder_of):
    data = ClevrXai(str(XAI), split, kind)
    things = data.things(0)
    mask = np.load(XAI / f"ground_truth_{folder_of}" / "0.npy")
    expected = np.zeros((320, 480), dtype=bool)
    for y in range(320):
        for x in range(480):  # the cell of the mask in which the pixel's centre lies
            expected[y, x] = mask[int((y + 0.5) * 128 / 320), int((x + 0.5) * 128 / 480)]
    assert len(things) == 1
    assert things.exact
    assert (things.masks[0].numpy() == expected).all()
    assert data.about(0, ["metal", "1"]) == [(0,), (0,)]
    assert things.names == (data.kind,)


def test_answers_are_texts():
    assert ClevrXai(str(XAI), "complex").given(0) == ("1",)
    assert ClevrXai(str(XAI), "complex").judge({0: ["1"]})["exact_match"].tolist() == [1]
    assert ClevrXai(str(XAI)).sample(0).text == "What material is the small yellow object?"


def test_no_file_is_an_undefined_mask(folder):
    (folder / "ground_truth_simple_questions_single_object" / "0.npy").unlink()
    data = ClevrXai(str(folder))
    assert data.about(0, ["metal"]) == [None]
    assert len(data.things(0)) == 0


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((128, 127), dtype=bool), r"got bool of shape \(128, 127\)"),
        (np.zeros((1, 128, 128), dtype=bool), r"got bool of shape \(1, 128, 128\)"),
        (np.zeros((128, 128), dtype=np.uint8), r"got uint8 of shape"),
        (np.array([{"a": 1}], dtype=object), "allow_pickle=False"),
        (None, "got a file that is none"),
        (b"", "got a file that is none"),
        (b"PK\x03\x04 no archive", "got a file that is none"),
    ],
)
def test_a_file_that_is_no_mask(folder, array, message):
    file = folder / "ground_truth_simple_questions_single_object" / "0.npy"
    if isinstance(array, bytes):
        file.write_bytes(array)
    elif array is None:
        file.write_bytes(file.read_bytes()[:1000])
    else:
        np.save(file, array, allow_pickle=True)
    with pytest.raises(UserError, match=rf"0.npy: expected an array of 128 x 128 booleans, .*{message}"):
        ClevrXai(str(folder)).things(0)


def test_an_archive_is_no_mask(folder):
    file = folder / "ground_truth_simple_questions_single_object" / "0.npy"
    np.savez(file.with_suffix(".npz"), np.zeros((128, 128), dtype=bool))
    file.with_suffix(".npz").rename(file)
    with pytest.raises(UserError, match=r"0.npy: expected .*, got an archive of several"):
        ClevrXai(str(folder)).things(0)


def test_what_there_is_not(folder):
    with pytest.raises(UserError, match="unknown kind of questions of CLEVR-XAI 'simpel': did you mean 'simple'"):
        ClevrXai(str(folder), "simpel")
    with pytest.raises(UserError, match="unknown mask of simple questions 'union'"):
        ClevrXai(str(folder), "simple", "union")
    shutil.rmtree(folder / "ground_truth_complex_questions_union")
    with pytest.raises(UserError, match=r"ground_truth_complex_questions_union: expected a folder of masks"):
        ClevrXai(str(folder), "complex", "union")
