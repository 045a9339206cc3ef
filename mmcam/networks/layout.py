"""How a layer's output lies in space: as maps, with the channels last, or as a sequence of tokens.

Grad-CAM wants maps (b, k, h, w). Swin's blocks give (b, h, w, k), a vision transformer's give (b, n, k): a few tokens
that lie nowhere (class token, registers), then one token a patch, row by row. `Layout` turns either into maps and back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmcam.errors import UserError
from mmcam.networks.twin import named

Size = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True)
class Layout:
    """The way from a layer's output to maps and back.

    Attributes:
        order: "maps" (b, k, h, w), "channels last" (b, h, w, k) or "tokens" (b, n, k).
        grid: Height and width of the maps.
        prefix: Tokens before those of the grid.
    """

    order: Literal["maps", "channels last", "tokens"]
    grid: Size
    prefix: int = 0

    def spread(self, output: Float[Tensor, "b ..."]) -> tuple[Float[Tensor, "b k h w"], Float[Tensor, "b p k"] | None]:
        """Lay a layer's output out as maps; tokens that lie nowhere come separately."""
        if self.order == "maps":
            return output, None
        if self.order == "channels last":
            return output.movedim(3, 1), None
        return output[:, self.prefix :].movedim(2, 1).unflatten(2, self.grid), output[:, : self.prefix]

    def gather(
        self, activations: Float[Tensor, "b k h w"], prefix: Float[Tensor, "b p k"] | None
    ) -> Float[Tensor, "b ..."]:
        """Undo `spread`."""
        if self.order == "maps":
            return activations
        if self.order == "channels last":
            return activations.movedim(1, 3)
        tokens = activations.flatten(2).movedim(1, 2)
        return tokens if prefix is None else torch.cat([prefix.to(tokens.dtype), tokens], 1)


def find_layout(output: Tensor, size: Size, model: nn.Module, prefix: int | None = None, layer: str = "") -> Layout:
    """Find out how a layer's output lies in space.

    Args:
        output: Of the layer.
        size: Height and width of the model's input.
        model: The whole model; timm's and torchvision's know their number of prefix tokens.
        prefix: Tokens before those of the grid, if the user knows.
        layer: Its name, for the error.

    Returns:
        The layout.

    Raises:
        UserError: The output is neither maps nor tokens that fill a grid of the picture's aspect.
    """
    found = layout_of(output, size, model, prefixes(model, prefix))
    if found is not None:
        return found
    shape = tuple(output.shape)
    if output.ndim != 3:
        raise UserError(
            f"layer {layer!r} must give maps (b, k, h, w) or tokens (b, n, k), gives {shape}; choose one before pooling"
        )
    count = "its" if prefix is None else f"{prefix} prefix tokens and"
    raise UserError(
        f"layer {layer!r} gives {shape}: {count} {shape[1]} tokens fill no grid on a picture of {size[0]} x {size[1]}; "
        "say how many tokens come before the grid (prefix=), or choose another layer"
    )


def layout_of(output: Tensor, size: Size, model: nn.Module, prefixes: Sequence[int]) -> Layout | None:
    """Find out how a layer's output lies in space, as `find_layout` does; None if it does not."""
    if output.ndim == 4:
        first, last = (output.shape[2], output.shape[3]), (output.shape[1], output.shape[2])
        tie = _misfit(last, size) == _misfit(first, size) and _says_channels_last(model)
        wins = alike(last, size) and (_misfit(last, size) < _misfit(first, size) or tie)
        return Layout("channels last", last) if wins else Layout("maps", first)
    if output.ndim != 3:
        return None
    for count in prefixes:
        grid = _grid(output.shape[1] - count, size)
        if grid is not None:
            return Layout("tokens", grid, count)
    return None


def _grid(count: int, size: Size) -> Size | None:
    """Height and width of so many square patches over a picture; its edge may cut the last ones, or leave them out."""
    for side in range(1, max(size) + 1):
        for grid in ((ceil(size[0] / side), ceil(size[1] / side)), (size[0] // side, size[1] // side)):
            if grid[0] * grid[1] == count:
                return grid
    return None


def alike(grid: Size, size: Size) -> bool:
    """Tell whether a grid has the picture's aspect, up to what rounding at every stage may do to it."""
    return _misfit(grid, size) <= (0 if size[0] == size[1] else 2 * max(size))


def _misfit(grid: Size, size: Size) -> int:
    return abs(grid[0] * size[1] - grid[1] * size[0])


def prefixes(model: nn.Module, prefix: int | None = None) -> list[int]:
    """List the numbers of prefix tokens to try: the user's; or those that the model says it has, then all up to 16."""
    if prefix is not None:
        return [prefix]
    counts = []
    for _, module in named(model):
        count = getattr(module, "num_prefix_tokens", None)
        if isinstance(count, int):
            counts.append(count)
        elif isinstance(getattr(module, "class_token", None), nn.Parameter):
            counts.append(1)
    return [*dict.fromkeys([*counts, *range(17)])]


def _says_channels_last(model: nn.Module) -> bool:
    return any(getattr(m, "output_fmt", "") == "NHWC" or "swin" in type(m).__name__.lower() for _, m in named(model))
