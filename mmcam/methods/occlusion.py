"""Occlusion: how much every score drops when a window of the picture is covered."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.errors import UserError
from mmcam.gradients import of_rows
from mmcam.methods.saliency import PASSING, everyone, room, settled, taken
from mmcam.task import Batch, Targets, Task


def occlusion(
    task: Task,
    batch: Batch,
    targets: Targets | None = None,
    window: int | tuple[int, int] = 16,
    stride: int | tuple[int, int] = 8,
    fill: float | Float[Tensor, "#b #c #H #W"] = 0.0,
    memory: int | None = None,
) -> Float[Tensor, "b r H W"]:
    """Occlusion (Zeiler and Fergus, arXiv 1311.2901): how much every row's score drops when a window is covered.

    All rows are scored in the same forward. A pixel gets the mean over the windows that cover it, as in captum.

    Args:
        task: See `mmcam.pixels.pixel_gradients`, also for the others.
        batch: The samples.
        targets: What to explain.
        window: Its height and width in pixels of the network's input.
        stride: How far it moves; at most its size, or pixels would be left out. The last one may reach over the edge.
        fill: What covers, in the network's input, where zero is the mean colour.
        memory: Bytes that one pass may take, roughly.

    Returns:
        y(picture) - y(covered picture).

    Raises:
        UserError: The window or the stride is not positive, or the stride is larger than the window.
    """
    return occluded(task, batch, targets, window, stride, fill, memory)[1]


def occluded(
    task: Task,
    batch: Batch,
    targets: Targets | None = None,
    window: int | tuple[int, int] = 16,
    stride: int | tuple[int, int] = 8,
    fill: float | Float[Tensor, "#b #c #H #W"] = 0.0,
    memory: int | None = None,
) -> tuple[Float[Tensor, "b r"], Float[Tensor, "b r H W"]]:
    """The scores of the whole pictures, and `occlusion`, which needs them."""
    side, step = _pair(window), _pair(stride)
    if min(*side, *step) < 1 or step[0] > side[0] or step[1] > side[1]:
        raise UserError(f"expected a window of at least a pixel and a stride up to its size, got {side} and {step}")
    with settled(task, batch, targets) as (batch, targets), torch.no_grad():
        cover = torch.as_tensor(fill, dtype=batch.images.dtype, device=batch.images.device).expand_as(batch.images)
        parts = everyone(batch).split(room(batch, memory, PASSING))
        found = [_occlusion(task, *taken(batch, targets, i), cover[i], side, step, memory) for i in parts]
        return torch.cat([whole for whole, _ in found]), torch.cat([drops for _, drops in found])


def row_scores(task: Task, batch: Batch, targets: Targets) -> Float[Tensor, "b r"]:
    """The score of every row, without a graph; zero for padded rows."""
    with settled(task, batch, targets) as (batch, targets), torch.no_grad():
        return _row_scores(task, batch, targets)


def _occlusion(
    task: Task,
    batch: Batch,
    targets: Targets,
    cover: Float[Tensor, "b c H W"],
    side: tuple[int, int],
    step: tuple[int, int],
    memory: int | None,
) -> tuple[Float[Tensor, "b r"], Float[Tensor, "b r H W"]]:
    """`occluded` of one part of a batch."""
    b, _, height, width = batch.images.shape
    windows = [
        (slice(top, top + side[0]), slice(left, left + side[1]))
        for top in _starts(height, side[0], step[0])
        for left in _starts(width, side[1], step[1])
    ]
    whole = _row_scores(task, batch, targets)  # (b, r)
    total = whole.new_zeros(*whole.shape, height, width)
    count = whole.new_zeros(height, width)
    many = max(1, room(batch, memory, PASSING) // b)
    for start in range(0, len(windows), many):
        some = windows[start : start + many]
        index = everyone(batch).repeat(len(some))
        images = batch.images.repeat(len(some), 1, 1, 1)
        for covered, place in zip(images.split(b), some, strict=True):
            covered[:, :, *place] = cover[:, :, *place]
        scores = _row_scores(task, replace(batch.take(index), images=images), targets.take(index))
        for covered, place in zip(scores.split(b), some, strict=True):
            total[:, :, *place] += (whole - covered)[..., None, None]
            count[place] += 1
    return whole, total / count


def _starts(length: int, side: int, step: int) -> range:
    """Where windows begin, so that every pixel is in one."""
    return range(0, max(length - side, 0) + step, step)


def _row_scores(task: Task, batch: Batch, targets: Targets) -> Float[Tensor, "b r"]:
    seen = replace(batch, memo={})
    return of_rows(targets.rows, task.scores(task.trunk(seen), seen, targets))


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value
