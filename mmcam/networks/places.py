"""Where things are on the grid of a layer: coordinates, the code of a place, the gist of all places."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

WAVES = 15
"""Number of standing waves that `gist` weighs every channel with."""

PLACES = 18
"""Length of a place code: x, y, and sines and cosines of both at four frequencies."""


def coordinates(activations: Float[Tensor, "b k h w"]) -> Float[Tensor, "3 h w"]:
    """The functions 1, x and y on the grid, x and y from -1 to 1 at the outermost cells."""
    h, w = activations.shape[2:]
    y = torch.linspace(-1, 1, h, device=activations.device, dtype=activations.dtype)[:, None].expand(h, w)
    x = torch.linspace(-1, 1, w, device=activations.device, dtype=activations.dtype).expand(h, w)
    return torch.stack([torch.ones_like(x), x, y])


def gist(activations: Float[Tensor, "b k h w"]) -> Float[Tensor, "b d"]:
    """Sum up roughly what is where: the lowest cosine coefficients of every channel, without the mean.

    Each wave has spatial mean zero, so whatever is computed from the gist adds nothing to α, the spatial mean of the
    gradient: Grad-CAM of a score that hears of the picture through the gist alone is zero.

    Args:
        activations: A.

    Returns:
        k times `WAVES` numbers.
    """
    h, w = activations.shape[2:]
    options = {"device": activations.device, "dtype": activations.dtype}
    rows = [torch.cos((torch.arange(h, **options) + 0.5) * (math.pi * u / h)) for u in range(4)]
    columns = [torch.cos((torch.arange(w, **options) + 0.5) * (math.pi * v / w)) for v in range(4)]
    waves = torch.stack([row[:, None] * column for row in rows for column in columns][1:])  # (15, h, w)
    return torch.einsum("bkhw,chw->bkc", activations, waves).flatten(1) * (32 / (h * w))


def place_code(activations: Float[Tensor, "b k h w"]) -> Float[Tensor, "p n"]:
    """Name every place of the grid, row by row, so that linear maps can ask for regions of any size."""
    xy = coordinates(activations)[1:].flatten(1)  # (2, n)
    waves = [wave(xy * (math.pi * scale)) for scale in (0.5, 1.0, 1.5, 2.5) for wave in (torch.sin, torch.cos)]
    return torch.cat([xy, *waves])
