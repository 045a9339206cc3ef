"""How the tiles lie that an image processor makes of one picture: told from their windows, not by family."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mmcam.errors import UserError
from mmcam.huggingface.measure import NOWHERE, View
from mmcam.task import Window

__all__ = ["Tiling", "tiling"]


@dataclass(frozen=True)
class Tiling:
    """How several views lie on one picture.

    Attributes:
        base: Number of the view that shows all of the picture, besides the tiles; None if there is none.
        rows: Rows of tiles; 0 without tiles.
        columns: Columns of tiles.
        cells: Row and column of every view; None for the base and for views that are all padding.
    """

    base: int | None
    rows: int
    columns: int
    cells: tuple[tuple[int, int] | None, ...]


def tiling(seen: Iterable[View], size: tuple[int, int]) -> Tiling:
    """Tell how views lie on the picture: which one shows all of it, and the row and column of each other.

    Args:
        seen: The views, as of `views`.
        size: Height and width of the original picture.

    Returns:
        Their places. Of several views that show all (one tile that is the whole) the first or else the last is the
        base; a single view is a tile.

    Raises:
        UserError: The tiles are not those of a grid, one a cell.
    """
    found = [view.window for view in seen]
    shown = [i for i, window in enumerate(found) if window != NOWHERE]
    whole = [i for i in shown if _is_whole(found[i], size)]
    base = next((i for i in (0, len(found) - 1) if len(shown) > 1 and i in whole), None)
    tiles = [i for i in shown if i != base]
    tops, lefts = (_distinct([found[i][axis] for i in tiles]) for axis in (0, 1))
    cells = {i: (_nearest(tops, found[i][0]), _nearest(lefts, found[i][1])) for i in tiles}
    if len(set(cells.values())) != len(tiles):
        raise UserError(
            f"expected tiles that lie in a grid, got {len(tiles)} in {len(set(cells.values()))} places; see View"
        )
    return Tiling(base, len(tops), len(lefts), tuple(cells.get(i) for i in range(len(found))))


def _is_whole(window: Window, size: tuple[int, int]) -> bool:
    return window[0] <= 0 and window[1] <= 0 and window[2] >= size[0] and window[3] >= size[1]


def _distinct(values: list[float]) -> list[float]:
    """Give sorted values without those that are within a pixel of the one before."""
    ordered = sorted(values)
    return [v for i, v in enumerate(ordered) if i == 0 or v - ordered[i - 1] > 1]


def _nearest(values: list[float], value: float) -> int:
    return int(np.abs(np.array(values) - value).argmin())
