"""What every metric does to a map before it judges it, so that all of them agree on the odd ones."""

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

__all__ = ["counted", "merge", "positive", "scaled", "undefined"]

FLAT = 1e-6
"""Differences below this part of the maximum are rounding, as upsampling makes it: such a map is constant."""


def positive(maps: Shaped[Tensor, "n H W"]) -> Float[Tensor, "n H W"]:
    """Take the ReLU of maps; what is not finite becomes zero, what is nearly constant becomes constant.

    Args:
        maps: Of any floating or whole type.

    Returns:
        The maps in float64 if they came so, else in float32.
    """
    maps = maps if maps.dtype == torch.float64 else maps.float()
    maps = maps.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).clamp(min=0)
    if not maps.numel():
        return maps
    high, low = maps.amax((1, 2), keepdim=True), maps.amin((1, 2), keepdim=True)
    return torch.where(high - low <= FLAT * high, high, maps)


def scaled(maps: Float[Tensor, "n H W"]) -> Float[Tensor, "n H W"]:
    """Divide positive maps by their maxima; a zero map stays zero."""
    if not maps.numel():
        return maps
    high = maps.amax((1, 2), keepdim=True)
    return maps / torch.where(high > 0, high, 1)


def counted(
    maps: Shaped[Tensor, "n H W"], masks: Bool[Tensor, "n H W"], ignored: Bool[Tensor, "H W"] | None
) -> tuple[Float[Tensor, "n H W"], Bool[Tensor, "n H W"], Bool[Tensor, "H W"]]:
    """Leave out the places that count for nothing.

    Args:
        maps: One a word.
        masks: What each word means.
        ignored: Places that count for nothing; none if not given.

    Returns:
        The positive maps, divided by their maxima, and the masks, both without the ignored places; and the others.
    """
    maps, masks = positive(maps), masks.to(maps.device)
    if ignored is None:
        return scaled(maps), masks, torch.ones(maps.shape[1:], dtype=torch.bool, device=maps.device)
    kept = ~ignored.to(maps.device)
    return scaled(maps * kept), masks & kept, kept


def undefined(
    values: Shaped[Tensor, " n"], where: Bool[Tensor, " n"], like: Float[Tensor, "..."]
) -> Float[Tensor, " n"]:
    """Put NaN where a metric is undefined.

    Args:
        values: One a map.
        where: Whether it is undefined.
        like: Of this type and on this device the values shall be.
    """
    return values.to(like).masked_fill(where, torch.nan)


def merge(masks: Bool[Tensor, "m H W"], about: tuple[tuple[int, ...], ...]) -> Bool[Tensor, "n H W"]:
    """Unite the masks of the things that each word is about; empty for a word about none."""
    joined = masks.new_zeros((len(about), *masks.shape[1:]))
    for i, numbers in enumerate(about):
        if numbers:
            joined[i] = masks[list(numbers)].any(0)
    return joined
