"""The methods of pixel space as maps, so that `explain` finds them by name like any other.

Gradients lose their sign (the largest magnitude over the colours, as in Simonyan et al., section 3): that of a pixel
says whether it should be lighter, not whether it speaks for the word. What is a part of the score keeps it.

All begin at the pixels and run the trunk themselves. Where one sees the pictures as they are, the scores are of that
pass; integrated gradients and SmoothGrad, which never do, take one more of their 50 and 16.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.gradients import of_rows
from mmcam.methods.guided import Rule
from mmcam.methods.occlusion import occluded
from mmcam.methods.saliency import Part, by_parts
from mmcam.methods.subject import Subject, check
from mmcam.pixels import channel_maximum, channel_sum, integrated_gradients, smooth_grad, times_grad_cam
from mmcam.task import Task

__all__ = ["FROM_PIXELS"]


def _gradients(task: Task, part: Part) -> Float[Tensor, "b r c H W"]:
    return part.gradients


def _times_grad_cam(task: Task, part: Part) -> Float[Tensor, "b r c H W"]:
    check(part.activations, part.batch, task.layer)
    return times_grad_cam(task, part)


def _backwards(
    subject: Subject, rule: Rule, finish: Callable[[Task, Part], Tensor] = _gradients
) -> Float[Tensor, "b r H W"]:
    """The largest magnitude of what is made of the gradients, and the scores on the way."""
    task, batch, targets = subject.asked
    scores = []

    def noting(part: Part) -> Float[Tensor, "b r H W"]:
        scores.append(of_rows(part.targets.rows, part.scores))
        return channel_maximum(finish(task, part))

    with subject.as_called():
        maps = by_parts(task, batch, targets, rule, None, None, noting)
    subject.scored(torch.cat(scores))
    return maps


def _smooth_grad(subject: Subject) -> Float[Tensor, "b r H W"]:
    with subject.as_called():
        return channel_maximum(smooth_grad(*subject.asked))


def _integrated_gradients(subject: Subject) -> Float[Tensor, "b r H W"]:
    with subject.as_called():
        return channel_sum(integrated_gradients(*subject.asked))


def _occlusion(subject: Subject) -> Float[Tensor, "b r H W"]:
    side = max(1, round(min(subject.images.shape[2:]) / 5))  # 45 of 224 pixels
    with subject.as_called():
        scores, drops = occluded(*subject.asked, window=side, stride=max(1, side // 2))
    subject.scored(scores)
    return drops


FROM_PIXELS: Mapping[str, Callable[[Subject], Tensor]] = {
    "gradient": partial(_backwards, rule="plain"),
    "guided_backprop": partial(_backwards, rule="guided"),
    "deconvnet": partial(_backwards, rule="deconv"),
    "guided_grad_cam": partial(_backwards, rule="guided", finish=_times_grad_cam),
    "deconv_grad_cam": partial(_backwards, rule="deconv", finish=_times_grad_cam),
    "smooth_grad": _smooth_grad,
    "integrated_gradients": _integrated_gradients,
    "occlusion": _occlusion,
}
