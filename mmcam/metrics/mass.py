"""How much of a map lies on what the word means.

Rules: NaN where the mask is empty; a zero map gets 0; places that count for nothing are left out, of the map and of the
mask. A constant map gets the mask's share of the picture in mass and rank accuracy, and a ratio of 1.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from mmcam.metrics.base import Case, Figure, PerMap
from mmcam.metrics.counts import median
from mmcam.metrics.rules import counted, undefined
from mmcam.truth import box_masks

__all__ = [
    "EnergyInBox",
    "InsideOutside",
    "MassAccuracy",
    "MedianInsideOutside",
    "RankAccuracy",
    "energy_in_boxes",
    "inside_outside",
    "mass_accuracy",
    "rank_accuracy",
]

LEAST = 1e-6
"""Least mean outside the mask, as a part of the map's maximum, that a ratio is taken to."""


def mass_accuracy(
    maps: Shaped[Tensor, "n H W"], masks: Bool[Tensor, "n H W"], ignored: Bool[Tensor, "H W"] | None = None
) -> Float[Tensor, " n"]:
    """Give the share of each map's mass that lies in its mask.

    This is the relevance mass accuracy of CLEVR-XAI (Arras et al., arXiv 2003.07258), and the attention correctness of
    Liu et al. (arXiv 1605.09553) if overlapping regions are counted once.

    Args:
        maps: One a word.
        masks: What each word means.
        ignored: Places that count for nothing.

    Returns:
        Shares in [0, 1]; 0 for a zero map, NaN for an empty mask.
    """
    maps, masks, _ = counted(maps, masks, ignored)
    total = maps.sum((1, 2))
    share = (maps * masks).sum((1, 2)) / torch.where(total > 0, total, 1)
    return undefined(share, ~masks.any(2).any(1), maps)


def rank_accuracy(
    maps: Shaped[Tensor, "n H W"], masks: Bool[Tensor, "n H W"], ignored: Bool[Tensor, "H W"] | None = None
) -> Float[Tensor, " n"]:
    """Give the share of the N greatest pixels that lie in the mask, N being its size (Arras et al., arXiv 2003.07258).

    Pixels that are equal have no order: the value is the expected one over all their orders.

    Args:
        maps: One a word.
        masks: What each word means.
        ignored: Places that count for nothing.

    Returns:
        Shares in [0, 1]; 0 for a zero map, NaN for an empty mask.
    """
    maps, masks, kept = counted(maps, masks, ignored)
    zero = maps.amax((1, 2)) == 0 if maps.numel() else torch.zeros(len(maps), dtype=torch.bool, device=maps.device)
    flat, inside = maps.masked_fill(~kept, -1).flatten(1), masks.flatten(1)
    sizes = inside.sum(1)
    last = flat.new_zeros(len(flat))  # the least of the N greatest
    for i, size in enumerate(sizes.tolist()):
        if size:
            last[i] = flat[i].kthvalue(flat.shape[1] - size + 1).values
    above, level = flat > last[:, None], flat == last[:, None]
    # The share of the equal ones that still belong to the N.
    left = (sizes - above.sum(1)).to(maps.dtype) / level.sum(1).clamp(min=1)
    found = (above & inside).sum(1) + left * (level & inside).sum(1)
    share = (found / sizes.clamp(min=1)).masked_fill(zero, 0)
    return undefined(share, sizes == 0, maps)


def energy_in_boxes(
    maps: Shaped[Tensor, "n H W"],
    boxes: Sequence[Float[Tensor, "_ 4"]],
    ignored: Bool[Tensor, "H W"] | None = None,
) -> Float[Tensor, " n"]:
    """Give the share of each map's mass inside its boxes (the energy-based pointing game, arXiv 1910.01279).

    Args:
        maps: One a word.
        boxes: Of each word; left, top, right, bottom. A pixel is inside if its centre is; overlaps count once.
        ignored: Places that count for nothing.

    Returns:
        Shares in [0, 1]; 0 for a zero map, NaN where the boxes hold no pixel.
    """
    size = maps.shape[1], maps.shape[2]
    masks = torch.zeros(maps.shape, dtype=torch.bool, device=maps.device)
    for i, own in enumerate(boxes):
        masks[i] = box_masks(own.to(maps.device), size).any(0)
    return mass_accuracy(maps, masks, ignored)


def inside_outside(
    maps: Shaped[Tensor, "n H W"],
    masks: Bool[Tensor, "n H W"],
    ignored: Bool[Tensor, "H W"] | None = None,
    least: float = LEAST,
) -> Float[Tensor, " n"]:
    """Give the mean of each map inside its mask over its mean outside (the DenseCap comparison of Grad-CAM).

    Args:
        maps: One a region's caption.
        masks: The region of each.
        ignored: Places that count for nothing.
        least: The mean outside is taken to be at least this part of the maximum, so that the ratio is finite. It is
            at most one over this; the median over the regions does not see it.

    Returns:
        Ratios; 1 for a constant map, 0 for a zero one, NaN where there is no pixel inside or none outside.
    """
    maps, masks, kept = counted(maps, masks, ignored)
    rest = ~masks & kept
    inside, outside = masks.sum((1, 2)), rest.sum((1, 2))
    within = (maps * masks).sum((1, 2)) / inside.clamp(min=1)
    beyond = (maps * rest).sum((1, 2)) / outside.clamp(min=1)
    return undefined(within / beyond.clamp(min=least), (inside == 0) | (outside == 0), maps)


class MassAccuracy(PerMap):
    """Mean share of the mass on what the word means."""

    higher_is_better = True

    def measure(self, case: Case) -> Float[Tensor, " n"]:
        """See `mass_accuracy`."""
        return mass_accuracy(case.maps, case.masks, case.things.ignored)


class RankAccuracy(PerMap):
    """Mean share of the greatest pixels on what the word means."""

    higher_is_better = True

    def measure(self, case: Case) -> Float[Tensor, " n"]:
        """See `rank_accuracy`."""
        return rank_accuracy(case.maps, case.masks, case.things.ignored)


class EnergyInBox(PerMap):
    """Mean share of the mass in the boxes of what the word means."""

    higher_is_better = True

    def measure(self, case: Case) -> Float[Tensor, " n"]:
        """See `energy_in_boxes`."""
        boxes = [case.things.boxes[list(about)] for about in case.about]
        return energy_in_boxes(case.maps, boxes, case.things.ignored)


class InsideOutside(PerMap):
    """Mean ratio of inside to outside."""

    higher_is_better = True

    def measure(self, case: Case) -> Float[Tensor, " n"]:
        """See `inside_outside`."""
        return inside_outside(case.maps, case.masks, case.things.ignored)


class MedianInsideOutside(InsideOutside):
    """Median ratio of inside to outside; one map with nothing outside can carry the mean away."""

    def compute(self) -> Figure:
        """The median over all maps."""
        values, units, _ = self.kept()
        return median(values, units)
