"""Test-time augmentation: the mean of the maps of several views of a picture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmcam.engine import explain
from mmcam.explanation import Explanation
from mmcam.task import Batch, Targets, Task


@dataclass(frozen=True)
class View:
    """A way to see a picture, and the way back for its maps.

    Attributes:
        see: Changes the network's input (b, c, H, W).
        back: Changes maps (r, h, w) so that they fit the picture again.
    """

    see: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]


def flipped(x: Tensor) -> Tensor:
    """Left and right exchanged."""
    return x.flip(-1)


def times(factor: float, side: Callable[[Tensor], Tensor] = torch.clone) -> View:
    """All values of the network's input times a factor: more or less contrast around its mean colour.

    Args:
        factor: By which the values are multiplied.
        side: `torch.clone`, or `flipped`.

    Returns:
        The view.
    """
    return View(lambda images: side(images) * factor, side)


PLAIN, FLIPPED = times(1.0), times(1.0, flipped)
SIX = tuple(times(factor, side) for side in (torch.clone, flipped) for factor in (0.9, 1.0, 1.1))
"""pytorch-grad-cam's: plain and flipped, each at 0.9, 1 and 1.1 times the input."""


def explain_views(
    task: Task, batch: Batch, targets: Targets, method: str = "grad_cam", views: Sequence[View] = (PLAIN, FLIPPED)
) -> list[Explanation]:
    """Explain several views of every picture, and take the mean of the maps before ReLU.

    A flipped picture shows "left of" as "right of": give other views where the words are about sides. Differs from
    pytorch-grad-cam, which takes the mean of maps that were brought to 0 … 1 one by one.

    Args:
        task: The adapter.
        batch: The samples.
        targets: What to explain in all views.
        method: Name of a method in `mmcam.methods.table`.
        views: What is seen; each costs a whole explanation.

    Returns:
        One explanation a sample, its scores those of the first view.
    """
    found = [explain(task, replace(batch, images=view.see(batch.pictures)), targets, method) for view in views]
    return [
        replace(seen[0], signed=torch.stack([v.back(e.signed) for v, e in zip(views, seen, strict=True)]).mean(0))
        for seen in zip(*found, strict=True)
    ]
