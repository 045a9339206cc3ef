"""Gradients at single pixels and what is made of them: Guided Grad-CAM, integrated and smoothed gradients.

Each is a function (task, batch, targets) → one number a channel and pixel of the network's input, signed, for every row
of every picture; `channel_sum` and `channel_maximum` make maps of them. `pixel_gradients` (`mmcam.methods.saliency`)
is the plain gradient (rule "plain"), guided backpropagation ("guided") and the deconvnet ("deconv").
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import interpolate

from mmcam.cam import grad_cam
from mmcam.errors import UserError
from mmcam.gradients import channel_weights
from mmcam.methods.guided import Rule
from mmcam.methods.saliency import GRAPH, Part, by_parts, everyone, pixel_gradients, room, settled, taken
from mmcam.task import Batch, Targets, Task, vjp_of

__all__ = [
    "Rule",
    "channel_maximum",
    "channel_sum",
    "guided_grad_cam",
    "integrated_gradients",
    "own_targets",
    "pixel_gradients",
    "smooth_grad",
    "times_grad_cam",
    "times_maps",
]


def guided_grad_cam(
    task: Task,
    batch: Batch,
    targets: Targets | None = None,
    rule: Rule = "guided",
    seeing: Sequence[str] | None = None,
    memory: int | None = None,
) -> Float[Tensor, "b r c H W"]:
    """Guided Grad-CAM (Selvaraju et al., arXiv 1610.02391, section 3.1): guided backpropagation times Grad-CAM.

    Grad-CAM itself is made of plain gradients. With rule "deconv" this is the paper's Deconvolution Grad-CAM.

    Args:
        task: See `pixel_gradients`, also for the others.
        batch: The samples.
        targets: What to explain.
        rule: Of the pixels' gradients.
        seeing: Modules of the head that follow it.
        memory: Bytes that one pass may take, roughly.

    Returns:
        The signed product.
    """
    return by_parts(task, batch, targets, rule, seeing, memory, lambda part: times_grad_cam(task, part))


def times_grad_cam(task: Task, part: Part) -> Float[Tensor, "b r c H W"]:
    """Multiply a part's gradients at pixels with its Grad-CAM, which is made of plain gradients."""

    def head(x: Float[Tensor, "n k h w"], index: Int[Tensor, " n"]) -> Float[Tensor, "n t"]:
        return task.scores(x, *taken(part.batch, part.targets, index))

    _, weights = channel_weights(head, part.activations, part.targets.rows, vjp_of(task))
    return times_maps(part.gradients, grad_cam(weights, part.activations))


def times_maps(gradients: Float[Tensor, "b r c H W"], maps: Float[Tensor, "b r h w"]) -> Float[Tensor, "b r c H W"]:
    """Multiply gradients at pixels with the positive part of coarser maps.

    Args:
        gradients: At the network's input.
        maps: At the layer's resolution; ReLU, then brought to the input's size bilinearly.

    Returns:
        The product.
    """
    rows = maps.relu().flatten(0, 1)[:, None]  # of a channel each: there may be none, channels there must be
    large = interpolate(rows, gradients.shape[3:], mode="bilinear", align_corners=False)
    return gradients * large.unflatten(0, gradients.shape[:2]).to(gradients.dtype)


def integrated_gradients(
    task: Task,
    batch: Batch,
    targets: Targets | None = None,
    baseline: float | Float[Tensor, "#b #c #H #W"] = 0.0,
    steps: int = 50,
    memory: int | None = None,
) -> Float[Tensor, "b r c H W"]:
    """Integrated gradients (Sundararajan et al., arXiv 1703.01365, Eq. 1), by Gauss-Legendre quadrature like captum's.

    (x - x') ∫ ∂y/∂x at x' + a (x - x') da over a from 0 to 1. The sum over pixels and channels is y(x) - y(x').

    Args:
        task: See `pixel_gradients`, also for the others.
        batch: The samples.
        targets: What to explain; `own_targets` of the pictures themselves if not given.
        baseline: x', in the network's input, where zero is the mean colour.
        steps: Number of places on the way.
        memory: Bytes that one pass may take, roughly.

    Returns:
        Signed contributions.
    """
    nodes, weights = np.polynomial.legendre.leggauss(_positive("steps", steps))
    with settled(task, batch, targets) as (batch, targets):
        start = torch.as_tensor(baseline, dtype=batch.images.dtype, device=batch.images.device)
        way = batch.images - start
        mean = _weighted(
            task, batch, targets, lambda i: start + float(1 + nodes[i]) / 2 * way, (weights / 2).tolist(), memory=memory
        )
        return way[:, None] * mean


