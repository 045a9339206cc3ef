"""Rank correlation with occlusion (Grad-CAM paper, section 3.5): does the map say where a patch hides what matters?

A patch is moved over the picture; the occlusion map is how much the score falls. The explanation is averaged over the
same patches, and the two are ranked. The paper states neither patch nor stride nor fill; ours stand in every result.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from mmcam.errors import UserError
from mmcam.metrics.agreement import spearman
from mmcam.metrics.perturb import Faithfulness, is_constant, on_input, real_rows, respond, scores
from mmcam.task import Batch, Targets, Task

__all__ = ["OcclusionCorrelation", "at_patches", "occlusion_correlation", "occlusion_maps"]


def occlusion_maps(
    task: Task, batch: Batch, targets: Targets, patch: int, stride: int, fill: float = 0.0, chunk: int | None = None
) -> Float[Tensor, "b r u v"]:
    """How much each row's score falls when a patch is hidden; each hidden patch is asked about once for all rows.

    Args:
        task: Is asked.
        batch: The samples.
        targets: The words, answers or classes.
        patch: Side of the patch, in pixels of the network's input.
        stride: From one patch to the next, both ways; all lie inside the picture.
        fill: What stands in the patch, in the network's normalised space.
        chunk: Pictures that pass through the network at once; what suits the device if not given.

    Returns:
        y of the picture less y with the patch hidden; NaN for padding.

    Raises:
        UserError: The patch does not fit.
    """
    batch = batch.to(task.device)
    b, (height, width) = len(batch), batch.images.shape[2:]
    if not 0 < patch <= min(height, width) or stride < 1:
        raise UserError(
            f"expected a patch of 1 to {min(height, width)} pixels and a stride of at least 1, got {patch} and {stride}"
        )
    real = real_rows(targets)[2].to(task.device)
    tops, lefts = torch.arange(0, height - patch + 1, stride), torch.arange(0, width - patch + 1, stride)
    u, v = len(tops), len(lefts)
    sample = torch.cat([torch.arange(b), torch.arange(b).repeat_interleave(u * v)])
    # A patch below the picture hides nothing: the whole pictures come first.
    top = torch.cat([torch.full((b,), height), tops.repeat_interleave(v).repeat(b)])
    left = torch.cat([torch.zeros(b, dtype=torch.long), lefts.repeat(u * b)])
    y, x = torch.arange(height)[:, None], torch.arange(width)

    def images(numbers: Tensor) -> Tensor:
        t, s = top[numbers, None, None], left[numbers, None, None]
        hidden = (y >= t) & (y < t + patch) & (x >= s) & (x < s + patch)  # (m, x, y)
        return batch.images[sample[numbers]].masked_fill(hidden[:, None].to(task.device), fill)

    (said,) = respond(task, batch, targets, sample, images, [scores], chunk)
    drops = said[:b, None] - said[b:].unflatten(0, (b, u * v))  # (b, u·v, r)
    return drops.mT.unflatten(2, (u, v)).masked_fill(~real[..., None, None], float("nan"))


def at_patches(maps: Float[Tensor, "b r h w"], batch: Batch, patch: int, stride: int) -> Float[Tensor, "b r u v"]:
    """Mean of each map inside the same patches."""
    large = on_input(maps, batch)
    if not large.numel():
        return large[..., :1, :1]
    means = avg_pool2d(large, patch, stride)
    return torch.where(is_constant(maps)[..., None, None].to(means.device), large[..., :1, :1], means)


def occlusion_correlation(
    occluded: Float[Tensor, "b r u v"], explained: Float[Tensor, "b r u v"]
) -> Float[Tensor, "b r"]:
    """Spearman's rank correlation of occlusion maps and explanations.

    NaN where the occlusion map is constant, since no patch mattered more than another; 0 where the explanation is.
    """
    b, r = occluded.shape[:2]
    pairs = occluded.flatten(2).flatten(0, 1), explained.flatten(2).flatten(0, 1)
    values = spearman(*pairs).view(b, r)
    known = ~is_constant(occluded) & ~occluded.isnan().flatten(2).any(2)
    return torch.where(known, values.nan_to_num(nan=0.0), float("nan"))


class OcclusionCorrelation(Faithfulness):
    """Rank correlation with the occlusion map; larger is better."""

    names = ("spearman",)
    higher_is_better = True

    def __init__(self, patch: int | None = None, stride: int | None = None, fill: float = 0.0) -> None:
        """Choose the patch.

        Args:
            patch: Its side; a fifth of the picture's shorter side if not given (45 of 224 pixels).
            stride: From one patch to the next; half a patch if not given.
            fill: What stands in it.
        """
        super().__init__()
        self.patch, self.stride, self.fill = patch, stride, fill

    def measure(
        self, task: Task, batch: Batch, targets: Targets, maps: Float[Tensor, "b r h w"]
    ) -> Float[Tensor, "b r 1"]:
        """Of each map."""
        batch = batch.to(task.device)
        patch = self.patch or max(1, round(min(batch.images.shape[2:]) / 5))
        stride = self.stride or max(1, patch // 2)
        occluded = occlusion_maps(task, batch, targets, patch, stride, self.fill)
        return occlusion_correlation(occluded, at_patches(maps, batch, patch, stride))[..., None]
