"""Finer-CAM: what tells a word, answer or class from those that are most like it; with any method."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmcam.engine import explain, explain_activations
from mmcam.errors import UserError
from mmcam.explanation import Explanation
from mmcam.task import Batch, Sample, Targets, Task, vjp_of

REFERENCES = "finer references"


def explain_finer(
    task: Task,
    batch: Batch,
    targets: Targets,
    references: Int[Tensor, "b t d"],
    *,
    gamma: float = 0.6,
    method: str = "grad_cam",
    activations: Float[Tensor, "b k h w"] | None = None,
) -> list[Explanation]:
    """Finer-CAM (Zhang et al., arXiv 2501.11309): explain y_c - γ/d Σ_i y_i instead of y_c, i being like c.

    As y_c - γ/d Σ_i y_i = (1 - γ) y_c + γ/d Σ_i (y_c - y_i), a task that knows foils (`Targets.rather_than`) can be
    asked for it: captions too, where the references stand in for a word and the words before it stay. γ = 1 with one
    reference is `rather_than` itself, γ = 0 the plain explanation.

    Differs from the paper, which weighs the channels by the gradient of the contrast as Grad-CAM does: any method may
    do so here. pytorch-grad-cam weighs the references by their probability.

    Args:
        task: The adapter.
        batch: The samples.
        targets: What to explain.
        references: Ids that each is compared with, such as `nearest` gives.
        gamma: Strength of the comparison.
        method: Name of a method in `mmcam.methods.table`.
        activations: What `task.trunk(batch)` gave, in eval mode, if it is at hand from looking for references.

    Returns:
        One explanation a sample; its scores are those of the contrast.

    Raises:
        UserError: The references do not belong to the targets, or the targets have foils already.
    """
    if references.shape[:2] != targets.ids.shape or not references.shape[2]:
        raise UserError(
            f"expected references (b, t, d) with (b, t) = {tuple(targets.ids.shape)} like the ids and d of 1 or more; "
            f"got {tuple(references.shape)}"
        )
    if targets.foils is not None:
        raise UserError("expected plain targets, got some with foils; Finer-CAM makes its own out of the references")
    batch = replace(batch, inputs={**batch.inputs, REFERENCES: references.to(batch.images.device)})
    finer = _Finer(task, gamma)
    if activations is not None:
        return explain_activations(finer, activations, batch, targets, method)
    return explain(finer, batch, targets, method)


def nearest(scores: Float[Tensor, "b *t v"], ids: Int[Tensor, "b t"], count: int = 3) -> Int[Tensor, "b t d"]:
    """Find what is scored most like each id, the nearest first; the paper compares with three.

    Args:
        scores: Of all v words, answers or classes: (b, v) where all ids share one distribution, else (b, t, v).
        ids: The targets.
        count: How many; all others if there are fewer.

    Returns:
        Their ids, never the target itself.
    """
    table = scores[:, None].expand(-1, ids.shape[1], -1) if scores.ndim == 2 else scores
    distances = (table - table.gather(2, ids[..., None])).abs().scatter(2, ids[..., None], torch.inf)
    return distances.topk(min(count, table.shape[2] - 1), 2, largest=False).indices


class _Finer(Task):
    """A task whose scores are contrasts with the references that the batch brings."""

    def __init__(self, task: Task, gamma: float) -> None:
        super().__init__()
        self.training = task.training
        self.task, self.gamma = task, gamma
        self.layer, self.separator, self.vjp = task.layer, task.separator, vjp_of(task)

    def collate(self, samples: Sequence[Sample]) -> Batch:
        return self.task.collate(samples)

    def trunk(self, batch: Batch) -> Float[Tensor, "b k h w"]:
        return self.task.trunk(batch)

    def predict(self, activations: Float[Tensor, "b k h w"], batch: Batch) -> Targets:
        return self.task.predict(activations, batch)

    def scores(self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets) -> Float[Tensor, "b t"]:
        references = batch.inputs[REFERENCES].unbind(2)
        # Each time a copy: a head's in-place layers may write into what they are given.
        contrasts = [self.task.scores(activations.clone(), batch, targets.rather_than(foils)) for foils in references]
        alone = self.task.scores(activations.clone(), batch, targets)
        return (1 - self.gamma) * alone + self.gamma * torch.stack(contrasts).mean(0)