def smooth_grad(
    task: Task,
    batch: Batch,
    targets: Targets | None = None,
    rule: Rule = "plain",
    samples: int = 16,
    noise: float = 0.15,
    seed: int = 0,
    seeing: Sequence[str] | None = None,
    memory: int | None = None,
) -> Float[Tensor, "b r c H W"]:
    """SmoothGrad (Smilkov et al., arXiv 1706.03825): the mean gradient over noisy copies of the picture.

    Args:
        task: See `pixel_gradients`, also for the others.
        batch: The samples.
        targets: What to explain; `own_targets` of the pictures themselves if not given.
        rule: Of the gradients; the paper smooths guided backpropagation too.
        samples: Number of copies.
        noise: Standard deviation, as a part of each picture's range (its maximum less its minimum).
        seed: Of the noise, which is the same for every picture of a batch and on every device.
        seeing: Modules of the head that follow the rule.
        memory: Bytes that one pass may take, roughly.

    Returns:
        Signed gradients.
    """
    count = _positive("samples", samples)
    generator = torch.Generator().manual_seed(seed)
    with settled(task, batch, targets) as (batch, targets):
        x = batch.images
        spread = noise * (x.amax((1, 2, 3), keepdim=True) - x.amin((1, 2, 3), keepdim=True))

        def noisy(_: int) -> Tensor:
            return x + spread * torch.randn(x.shape[1:], generator=generator).to(x)

        return _weighted(task, batch, targets, noisy, [1 / count] * count, rule, seeing, memory)


def channel_sum(gradients: Float[Tensor, "b r c H W"]) -> Float[Tensor, "b r H W"]:
    """Signed maps: the sum over the channels."""
    return gradients.sum(2)


def channel_maximum(gradients: Float[Tensor, "b r c H W"]) -> Float[Tensor, "b r H W"]:
    """Maps of how much, not of which sign: the largest magnitude over the channels (Simonyan et al., section 3)."""
    return gradients.abs().amax(2)


def own_targets(task: Task, batch: Batch) -> Targets:
    """What the model itself says of the samples, on the task's device."""
    with settled(task, batch, None) as (_, targets):
        return targets


def _weighted(
    task: Task,
    batch: Batch,
    targets: Targets,
    images: Callable[[int], Float[Tensor, "b c H W"]],
    weights: Sequence[float],
    rule: Rule = "plain",
    seeing: Sequence[str] | None = None,
    memory: int | None = None,
) -> Float[Tensor, "b r c H W"]:
    """Σ_i weights_i ∂y/∂x at images(i), several of them at once."""
    step = max(1, room(batch, memory, GRAPH) // max(1, len(batch)))
    total = torch.zeros(())
    for numbers in torch.arange(len(weights)).split(step):
        index = everyone(batch).repeat(len(numbers))
        copies = replace(batch.take(index), images=torch.cat([images(i) for i in numbers.tolist()]))
        gradients = pixel_gradients(task, copies, targets.take(index), rule, seeing, memory)
        factors = torch.tensor(weights, dtype=gradients.dtype, device=gradients.device)[numbers]
        total = total.to(gradients) + torch.tensordot(factors, gradients.unflatten(0, (len(numbers), -1)), 1)
    return total


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise UserError(f"expected {name} of at least 1, got {value}")
    return value
