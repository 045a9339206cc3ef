"""An attack: pixels changed by less than one sees until a network says what is not there."""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmcam.errors import UserError
from mmcam.task import Batch, Sample, Targets, Task

__all__ = ["Objective", "Range", "attack", "away", "pixel_range", "towards"]

Objective = Callable[[Float[Tensor, "b t"]], Float[Tensor, " b"]]
"""What an attack makes large: from the scores, first that of the class to be said, then those of the others."""
Range = tuple[Float[Tensor, "c 1 1"], Float[Tensor, "c 1 1"]]
"""What a network's input is for black and for white."""


def towards(scores: Float[Tensor, "b t"]) -> Float[Tensor, " b"]:
    """Say the wrong class; the evidence for the right ones may stay."""
    return scores[:, 0]


def away(scores: Float[Tensor, "b t"]) -> Float[Tensor, " b"]:
    """Say the wrong class and none of the right ones: y(wrong) - max y(right)."""
    return scores[:, 0] - scores[:, 1:].amax(1)


def attack(
    task: Task,
    batch: Batch,
    targets: Targets,
    objective: Objective,
    epsilon: float,
    steps: int,
    colours: Range,
    random: torch.Generator,
) -> Float[Tensor, "b c h w"]:
    """Projected gradient ascent in the maximum norm (Madry et al., arXiv 1706.06083) .

    Args:
        task: In eval mode; left as found.
        batch: The pictures.
        targets: Of each picture first the class to be said, then the others that the objective knows.
        objective: What is made large; its scores of padding are minus infinity.
        epsilon: Greatest change of any number of the input.
        steps: Of 2.5 epsilon / steps each, along the sign of the gradient.
        colours: Nothing leaves this range.
        random: Draws the start, uniformly within epsilon.

    Returns:
        The changed pictures.

    Raises:
        UserError: The scores do not depend on the images differentiably.
    """
    low, high = (batch.images - epsilon).maximum(colours[0]), (batch.images + epsilon).minimum(colours[1])
    start = torch.rand(batch.images.shape, generator=random).to(batch.images) * 2 - 1
    images = (batch.images + epsilon * start).clamp(low, high)
    for _ in range(steps):
        with torch.enable_grad():
            images = images.detach().requires_grad_()
            changed = replace(batch, images=images, memo={})
            scores = task.scores(task.trunk(changed), changed, targets).masked_fill(~targets.mask, -torch.inf)
            if not scores.requires_grad:
                raise UserError(f"expected a trunk that can be differentiated in the images, got {type(task).__name__}")
            (gradient,) = torch.autograd.grad(objective(scores).sum(), images)
        images = (images.detach() + 2.5 * epsilon / steps * gradient.sign()).clamp(low, high)
    return images


def pixel_range(task: Task, text: str = "") -> Range:
    """Ask a task what it makes of a black and of a white picture.

    Args:
        task: Any; it may normalise its input as it likes.
        text: A question, where the task needs one.
    """
    pictures = [Sample(Image.new("RGB", (64, 64), colour), colour, text) for colour in ("black", "white")]
    black, white = task.collate(pictures).images.to(task.device).flatten(2).mean(2)[..., None, None]
    return black, white
