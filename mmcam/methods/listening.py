"""A batch whose words are under explanation: what is heard of it, and how the scores depend on that."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmcam import gradients
from mmcam.errors import UserError
from mmcam.gradients import full_gradients, of_rows
from mmcam.methods.subject import HEADS_AT_ONCE
from mmcam.task import Batch, Targets, Task, evaluating, vjp_of

__all__ = ["Ear", "listening"]


class Ear:
    """What is heard of a batch under explanation, and how the scores depend on it.

    The head gets a copy of the activations each time, as its in-place layers may write into what they are given.

    Attributes:
        words: Of each sample; ragged.
        vectors: Theirs, padded.
        copies: How many vectors a sample fit into one pass.
    """

    def __init__(self, task: Task, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets) -> None:
        self.task, self.activations, self.batch, self.targets = task, activations, batch, targets
        with torch.no_grad():
            heard = task.heard(batch, targets)
        self.words, self.vectors = heard.words, heard.vectors.detach()
        self.everyone = torch.arange(len(batch), device=activations.device)
        held = activations[:1].numel() + targets.rows.shape[1] * self.vectors[:1].numel()
        per_sample = 4 * held * activations.element_size()
        self.copies = max(1, min(HEADS_AT_ONCE, gradients.MEMORY // max(1, per_sample)) // max(1, len(batch)))

    def gradients(self, x: Float[Tensor, "bm l d"]) -> Float[Tensor, "bm r l d"]:
        """∂y/∂e of every row at m other vectors a sample, one sample's after the other's."""
        samples = self.everyone.repeat_interleave(len(x) // max(1, len(self.batch)))

        def head(x: Float[Tensor, "n l d"], index: Int[Tensor, " n"]) -> Float[Tensor, "n t"]:
            return self._scores(x, samples[index])

        _, found = full_gradients(head, x, self.targets.rows[samples], vjp_of(self.task))
        return found.to(torch.promote_types(found.dtype, torch.float32))

    def scores(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b r"]:
        """The score of every row, from other vectors."""
        return self._rows(self.task.scores_heard, x)

    def logs(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b r"]:
        """The log-probability of every row, from other vectors."""
        return self._rows(self.task.log_probabilities_heard, x)

    def before(self, others: Float[Tensor, "n c H W"] | None) -> Iterator["Ear"]:
        """The same words and targets before each of some other pictures, the same for all samples; or a blank one."""
        if others is not None and not len(others):
            raise UserError("expected other pictures, got none; leave them out for a blank one")
        images = self.batch.images if others is None else self.batch.pictures
        batches = (
            [self.task.blank(self.batch)]
            if others is None
            else (replace(self.batch, images=picture.to(images).expand_as(images), memo={}) for picture in others)
        )
        for batch in batches:
            with torch.no_grad():
                activations = self.task.trunk(batch).detach().to(self.activations.dtype)
            yield Ear(self.task, activations, batch, self.targets)

    def _rows(self, of: Callable[[Tensor, Batch, Targets, Tensor], Tensor], x: Tensor) -> Float[Tensor, "b r"]:
        rows = self.targets.rows
        b, _, t = rows.shape
        with torch.no_grad():
            y = of(self.activations.clone(), self.batch, self.targets, x) if rows.numel() else rows.new_zeros(b, t)
        return of_rows(rows, y)

    def _scores(self, vectors: Float[Tensor, "n l d"], index: Int[Tensor, " n"]) -> Float[Tensor, "n t"]:
        several = self.everyone.repeat_interleave(len(index) // max(1, len(self.batch)))
        if torch.equal(index, several):  # all of them in order, which may share what is costly about a picture
            return self.task.scores_heard(self.activations.clone(), self.batch, self.targets, vectors)
        return self.task.scores_heard(
            self.activations[index], self.batch.take(index), self.targets.take(index), vectors
        )


@contextmanager
def listening(task: Task, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets) -> Iterator[Ear]:
    """Everything on one device and the model in eval mode, for the length of a call."""
    if len(targets) != len(batch):
        raise UserError(f"expected targets for {len(batch)} samples, got them for {len(targets)}")
    with torch.inference_mode(False), evaluating(task):
        activations = activations.clone() if activations.is_inference() else activations.detach()
        yield Ear(task, activations, batch.to(activations.device), targets.to(activations.device))
