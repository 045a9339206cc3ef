"""Deletion and insertion (Petsiuk et al., RISE, arXiv 1806.07421): pixels change by decreasing saliency, step by step.

Deletion takes the most salient pixels away first: what the model says should soon become improbable (a small area is
good). Insertion begins with a blurred picture and shows the most salient pixels first (a large area is good). As steps
have equal size, 28 steps of a 224-pixel picture are the paper's 224 · 8 pixels each.

Differs from the paper: the curve of the score (log-probability, logit) stands beside that of the probability; pixels of
equal saliency are taken in reading order. RISE has a curve for a class; here every word and answer has its own.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d
from torch import Tensor
from torch.nn.functional import conv2d

from mmcam.errors import UserError
from mmcam.metrics.perturb import Faithfulness, on_input, order, probabilities, real_rows, respond, scores
from mmcam.task import Batch, Targets, Task

__all__ = ["Curve", "Deletion", "Insertion", "blur", "deletion", "insertion", "replacement"]


@dataclass(frozen=True, eq=False)
class Curve:
    """What a task says while its picture changes.

    Attributes:
        shares: Share of pixels changed, from 0 to 1.
        scores: y of each row; NaN for padding.
        probabilities: Of what each row is about.
    """

    shares: Float[Tensor, " s"]
    scores: Float[Tensor, "b r s"]
    probabilities: Float[Tensor, "b r s"]

    def areas(self) -> Float[Tensor, "b r 2"]:
        """Areas under the curve of the probability and under that of the score, by the trapezoidal rule."""
        both = torch.stack([self.probabilities, self.scores], 2)
        return torch.trapezoid(both, self.shares.to(both.dtype), dim=3)


def deletion(
    task: Task,
    batch: Batch,
    targets: Targets,
    maps: Float[Tensor, "b r h w"],
    steps: int = 28,
    fill: float = 0.0,
    chunk: int | None = None,
) -> Curve:
    """Take the most salient pixels away first.

    Args:
        task: Is asked.
        batch: The samples.
        targets: The words, answers or classes.
        maps: One a row. A map that is constant is taken away in reading order.
        steps: Number of equal steps.
        fill: What stands in a pixel's place, in the network's normalised space: 0 is the mean colour.
        chunk: Pictures that pass through the network at once; what suits the device if not given.

    Returns:
        The curve of each row, from the whole picture to nothing.
    """
    batch = batch.to(task.device)
    return replacement(task, batch, targets, maps, batch.images, torch.full_like(batch.images, fill), steps, chunk)


def insertion(
    task: Task,
    batch: Batch,
    targets: Targets,
    maps: Float[Tensor, "b r h w"],
    steps: int = 28,
    start: Float[Tensor, "b c x y"] | None = None,
    chunk: int | None = None,
) -> Curve:
    """Show the most salient pixels first.

    Args:
        task: Is asked.
        batch: The samples.
        targets: The words, answers or classes.
        maps: One a row. A map that is constant is shown in reading order.
        steps: Number of equal steps.
        start: The pictures to begin with, in the network's normalised space; the blurred ones if not given.
        chunk: Pictures that pass through the network at once; what suits the device if not given.

    Returns:
        The curve of each row, from the start to the whole picture.
    """
    batch = batch.to(task.device)
    start = blur(batch.images) if start is None else start.to(batch.images)
    return replacement(task, batch, targets, maps, start, batch.images, steps, chunk)


def replacement(
    task: Task,
    batch: Batch,
    targets: Targets,
    maps: Float[Tensor, "b r h w"],
    before: Float[Tensor, "b c x y"],
    after: Float[Tensor, "b c x y"],
    steps: int,
    chunk: int | None = None,
) -> Curve:
    """Change pictures into others, the most salient pixels first; what both ends say is asked once for all rows.

    Raises:
        UserError: There is no step.
    """
    if steps < 1:
        raise UserError(f"expected at least 1 step, got {steps}; 28 are usual")
    b, area = len(batch), batch.images[0, 0].numel()
    samples, rows, real = real_rows(targets)
    counts = torch.linspace(0, area, steps + 1, dtype=torch.float64).round().int()
    # First all pictures before, then all after, then the steps between of every row.
    inner = counts[1:-1].repeat(len(samples))
    sample = torch.cat([torch.arange(b).repeat(2), samples.repeat_interleave(steps - 1)])
    row = torch.cat([torch.zeros(2 * b, dtype=torch.long), rows.repeat_interleave(steps - 1)])
    changed = torch.cat([counts[:1].expand(b), counts[-1:].expand(b), inner])
    if not len(samples):
        sample = sample[:0]
    place = order(on_input(maps, batch))

    def images(numbers: Tensor) -> Tensor:
        i, r = sample[numbers], row[numbers]
        gone = place[i, r] < changed[numbers, None, None].to(place.device)  # (m, x, y)
        return torch.where(gone[:, None], after[i], before[i])

    said = respond(task, batch, targets, sample, images, [scores, probabilities], chunk)

    def curves(values: Float[Tensor, "n r"]) -> Float[Tensor, "b r s"]:
        curve = values.new_full((b, real.shape[1], steps + 1), float("nan"))
        if len(samples):
            curve[:, :, 0], curve[:, :, -1] = values[:b], values[b : 2 * b]
            between = values[2 * b :].unflatten(0, (len(samples), steps - 1))
            curve[samples, rows, 1:-1] = between[torch.arange(len(samples)), :, rows]
        return curve.masked_fill(~real[..., None].to(curve.device), float("nan"))

    shares = (counts / area).to(device=batch.images.device, dtype=torch.float32)
    return Curve(shares, *(curves(values) for values in said))


def blur(images: Float[Tensor, "b c x y"], size: int = 11, sigma: float = 5.0) -> Float[Tensor, "b c x y"]:
    """Blur pictures as RISE's code does: a kernel folded at its edges, and zeros around the picture."""
    point = np.zeros(size)
    point[size // 2] = 1
    profile = torch.from_numpy(gaussian_filter1d(point, sigma)).to(images)
    c = images.shape[1]
    down, across = profile[:, None].expand(c, 1, -1, 1), profile.expand(c, 1, 1, -1)
    return conv2d(conv2d(images, down, padding=(size // 2, 0), groups=c), across, padding=(0, size // 2), groups=c)


class Deletion(Faithfulness):
    """Areas under the deletion curves of probability and score; smaller is better."""

    names = ("probability", "score")
    higher_is_better = False

    def __init__(self, steps: int = 28, fill: float = 0.0) -> None:
        super().__init__()
        self.steps, self.fill = steps, fill

    def measure(
        self, task: Task, batch: Batch, targets: Targets, maps: Float[Tensor, "b r h w"]
    ) -> Float[Tensor, "b r 2"]:
        """Areas by the trapezoidal rule."""
        return deletion(task, batch, targets, maps, self.steps, self.fill).areas()


class Insertion(Faithfulness):
    """Areas under the insertion curves of probability and score; larger is better."""

    names = ("probability", "score")
    higher_is_better = True

    def __init__(self, steps: int = 28) -> None:
        super().__init__()
        self.steps = steps

    def measure(
        self, task: Task, batch: Batch, targets: Targets, maps: Float[Tensor, "b r h w"]
    ) -> Float[Tensor, "b r 2"]:
        """Areas by the trapezoidal rule."""
        return insertion(task, batch, targets, maps, self.steps).areas()
