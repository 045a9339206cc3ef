"""Masks against pycocotools and against pixels counted by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask

from mmcam.annotations.published import Entry
from mmcam.annotations.rle import read_mask
from mmcam.errors import UserError


def read(segmentation, size=(4, 5)):
    return read_mask(Entry({"segmentation": segmentation}, Path("a.json"), "annotations[7]"), size)


def test_runs_go_down_the_columns_and_begin_with_zeros():
    expected = torch.zeros(4, 5, dtype=torch.bool)
    expected[3, 0] = expected[0, 1] = expected[1, 1] = True
    assert torch.equal(read({"counts": [3, 3, 14], "size": [4, 5]}), expected)
    assert read({"counts": [0, 20], "size": [4, 5]}).all()
    assert not read({"counts": [20], "size": [4, 5]}).any()


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
@pytest.mark.parametrize("size", [(1, 1), (37, 23), (300, 211)])
def test_text_is_what_pycocotools_writes(size, share):
    pixels = np.random.default_rng(3).random(size) < share
    code = mask.encode(np.asfortranarray(pixels))
    assert torch.equal(read({"counts": code["counts"].decode(), "size": [*size]}, size), torch.from_numpy(pixels))


def test_polygons_are_filled_as_in_coco_s_figures():
    square, other = [1.0, 1, 3, 1, 3, 3, 1, 3], [4.0, 0, 5, 0, 5, 1, 4, 1]
    found = read([square, other])
    assert found.nonzero().tolist() == [[0, 4], [1, 1], [1, 2], [2, 1], [2, 2]]
    assert torch.equal(found, read([square]) | read([other]))
    assert not read([]).any()
    assert not read([[1.0, 1, 3, 3]]).any()


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        (None, "expected 'segmentation' as list, got None"),
        ("ab", "expected 'segmentation' as list"),
        ({"counts": [20]}, "expected 'size' as list, got none"),
        ({"counts": [20], "size": [5, 4]}, r"expected size \[4, 5\], as of the picture"),
        ({"size": [4, 5]}, "expected 'counts' as list, got none"),
        ({"counts": [3, 3], "size": [4, 5]}, "expected counts of 20 pixels in all, got 2 runs of 6"),
        ({"counts": [3, 3, 15], "size": [4, 5]}, "got 3 runs of 21"),
        ({"counts": [25, -5], "size": [4, 5]}, "no lengths"),
        ({"counts": [10.0, 10], "size": [4, 5]}, "no lengths"),
        ({"counts": "4", "size": [4, 5]}, "expected counts of 20 pixels in all, got 1 runs of 4"),
        ({"counts": "T", "size": [4, 5]}, "ends within a number"),
        ({"counts": "\u00e9", "size": [4, 5]}, "the character"),
        ({"counts": "o" * 80, "size": [4, 5]}, "the character 'o'"),
        ([[1, 2, 3]], "expected 'segmentation' as polygons"),
        ([1, 2, 3, 4, 5, 6], "expected 'segmentation' as polygons"),
        ([[1, 2, 3, 4, 5, "6"]], "expected the numbers of a polygon, got '6'"),
        ([[1, 2, 3, 4, 5, float("nan")]], "expected the numbers of a polygon"),
        ([[1, 2, 3, 4, 5, 1e9]], "got a point at"),
    ],
)
def test_what_is_no_outline_is_named(segmentation, reason):
    with pytest.raises(UserError, match=reason) as caught:
        read(segmentation)
    assert str(caught.value).startswith("a.json: annotations[7]")
