"""Maps, masks and cases for the tests of metrics; pictures are never square."""

import math

import torch

from mmcam.metrics.base import Case
from mmcam.truth import Things

NAN = math.nan


def odd_maps(n=40, height=9, width=13, seed=0):
    """Random maps in float64 with ties, and the odd ones first: zero, constant, NaN, inf, negative, one pixel."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(n, height, width, generator=generator, dtype=torch.float64)
    maps[10:25] = (maps[10:25] * 5).floor()
    maps[25:] = (maps[25:] - 0.7).clamp(min=0)
    maps[0], maps[1], maps[2], maps[5], maps[6] = 0, 0.3, math.nan, -1, 0
    maps[3, 2, 4:], maps[4, :4], maps[6, 8, 12], maps[7] = math.nan, math.inf, 1e-30, maps[7] - 0.5
    maps[8, 0, 0], maps[9] = 2, maps[9] * 1e30
    return maps


def odd_masks(n=40, height=9, width=13, seed=1):
    """Random masks: an empty one, a full one, boxes at all borders, dots."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(n, height, width, dtype=torch.bool)
    for i in range(n):
        top, left = (
            int(torch.randint(height, (), generator=generator)),
            int(torch.randint(width, (), generator=generator)),
        )
        down, right = (int(torch.randint(1, 7, (), generator=generator)) for _ in range(2))
        masks[i, top : top + down, left : left + right] = True
    masks[11] = masks[3] = False
    masks[12] = True
    masks[13:20] |= torch.rand(7, height, width, generator=generator) > 0.8
    return masks


def ignored_places(height=9, width=13):
    places = torch.zeros(height, width, dtype=torch.bool)
    places[2:4, 3:9] = places[8] = True
    return places


def same(ours, theirs, tolerance=1e-9):
    """Whether values equal a list's, NaN where it says NaN."""
    return torch.allclose(
        ours.double(), torch.tensor(theirs, dtype=torch.float64), tolerance, tolerance, equal_nan=True
    )


def make_case(maps, about, things, *, words=None, small=None, unit=0, classes=None):
    """A case whose masks are the unions of what its words are about."""
    masks = torch.stack([things.masks[list(group)].any(0) for group in about])
    return Case(
        words=words or tuple(f"w{i}" for i in range(len(maps))),
        maps=maps,
        small=maps if small is None else small,
        masks=masks,
        about=about,
        things=things,
        classes=torch.arange(len(maps)) if classes is None else torch.tensor(classes),
        unit=unit,
    )


def boxed(*boxes, names=None, size=(6, 10), ignored=None):
    """Things known by boxes."""
    names = names or tuple(f"t{i}" for i in range(len(boxes)))
    return Things.of_boxes(names, torch.tensor(boxes, dtype=torch.float32), size, ignored)


def bump(row, column, size=(6, 10), value=1.0):
    """A map of one pixel."""
    map = torch.zeros(1, *size, dtype=torch.float64)
    map[0, row, column] = value
    return map
