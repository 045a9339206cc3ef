"""Does the map prefer what the word means to the other things of the picture? Chance is 0.5.

Rules: a thing other than those that the word means counts for 1 if it gets less than they do, for 1/2 if it gets as
much (up to rounding); the value is the mean over the others. NaN where the mask is empty or no other thing is left. A
zero map gets 0, a constant one 0.5. Of the others only the part outside the mask counts, and of all things only places
that count at all.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from mmcam.metrics.base import Case, PerMap
from mmcam.metrics.rules import counted

__all__ = ["Discrimination", "MassDiscrimination", "discrimination_by_mass", "discrimination_by_mean"]

SAME = 1e-6
"""Two amounts are equal if they differ by less than this part of the greater one."""


def discrimination_by_mean(
    maps: Shaped[Tensor, "n H W"],
    masks: Bool[Tensor, "n H W"],
    things: Bool[Tensor, "m H W"],
    about: Sequence[Sequence[int]],
    ignored: Bool[Tensor, "H W"] | None = None,
) -> Float[Tensor, " n"]:
    """Compare the mean of the map on what the word means with its mean on each other thing.

    Args:
        maps: One a word.
        masks: What each word means.
        things: All things of the picture.
        about: The numbers of those that each word means.
        ignored: Places that count for nothing.

    Returns:
        Share of the other things with a lower mean.
    """
    return _shares(maps, masks, things, about, ignored, mean=True)


def discrimination_by_mass(
    maps: Shaped[Tensor, "n H W"],
    masks: Bool[Tensor, "n H W"],
    things: Bool[Tensor, "m H W"],
    about: Sequence[Sequence[int]],
    ignored: Bool[Tensor, "H W"] | None = None,
) -> Float[Tensor, " n"]:
    """Compare the mass of the map on what the word means with its mass on each other thing.

    Large things have it easier. Arguments and value are those of `discrimination_by_mean`.
    """
    return _shares(maps, masks, things, about, ignored, mean=False)


def _shares(
    maps: Shaped[Tensor, "n H W"],
    masks: Bool[Tensor, "n H W"],
    things: Bool[Tensor, "m H W"],
    about: Sequence[Sequence[int]],
    ignored: Bool[Tensor, "H W"] | None,
    *,
    mean: bool,
) -> Float[Tensor, " n"]:
    maps, masks, kept = counted(maps, masks, ignored)
    things = things.to(maps.device) & kept
    values = maps.new_full((len(maps),), torch.nan)
    for i, meant in enumerate(about):
        others = things[[k for k in range(len(things)) if k not in meant]] & ~masks[i]
        sizes = others.sum((1, 2))
        others, sizes = others[sizes > 0], sizes[sizes > 0]
        size = masks[i].sum()
        if not size or not len(others):
            continue
        right, wrong = (maps[i] * masks[i]).sum(), (maps[i] * others).sum((1, 2))
        if mean:
            right, wrong = right / size, wrong / sizes
        same = (right - wrong).abs() <= SAME * torch.maximum(right, wrong)
        better = torch.where(same, 0.5, (right > wrong).to(maps))
        values[i] = torch.where(maps[i].any(), better.mean(), 0)
    return values


class Discrimination(PerMap):
    """Mean share of the other things whose mean is lower."""

    higher_is_better = True

    def measure(self, case: Case) -> Float[Tensor, " n"]:
        """See `discrimination_by_mean`."""
        return discrimination_by_mean(case.maps, case.masks, case.things.masks, case.about, case.things.ignored)


class MassDiscrimination(PerMap):
    """Mean share of the other things whose mass is lower."""

    higher_is_better = True

    def measure(self, case: Case) -> Float[Tensor, " n"]:
        """See `discrimination_by_mass`."""
        return discrimination_by_mass(case.maps, case.masks, case.things.masks, case.about, case.things.ignored)
