"""Boxes around the strongest part of a map, and the localisation error of ILSVRC.

The box is that of the Grad-CAM paper (arXiv 1610.02391, on ILSVRC-15): pixels of at least 15 % of the map's maximum,
the largest connected part of them, its tight box. Pixels that touch at a corner are connected, as in OpenCV's contours;
the paper does not say. Of parts of equal size the first in reading order is taken.

Rules: boxes are left, top, right, bottom and half-open, so a pixel is a box of area 1. A zero map has the empty box
(0, 0, 0, 0), which overlaps nothing: IoU 0. NaN where the truth has no box of positive area. Places that count for
nothing are taken out of the map.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from scipy import ndimage
from torch import Tensor

from mmcam.metrics.base import Case, PerMap
from mmcam.metrics.counts import PerPicture
from mmcam.metrics.rules import positive, scaled

__all__ = ["BoxIoU", "LocalisationError", "Localised", "best_iou", "box_iou", "largest_boxes", "localisation_error"]

THRESHOLD = 0.15
ENOUGH = 0.5


def largest_boxes(
    maps: Shaped[Tensor, "n H W"], threshold: float = THRESHOLD, ignored: Bool[Tensor, "H W"] | None = None
) -> Float[Tensor, "n 4"]:
    """Draw the box around the largest connected part of each map.

    Args:
        maps: One a word.
        threshold: Part of the map's maximum that a pixel needs.
        ignored: Places that count for nothing.

    Returns:
        The boxes, in float32 on the maps' device.
    """
    maps = positive(maps)
    if ignored is not None:
        maps = maps * ~ignored.to(maps.device)
    maps = scaled(maps)
    strong = ((maps >= threshold) & (maps > 0)).cpu().numpy()
    boxes = np.zeros((len(strong), 4), dtype=np.float32)
    for i, one in enumerate(strong):
        parts = np.zeros(one.shape, dtype=np.int32)
        ndimage.label(one, np.ones((3, 3)), output=parts)
        if parts.any():
            largest = parts == np.bincount(parts.ravel())[1:].argmax() + 1
            rows, columns = largest.any(1).nonzero()[0], largest.any(0).nonzero()[0]
            boxes[i] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return torch.from_numpy(boxes).to(maps.device)


def box_iou(one: Float[Tensor, "n 4"], two: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Give the intersection over union of all pairs of boxes; 0 where both are empty."""
    start, end = torch.maximum(one[:, None, :2], two[:, :2]), torch.minimum(one[:, None, 2:], two[:, 2:])
    common = (end - start).clamp(min=0).prod(2)
    union = _areas(one)[:, None] + _areas(two) - common
    return torch.where(union > 0, common / union, 0)


def best_iou(boxes: Float[Tensor, "n 4"], truth: Sequence[Float[Tensor, "_ 4"]]) -> Float[Tensor, " n"]:
    """Compare each box with the true one that fits it best.

    Args:
        boxes: One a word.
        truth: The true boxes of each word.

    Returns:
        IoU; NaN where there is no true box of positive area.
    """
    best = boxes.new_full((len(boxes),), torch.nan)
    for i, own in enumerate(truth):
        own = own.to(boxes)
        own = own[_areas(own) > 0]
        if len(own):
            best[i] = box_iou(boxes[i : i + 1], own).amax()
    return best


def localisation_error(
    predicted: Int[Tensor, " k"],
    boxes: Float[Tensor, "k 4"],
    true: Int[Tensor, " m"],
    truth: Float[Tensor, "m 4"],
    enough: float = ENOUGH,
) -> Float[Tensor, " k"]:
    """Score one picture as ILSVRC does: is any of the first predictions of the right class and in the right place?

    Args:
        predicted: Classes, the most probable first.
        boxes: Of each prediction; see `largest_boxes`.
        true: Class of each true box.
        truth: The true boxes.
        enough: Least IoU with a true box of the class.

    Returns:
        The top-1, top-2 ... top-k error: 0 if one of so many predictions is right, else 1. NaN if there is no truth.
    """
    true, truth = true.to(boxes.device), truth.to(boxes)
    kept = _areas(truth) > 0
    if not kept.any():
        return boxes.new_full((len(boxes),), torch.nan)
    same = predicted.to(boxes.device)[:, None] == true[kept]
    right = (same & (box_iou(boxes, truth[kept]) >= enough)).any(1)
    return 1 - right.to(boxes.dtype).cummax(0).values if len(right) else boxes.new_zeros(0)


def _areas(boxes: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)


class BoxIoU(PerMap):
    """Mean IoU of the map's box with the best box of what the word means."""

    higher_is_better = True

    def __init__(self, threshold: float = THRESHOLD) -> None:
        """Say where the map is cut, as a part of its maximum."""
        super().__init__()
        self.threshold = threshold

    def measure(self, case: Case) -> Float[Tensor, " n"]:
        """See `best_iou`."""
        boxes = largest_boxes(case.maps, self.threshold, case.things.ignored)
        return best_iou(boxes, [case.things.boxes[list(about)] for about in case.about])


class Localised(BoxIoU):
    """Share of the maps whose box has an IoU of one half or more with a box of what the word means."""

    def measure(self, case: Case) -> Float[Tensor, " n"]:
        """1 where it has."""
        overlaps = super().measure(case)
        return torch.where(overlaps.isnan(), overlaps, (overlaps >= ENOUGH).to(overlaps))


class LocalisationError(PerPicture):
    """Share of the pictures in which none of the first words is right and in the right place.

    The words of a case must be the predictions of a picture in the order of their probability, those of classes that
    are not there among them.
    """

    higher_is_better = False

    def __init__(self, top: int = 1, threshold: float = THRESHOLD) -> None:
        """Say how many predictions are allowed, and where the map is cut."""
        super().__init__()
        self.top, self.threshold = top, threshold

    def measure(self, case: Case) -> Float[Tensor, " 1"]:
        """1 for an error."""
        boxes = largest_boxes(case.maps[: self.top], self.threshold, case.things.ignored)
        if not (_areas(case.things.boxes) > 0).any():
            return boxes.new_full((1,), torch.nan)
        overlaps = best_iou(boxes, [case.things.boxes[list(about)] for about in case.about[: self.top]])
        return 1 - (overlaps >= ENOUGH).any(0, keepdim=True).to(boxes)
