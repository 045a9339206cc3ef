"""Outlines as COCO writes them: polygons, and run-length codes as numbers or as text.

Polygons are filled by pycocotools, as in COCO's own figures. Run lengths are decoded here, where they are checked
first: its decoder leaves pixels as the memory happens to be where the runs are too few.
"""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from mmcam.annotations.published import Entry
from mmcam.errors import UserError

__all__ = ["read_mask"]


def read_mask(entry: Entry, size: tuple[int, int]) -> Bool[Tensor, "h w"]:
    """Read the segmentation of one annotation.

    Args:
        entry: With the key `segmentation`: a list of polygons [x, y, x, y, …], or {counts, size}, column by column, the
            first run of zeros; counts are numbers or COCO's text.
        size: Height and width of the picture.

    Returns:
        The mask. Polygons of fewer than three points enclose nothing.

    Raises:
        UserError: It is not whole, of another size, or reaches far out of the picture; or pycocotools is missing.
    """
    segmentation = entry.values.get("segmentation")
    if isinstance(segmentation, dict):
        return _from_runs(Entry(segmentation, entry.file, f"{entry.place}.segmentation"), size)
    polygons = entry.take("segmentation", list)
    for polygon in polygons:
        _check(polygon, size, entry)
    return _filled([polygon for polygon in polygons if len(polygon) >= 6], size, entry)


def _from_runs(entry: Entry, size: tuple[int, int]) -> Bool[Tensor, "h w"]:
    height, width = size
    if entry.take("size", list) != [height, width]:
        raise entry.broken(f"expected size {[height, width]}, as of the picture, got {entry.values['size']}")
    counts = entry.values.get("counts")
    runs = _runs(counts, entry) if isinstance(counts, str) else entry.take("counts", list)
    whole = all(isinstance(run, int) and not isinstance(run, bool) and 0 <= run <= height * width for run in runs)
    if not whole or sum(runs) != height * width:
        came = f"{len(runs)} runs of {sum(runs)}" if whole else "numbers that are no lengths"
        raise entry.broken(f"expected counts of {height * width} pixels in all, got {came}")
    lengths = np.array(runs, dtype=np.int64)
    columns = np.repeat(np.arange(len(runs)) % 2 == 1, lengths).reshape(width, height)
    return torch.from_numpy(columns.T.copy())


def _runs(text: str, entry: Entry) -> list[int]:
    """COCO's text: six bits a character from "0" on, five of the number, one for "goes on"; differences from the third.

    The number is signed, the low bits come first, and from the fourth run on it is added to the last run but one.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 30:
            raise entry.broken(f"expected counts in COCO's code, got the character {character!r} in it")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise entry.broken("expected counts in COCO's code, got text that ends within a number")
    return runs


def _check(polygon: Any, size: tuple[int, int], entry: Entry) -> None:  # noqa: ANN401
    if not isinstance(polygon, list) or len(polygon) % 2:
        raise entry.broken("expected 'segmentation' as polygons [x, y, x, y, ...], got another list")
    far = 4 * (size[0] + size[1])
    for value in polygon:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise entry.broken(f"expected the numbers of a polygon, got {value!r}")
        if abs(value) > far:
            raise entry.broken(f"expected a polygon in a picture of {size[0]} x {size[1]}, got a point at {value}")


def _filled(polygons: list[Any], size: tuple[int, int], entry: Entry) -> Bool[Tensor, "h w"]:
    if not polygons:
        return torch.zeros(size, dtype=torch.bool)
    try:
        from pycocotools import mask
    except ImportError as error:
        raise UserError("reading COCO's polygons needs pycocotools: pip install 'mmcam[evaluate]'") from error
    points: Any = [[float(value) for value in polygon] for polygon in polygons]
    code: Any = mask.merge(mask.frPyObjects(points, *size))
    # Not its own decode, which makes NumPy 2 warn.
    text = {"counts": code["counts"].decode("ascii"), "size": [*size]}
    return _from_runs(Entry(text, entry.file, entry.place), size)
