"""Maps as seeds for segmentation: every pixel gets the class whose map is strongest there, or none.

Rules: each map is divided by its maximum; a pixel below `background` in all maps is background, and so is all of a zero
map. Of equal maps the first wins. Pixels that count for nothing count neither as right nor as wrong. A class's IoU is
that of all its pixels in all pictures; the score is the mean over the classes that occur, in truth or in seeds, the
background being one of them.
"""

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from mmcam.metrics.base import Case, Figure
from mmcam.metrics.counts import PerPicture, name_number, of_counts
from mmcam.metrics.rules import positive, scaled

__all__ = ["SeedIoU", "mean_iou", "seed_counts", "seed_labels"]

BACKGROUND = 0.2
"""A custom of the field; the Grad-CAM paper does not say where its seeds were cut."""


def seed_labels(
    maps: Shaped[Tensor, "n H W"], classes: Int[Tensor, " n"], background: float = BACKGROUND
) -> Int[Tensor, "H W"]:
    """Label the pixels of a picture by its maps.

    Args:
        maps: One a word.
        classes: The class of each map, above 0.
        background: Part of its maximum that a map needs to claim a pixel.

    Returns:
        Of each pixel the class, or 0 for background.
    """
    if not len(maps):
        return torch.zeros(maps.shape[1:], dtype=torch.long, device=maps.device)
    strength, first = scaled(positive(maps)).max(0)
    return classes.to(maps.device)[first].masked_fill((strength < background) | (strength == 0), 0)


def seed_counts(
    labels: Int[Tensor, "H W"], true: Int[Tensor, "H W"], classes: int, ignored: Bool[Tensor, "H W"] | None = None
) -> Int[Tensor, "c 3"]:
    """Count the pixels of one picture by class: labelled rightly, labelled so, and truly so.

    Args:
        labels: By the maps.
        true: By people.
        classes: Their number, with the background.
        ignored: Places that count for nothing (255 in VOC's pictures).
    """
    true = true.to(labels.device)
    if ignored is not None:
        kept = ~ignored.to(labels.device)
        labels, true = labels[kept], true[kept]
    pairs = (true * classes + labels).flatten().bincount(minlength=classes**2).view(classes, classes)
    return torch.stack([pairs.diagonal(), pairs.sum(0), pairs.sum(1)], 1)


def mean_iou(counts: Float[Tensor, "*s c 3"]) -> Float[Tensor, "*s"]:
    """Give the mean over classes of intersection over union, from `seed_counts` summed over pictures.

    Classes that occur neither in truth nor in seeds are left out; NaN if none occurs.
    """
    right, labelled, true = counts.unbind(-1)
    union = labelled + true - right
    return (right / torch.where(union > 0, union, torch.nan)).nanmean(-1)


class SeedIoU(PerPicture):
    """Mean over classes of the IoU of the seeds with the true segmentation.

    As image labels are given to those who grow seeds, only maps of classes that are in the picture count; a class of
    the picture that has no map is missed. Things known by a box only have no segmentation: such pictures are excluded.
    """

    higher_is_better = True
    rows: list[Tensor]

    def __init__(self, background: float = BACKGROUND) -> None:
        """Say where the background begins, as a part of the map's maximum."""
        super().__init__()
        self.background = background
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def measure(self, case: Case) -> Float[Tensor, " 1"]:
        """The mean over the classes of this picture."""
        things, device = case.things, case.maps.device
        if not things.exact:
            return torch.full((1,), torch.nan, device=device)
        names = list(dict.fromkeys(things.names))
        true = torch.zeros(case.maps.shape[1:], dtype=torch.long, device=device)
        for name, mask in zip(things.names, things.masks.to(device), strict=True):
            true[mask] = names.index(name) + 1
        present = [i for i, about in enumerate(case.about) if about]
        classes = torch.tensor([names.index(things.names[case.about[i][0]]) + 1 for i in present], dtype=torch.long)
        labels = seed_labels(case.maps[present], classes, self.background)
        counts = seed_counts(labels, true, len(names) + 1, things.ignored)
        numbers = torch.tensor([0, *map(name_number, names)], device=device)
        unit = torch.full_like(numbers, case.unit)
        self.rows.append(torch.cat([unit[:, None], numbers[:, None], counts], 1))
        return mean_iou(counts.to(case.maps.dtype))[None]

    def compute(self) -> Figure:
        """The score of all pictures together."""
        values = self.kept()[0]
        excluded = int(values.isnan().sum())
        rows = torch.cat(list(self.rows)) if len(self.rows) else torch.zeros(0, 5, dtype=torch.long)
        n = len(values) - excluded
        return of_counts(rows[:, 2:], rows[:, 0], rows[:, 1], mean_iou, n=n, excluded=excluded)
