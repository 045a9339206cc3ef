"""Maps of pictures of several sizes, padded to one: pooled over the places that each picture has.

`memo["grid"]`, where there is one, says how many rows and columns of the padded maps are each picture's.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["adaptive_mean", "pictures_mean"]


def pictures_mean(activations: Float[Tensor, "b k h w"], memo: dict[str, Any]) -> Float[Tensor, "b k"]:
    """The spatial mean of each picture's own places; padding has no gradient."""
    grid = memo.get("grid")
    if grid is None:
        return activations.sum((2, 3)) / activations.shape[2:].numel()
    rows, columns = (torch.arange(count, device=grid.device) for count in activations.shape[2:])
    own = (rows < grid[:, :1])[:, None, :, None] & (columns < grid[:, 1:])[:, None, None]  # (b, 1, h, w)
    return (activations * own).sum((2, 3)) / grid.prod(1, keepdim=True).to(activations)


def adaptive_mean(activations: Float[Tensor, "b k h w"], memo: dict[str, Any], side: int) -> Float[Tensor, "b n k"]:
    """`AdaptiveAvgPool2d(side)` of each picture's own places, also where the grid is coarser; row by row.

    As two matrix products, whose backward can be batched.
    """
    rows, columns = activations.shape[2:]
    grid = memo.get("grid")
    sizes = [(rows, columns)] * len(activations) if grid is None else [(int(h), int(w)) for h, w in grid.tolist()]
    down = torch.stack([_shares(side, h, rows, activations) for h, _ in sizes])  # (b, side, h)
    across = torch.stack([_shares(side, w, columns, activations) for _, w in sizes])
    pooled = down[:, None] @ activations @ across[:, None].mT  # (b, k, side, side)
    return pooled.flatten(2).mT


def _shares(side: int, count: int, padded: int, like: Tensor) -> Float[Tensor, "side padded"]:
    """How much each of `count` places gives to each of `side` cells: cell i is the mean of ⌊i·n/s⌋ to ⌈(i+1)·n/s⌉."""
    table = like.new_zeros(side, padded)
    for i in range(side):
        first, last = i * count // side, -(-(i + 1) * count // side)
        table[i, first:last] = 1 / (last - first)
    return table
