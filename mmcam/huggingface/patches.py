"""Where the patches lie of models whose processor makes no picture, but a row of patches: exact rules, one a format.

They all squash the whole picture to a number of patches that suits its shape, so that only rows and columns differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from mmcam.errors import UserError
from mmcam.task import Window

__all__ = ["Patches", "flattened", "packed"]


@dataclass(frozen=True)
class Patches:
    """The grid of patches that one picture was cut into.

    Attributes:
        window: The part of the original that they show: top, left, bottom, right in pixels of the original.
        rows: Of patches.
        columns: Of patches.
    """

    window: Window
    rows: int
    columns: int


def packed(grids: Int[Tensor, "n _"], sizes: Sequence[tuple[int, int]], merge: int = 1) -> tuple[Patches, ...]:
    """Tell the grids of pictures whose patches lie in one row after another (Qwen2-VL and after, SigLIP 2 NaFlex).

    Args:
        grids: The processor's `image_grid_thw` (frames, rows, columns) or `spatial_shapes` (rows, columns).
        sizes: Height and width of every original picture.
        merge: The processor's `merge_size`, for the grid after the merger of patches; 1 for the one before.

    Returns:
        One a picture; the whole of it, squashed (Qwen's `smart_resize`).

    Raises:
        UserError: There are other pictures than sizes, films, or rows that the merger does not divide.
    """
    found = grids.tolist()
    if len(found) != len(sizes) or any(len(grid) not in (2, 3) for grid in found):
        raise UserError(
            f"expected rows and columns of {len(sizes)} pictures, got numbers of shape {tuple(grids.shape)}; "
            "give image_grid_thw or spatial_shapes"
        )
    for grid in found:
        if len(grid) == 3 and grid[0] != 1:
            raise UserError(f"expected pictures, got a film of {grid[0]} frames; give its pictures one by one")
        if grid[-2] % merge or grid[-1] % merge:
            raise UserError(f"expected a grid that {merge} divides, got {grid[-2]} x {grid[-1]}; see merge_size")
    return tuple(
        Patches((0.0, 0.0, float(height), float(width)), grid[-2] // merge, grid[-1] // merge)
        for grid, (height, width) in zip(found, sizes, strict=True)
    )


def flattened(
    patches: Float[Tensor, "b n d"],
    sizes: Sequence[tuple[int, int]],
    headers: Sequence[tuple[int, int] | None] = (),
) -> tuple[Patches, ...]:
    """Tell the grids of pictures whose patches begin with their own row and column (Pix2Struct, Kosmos-2.5).

    Args:
        patches: The processor's `flattened_patches`: rows and columns count from 1, and are 0 in the padding.
        sizes: Height and width of every original picture.
        headers: Height and width of the question that was drawn over every picture (`render_text`), before it was
            made as wide as the picture or the picture as wide as it; None or nothing where there is none.

    Returns:
        One a picture; the whole of it, squashed. With a header its window begins above the picture.

    Raises:
        UserError: There are other pictures than sizes, or the patches are not so many as rows times columns.
    """
    if len(patches) != len(sizes) or (headers and len(headers) != len(sizes)):
        raise UserError(f"expected one size a picture, got {len(sizes)} and {len(headers)} headers for {len(patches)}")
    found = []
    for (height, width), values, header in zip(sizes, patches[..., :2], headers or [None] * len(sizes), strict=True):
        rows, columns = (int(number) for number in values.amax(0).tolist())
        filled = int((values > 0).all(1).sum())
        if rows < 1 or columns < 1 or filled != rows * columns:
            raise UserError(
                f"expected {rows} x {columns} patches by their rows and columns, got {filled}; "
                "give flattened_patches as the processor made them"
            )
        found.append(Patches((_above(height, width, header), 0.0, float(height), float(width)), rows, columns))
    return tuple(found)


def _above(height: int, width: int, header: tuple[int, int] | None) -> float:
    """Where a picture with a header begins, as Pix2Struct's `render_header` puts them together."""
    if header is None:
        return 0.0
    wide = max(header[1], width)
    return -int(header[0] * (wide / header[1])) * height / int(height * (wide / width))
