"""How well a map, cut at a part of its maximum, covers what the word means.

Rules: a pixel is in if it has at least that part of the map's maximum; a zero map has no pixel in, so IoU 0; NaN where
the mask is empty; places that count for nothing are left out.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from mmcam.metrics.base import Case, PerMap
from mmcam.metrics.rules import counted, undefined

__all__ = ["BestIoU", "IoU", "iou_at"]

THRESHOLDS = tuple(i / 20 for i in range(1, 20))


def iou_at(
    maps: Shaped[Tensor, "n H W"],
    masks: Bool[Tensor, "n H W"],
    thresholds: Sequence[float],
    ignored: Bool[Tensor, "H W"] | None = None,
) -> Float[Tensor, "n t"]:
    """Give the IoU of each map with its mask at each threshold.

    Args:
        maps: One a word.
        masks: What each word means.
        thresholds: Parts of the map's maximum, rising, above 0 and at most 1.
        ignored: Places that count for nothing.

    Returns:
        IoU; the row's maximum is that of a threshold chosen for each map by looking at the truth.
    """
    maps, masks, kept = counted(maps, masks, ignored)
    n, steps = len(maps), len(thresholds) + 1
    edges = torch.tensor(list(thresholds), dtype=maps.dtype, device=maps.device)
    # One pass for all thresholds: how many of them a pixel reaches, counted by map, inside and outside of the mask.
    reached = (
        torch.bucketize(maps.contiguous(), edges, right=True)
        + steps * torch.arange(n, device=maps.device)[:, None, None]
    )
    inside = reached[masks].bincount(minlength=n * steps).view(n, steps)
    outside = reached[~masks & kept].bincount(minlength=n * steps).view(n, steps)
    hit, beside = _at_least(inside), _at_least(outside)
    size = inside.sum(1, keepdim=True)
    overlap = hit.to(maps.dtype) / (size + beside).clamp(min=1)
    return torch.stack([undefined(column, size[:, 0] == 0, maps) for column in overlap[:, 1:].unbind(1)], 1)


def _at_least(counts: Shaped[Tensor, "n s"]) -> Shaped[Tensor, "n s"]:
    """From the number of pixels that reach exactly so many thresholds to that of those that reach so many or more."""
    return counts.flip(1).cumsum(1).flip(1)


class IoU(PerMap):
    """Mean IoU of the maps cut at one part of their maxima."""

    higher_is_better = True

    def __init__(self, threshold: float = 0.5) -> None:
        """Say where the maps are cut."""
        super().__init__()
        self.threshold = threshold

    def measure(self, case: Case) -> Float[Tensor, " n"]:
        """See `iou_at`."""
        return iou_at(case.maps, case.masks, [self.threshold], case.things.ignored)[:, 0]


class BestIoU(PerMap):
    """Mean IoU of the maps, all cut at that part of their maxima which is the best for the mean of all of them.

    Methods differ in how far their maps spread, and one threshold for all of them would measure that. The threshold is
    chosen once, on all maps together; the interval does not count the choice.
    """

    higher_is_better = True

    def __init__(self, thresholds: Sequence[float] = THRESHOLDS) -> None:
        """Say between which parts to choose; they must rise."""
        super().__init__()
        self.thresholds = tuple(thresholds)

    def measure(self, case: Case) -> Float[Tensor, "n t"]:
        """The IoU at each threshold."""
        return iou_at(case.maps, case.masks, self.thresholds, case.things.ignored)

    def kept(self) -> tuple[Tensor, Tensor, Tensor]:
        """The IoU at the best threshold, the picture and the class of each map."""
        values, units, classes = super().kept()
        if not len(values):
            return values, units, classes
        return values[:, values.nanmean(0).nan_to_num(nan=0.0).argmax()], units, classes
