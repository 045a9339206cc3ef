"""GQA's grounding score: how much of the map lies on the regions that question and answer speak of (arXiv 1902.09506).

The published evaluator (eval.py of gqadataset.org) sums over cells and regions the cell's share of the map times the
part of the cell that the region covers. It counts a cell once for *every* region that covers it, so overlapping regions
can lift the score above 1; it takes a map's first index for x, so that a map stored by rows is judged transposed; and a
question without region gets 0. `gqa_grounding` counts every place once and takes the first index for the row;
`gqa_grounding_official` gives the published number.

Rules: maps are divided by their sums; a zero map gets 0; NaN where there is no region of positive area (0 in the
official score). Regions are boxes in pixels, exactly intersected with the cells. A question about the scene has the
whole picture among its regions: the reader adds it.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from mmcam.metrics.base import Case, PerMap
from mmcam.metrics.rules import positive

__all__ = ["GQAGrounding", "OfficialGQAGrounding", "coverage", "gqa_grounding", "gqa_grounding_official"]


def coverage(boxes: Float[Tensor, "r 4"], cells: tuple[int, int], size: tuple[int, int]) -> Float[Tensor, "r h w"]:
    """Give the part of each cell of a grid that each box covers.

    Args:
        boxes: left, top, right, bottom in pixels.
        cells: Rows and columns of the grid, which covers the picture.
        size: Height and width of the picture.
    """
    left, top, right, bottom = boxes.unbind(1)
    return _lengths(top, bottom, cells[0], size[0])[:, :, None] * _lengths(left, right, cells[1], size[1])[:, None]


def gqa_grounding(
    maps: Shaped[Tensor, "n h w"], boxes: Sequence[Float[Tensor, "_ 4"]], size: tuple[int, int]
) -> Float[Tensor, " n"]:
    """Give the share of each map that lies on the union of its regions.

    Args:
        maps: At the layer's resolution; the cells cover the picture evenly.
        boxes: The regions of each map, in pixels.
        size: Height and width of the picture.

    Returns:
        Shares in [0, 1].
    """
    shares = _shares(maps)
    values = shares.new_full((len(shares),), torch.nan)
    for i, own in enumerate(boxes):
        covered = _union(own.to(shares), (maps.shape[1], maps.shape[2]), size)
        if covered.any():
            values[i] = (shares[i] * covered).sum()
    return values


def gqa_grounding_official(
    maps: Shaped[Tensor, "n h w"], boxes: Sequence[Float[Tensor, "_ 4"]], size: tuple[int, int]
) -> Float[Tensor, " n"]:
    """Give the number that the published evaluator gives for a map stored by rows.

    It knows square maps only; of others the first axis is taken for x all the same.

    Args:
        maps: At the layer's resolution.
        boxes: The regions of each map, in pixels.
        size: Height and width of the picture.

    Returns:
        Scores, which may exceed 1.
    """
    shares = _shares(maps).mT
    cells = shares.shape[1], shares.shape[2]
    values = shares.new_zeros(len(shares))
    for i, own in enumerate(boxes):
        values[i] = (shares[i] * coverage(own.to(shares), cells, size).sum(0)).sum()
    return values


def _shares(maps: Shaped[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    maps = positive(maps)
    maps = maps / maps.amax((1, 2), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny) if maps.numel() else maps
    total = maps.sum((1, 2), keepdim=True)
    return maps / torch.where(total > 0, total, 1)


def _lengths(start: Float[Tensor, " r"], end: Float[Tensor, " r"], cells: int, length: int) -> Float[Tensor, "r cells"]:
    """The part of each cell of a row of cells that each interval covers."""
    edges = torch.arange(cells + 1, dtype=start.dtype, device=start.device)
    near = torch.maximum(start[:, None] * cells / length, edges[:-1])
    far = torch.minimum(end[:, None] * cells / length, edges[1:])
    return (far - near).clamp(min=0)


def _union(boxes: Float[Tensor, "r 4"], cells: tuple[int, int], size: tuple[int, int]) -> Float[Tensor, "h w"]:
    """The part of each cell that any box covers: cut at all edges of boxes and cells, no piece is partly in."""
    rows, columns = _cuts(boxes[:, 1::2], cells[0], size[0]), _cuts(boxes[:, ::2], cells[1], size[1])
    y, x = (rows[1:] + rows[:-1]) / 2, (columns[1:] + columns[:-1]) / 2
    left, top, right, bottom = boxes[:, :, None, None].unbind(1)
    inside = ((x >= left) & (x < right) & (y[:, None] >= top) & (y[:, None] < bottom)).any(0)
    areas = rows.diff()[:, None] * columns.diff() * inside
    down = (y * cells[0] / size[0]).long().clamp(0, cells[0] - 1)
    across = (x * cells[1] / size[1]).long().clamp(0, cells[1] - 1)
    covered = boxes.new_zeros(cells)
    covered.index_put_((down[:, None], across), areas, accumulate=True)
    return covered * (cells[0] * cells[1] / (size[0] * size[1]))


def _cuts(edges: Float[Tensor, "r 2"], cells: int, length: int) -> Float[Tensor, " c"]:
    grid = torch.arange(cells + 1, dtype=edges.dtype, device=edges.device) * length / cells
    return torch.cat([grid, edges.flatten().clamp(0, length)]).sort().values


class GQAGrounding(PerMap):
    """Mean share of the map on the regions that question and answer speak of, each place counted once."""

    higher_is_better = True
    score: Callable[..., Tensor] = staticmethod(gqa_grounding)

    def measure(self, case: Case) -> Float[Tensor, " n"]:
        """See `gqa_grounding`."""
        top, left, bottom, right = case.window or (0.0, 0.0, *map(float, case.maps.shape[1:]))
        things = case.things.boxes - torch.tensor([left, top, left, top])  # what lies outside the window is cut off
        boxes = [things[list(about)] for about in case.about]
        return type(self).score(case.small, boxes, (round(bottom - top), round(right - left)))


class OfficialGQAGrounding(GQAGrounding):
    """The same as the published evaluator computes it."""

    score = staticmethod(gqa_grounding_official)
