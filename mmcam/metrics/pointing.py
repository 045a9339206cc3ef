"""The pointing game: does the peak of the map lie on what the word means (Zhang et al., arXiv 1608.00507)?

Rules:

- The peak is the first maximum in reading order. A constant map, zero or not, has no peak and misses.
- With a tolerance, the disc of that radius around the peak has to touch the mask; as in TorchRay's code the distance
  must be *below* the radius; it is measured between pixel centres. The peak itself always counts.
- NaN where the mask is empty, and where the peak lies on a place that counts for nothing.
- A hit of any of the things meant is a hit of their union: the instance and the union variant are the same number.
"""

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from mmcam.metrics.base import Case, PerMap
from mmcam.metrics.rules import merge, positive, undefined

__all__ = ["Pointing", "PointingElsewhere", "PointingWithRejection", "peaks", "pointing", "pointing_with_rejection"]


def peaks(maps: Shaped[Tensor, "n H W"]) -> Int[Tensor, " n"]:
    """Find the peak of each map.

    Args:
        maps: One a word.

    Returns:
        Row times width plus column; -1 for a map without peak.
    """
    flat = positive(maps).flatten(1)
    if not flat.numel():
        return torch.zeros(len(maps), dtype=torch.long, device=maps.device)
    return torch.where(flat.amax(1) > flat.amin(1), flat.argmax(1), -1)


def pointing(
    maps: Shaped[Tensor, "n H W"],
    masks: Bool[Tensor, "n H W"],
    tolerance: float = 0.0,
    ignored: Bool[Tensor, "H W"] | None = None,
) -> Float[Tensor, " n"]:
    """Say which maps point at what they should.

    Args:
        maps: One a word.
        masks: What each word means.
        tolerance: In pixels; 15 in the pointing game on VOC and COCO.
        ignored: Places that count for nothing.

    Returns:
        1 for a hit, 0 for a miss, NaN where undefined.
    """
    maps, masks, width = positive(maps), masks.to(maps.device), maps.shape[2]
    places = peaks(maps)
    none = places < 0
    rows, columns = (places.clamp(min=0) // width)[:, None], (places.clamp(min=0) % width)[:, None]
    beside = torch.zeros_like(none)
    if ignored is not None:
        ignored = ignored.to(maps.device)
        masks = masks & ~ignored
        beside = ignored[rows[:, 0], columns[:, 0]] & ~none
    down = (torch.arange(maps.shape[1], dtype=torch.int, device=maps.device) - rows.int()) ** 2
    across = (torch.arange(width, dtype=torch.int, device=maps.device) - columns.int()) ** 2
    distance = down[:, :, None] + across[:, None, :]  # (n, H, W), squared
    near = (distance < tolerance**2) | (distance == 0)
    hits = (near & masks).any(2).any(1) & ~none
    return undefined(hits, ~masks.any(2).any(1) | beside, maps)


def pointing_with_rejection(
    maps: Shaped[Tensor, "n H W"],
    masks: Bool[Tensor, "n H W"],
    present: Bool[Tensor, " n"],
    threshold: float,
    tolerance: float = 0.0,
    ignored: Bool[Tensor, "H W"] | None = None,
) -> Float[Tensor, " n"]:
    """Play the pointing game with the right to say that a class is not there, as Grad-CAM (arXiv 1610.02391) did.

    A map whose maximum is below the threshold is rejected. Rejecting an absent class is a hit, rejecting a present one
    a miss, and so is a map of an absent class that is not rejected. The paper takes the top five predicted classes; its
    threshold is not published. Words of things that are not there must be among the maps.

    Args:
        maps: One a class, *not* divided by their maxima.
        masks: Of each class.
        present: Whether the class is in the picture.
        threshold: Least maximum of a map that is not rejected.
        tolerance: In pixels.
        ignored: Places that count for nothing.

    Returns:
        1 for a hit, 0 for a miss; NaN where a present class is undefined.
    """
    rejected = positive(maps).amax((1, 2)) < threshold
    points = pointing(maps, masks, tolerance, ignored)
    present = present.to(maps.device)
    return torch.where(present, torch.where(rejected & ~points.isnan(), 0, points), rejected.to(points))


class Pointing(PerMap):
    """Share of the maps that point at what their word means."""

    higher_is_better = True

    def __init__(self, tolerance: float = 0.0, per_class: bool = False) -> None:
        """Say how it is counted.

        Args:
            tolerance: In pixels.
            per_class: Whether the classes count alike, as on VOC and COCO, instead of the maps.
        """
        super().__init__()
        self.tolerance, self.per_class = tolerance, per_class

    def measure(self, case: Case) -> Float[Tensor, " n"]:
        """1 for a hit, 0 for a miss."""
        return pointing(case.maps, case.masks, self.tolerance, case.things.ignored)


class PointingElsewhere(PerMap):
    """Share of the maps that point at another thing of the picture, and not at what their word means.

    NaN where there is no other thing.
    """

    higher_is_better = False

    def measure(self, case: Case) -> Float[Tensor, " n"]:
        """1 where the peak lies on another thing."""
        everything = range(len(case.things))
        others = tuple(tuple(i for i in everything if i not in about) for about in case.about)
        masks = merge(case.things.masks.to(case.maps.device), others) & ~case.masks.to(case.maps.device)
        return pointing(case.maps, masks, ignored=case.things.ignored)


class PointingWithRejection(PerMap):
    """Share of the classes that are pointed at, or rejected because they are not there."""

    higher_is_better = True

    def __init__(self, threshold: float, tolerance: float = 0.0) -> None:
        """Say how it is counted; see `pointing_with_rejection`."""
        super().__init__()
        self.threshold, self.tolerance = threshold, tolerance

    def measure(self, case: Case) -> Float[Tensor, " n"]:
        """1 for a hit, 0 for a miss."""
        present = torch.tensor([len(about) > 0 for about in case.about], dtype=torch.bool)
        ignored = case.things.ignored
        return pointing_with_rejection(case.maps, case.masks, present, self.threshold, self.tolerance, ignored)
