"""A batch under explanation, and the ways in which a method may ask the model about it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils._pytree import tree_map_only

from mmcam import gradients
from mmcam.errors import UserError
from mmcam.gradients import channel_weights, full_gradients, of_rows
from mmcam.task import Batch, Targets, Task, vjp_of

Alter = Callable[[Int[Tensor, " n"], Int[Tensor, " n"]], Tensor]
"""(numbers of samples, numbers of alterations) → what the model shall see instead, one each."""

HEADS_AT_ONCE, PICTURES_AT_ONCE = 256, 32


class Subject:
    """What a method works on: the activations of a batch, and the model that can be asked about them again.

    The model runs under the autocast of the caller, whatever a method sets, and in passes that fit into the memory.

    Attributes:
        rows: Coefficients (b, r, t) of the explained scores.
        vjp: How the task differentiates.
    """

    def __init__(
        self, task: Task, activations: Float[Tensor, "b k h w"] | None, batch: Batch, targets: Targets
    ) -> None:
        """Take what is explained; everything must lie on one device.

        Args:
            task: The adapter, in eval mode.
            activations: What its trunk gave; if None, the trunk runs when a method or its caller asks for them.
            batch: The samples, with the trunk's memo.
            targets: What is explained.
        """
        self.rows, self.vjp = targets.rows, vjp_of(task)
        self._task, self._activations, self._batch, self._targets = task, activations, batch, targets
        kind = targets.rows.device.type
        self._autocast = {
            "device_type": kind,
            "enabled": torch.is_autocast_enabled(kind),
            "dtype": torch.get_autocast_dtype(kind),
            "cache_enabled": torch.is_autocast_cache_enabled(),
        }
        self._y: Tensor | None = None
        self._gradients: Tensor | None = None

    @property
    def images(self) -> Float[Tensor, "b c H W"]:
        """The network's input; a `UserError` if that is no picture a sample."""
        return self._batch.pictures

    @property
    def activations(self) -> Float[Tensor, "b k h w"]:
        """A, without a graph."""
        if self._activations is None:
            batch = replace(self._batch, memo={})
            with torch.no_grad(), self.as_called():
                activations = self._task.trunk(batch).detach()
            check(activations, batch, self._task.layer)
            self._activations, self._batch = activations, batch
        return self._activations

    @property
    def asked(self) -> tuple[Task, Batch, Targets]:
        """Task, samples and targets, for methods that begin at the pixels."""
        return self._task, self._batch, self._targets

    def head(self, x: Float[Tensor, "n k h w"], index: Int[Tensor, " n"]) -> Float[Tensor, "n t"]:
        """The scores of all ids; an index as long as the batch is all of it, in order."""
        if len(index) == len(self._batch):
            return self._scores(x, self._batch, self._targets)
        return self._scores(x, self._batch.take(index), self._targets.take(index))

    def weights(self) -> Float[Tensor, "b r k"]:
        """α of every row: the spatial mean of ∂y/∂A."""
        y, weights = channel_weights(self.head, self.activations, self.rows, self.vjp)
        self.scored(of_rows(self.rows, y))
        places = self._batch.memo.get("places")
        if places is None:
            return weights
        # The mean is over the places that there are, not over the padding.
        return weights * (self.activations[0, 0].numel() / places.to(weights))[:, None, None]

    def gradients(self) -> Float[Tensor, "b r k h w"]:
        """∂y/∂A of every row."""
        if self._gradients is None:
            y, self._gradients = full_gradients(self.head, self.activations, self.rows, self.vjp)
            self.scored(of_rows(self.rows, y))
        return self._gradients

    def scores(self) -> Float[Tensor, "b r"]:
        """The score of every row."""
        if self._y is None:
            with torch.no_grad():
                b, _, t = self.rows.shape
                everyone = torch.arange(b, device=self.rows.device)
                y = self.head(self.activations, everyone) if self.rows.numel() else self.rows.new_zeros(b, t)
                self.scored(of_rows(self.rows, y))
        assert self._y is not None
        return self._y

    def scored(self, scores: Float[Tensor, "b r"]) -> None:
        """Note the score of every row, which a method's own pass through the model gave."""
        self._y = scores.detach()

    def ran(self, activations: Float[Tensor, "b k h w"], batch: Batch) -> None:
        """Note the activations, and the samples with the trunk's memo, which a method's own pass gave."""
        if self._activations is None:
            memo = tree_map_only(Tensor, Tensor.detach, batch.memo)
            self._activations, self._batch = activations.detach(), replace(self._batch, memo=memo)

    def scores_of_altered(self, count: int, alter: Alter) -> Float[Tensor, "b n r"]:
        """Let the head see other activations: `count` alterations of every sample, in passes that fit into the memory.

        Args:
            count: How many.
            alter: Makes the activations (n, k, h, w) that some of the passes see.

        Returns:
            The scores of every row.
        """
        per_sample = 4 * self.activations[:1].numel() * self.activations.element_size()
        step = max(1, min(HEADS_AT_ONCE, gradients.MEMORY // max(1, per_sample)))
        parts = []
        for index, number in self._copies(count, step):
            targets = self._targets.take(index)
            with torch.no_grad():
                y = self._scores(alter(index, number), self._batch.take(index), targets)
            parts.append(of_rows(targets.rows, y))
        return self._joined(parts, count)

    def scores_of_pictures(self, count: int, alter: Alter) -> Float[Tensor, "b n r"]:
        """Let the whole model see other pictures: `count` alterations of every sample, some at a time.

        Args:
            count: How many.
            alter: Makes the pictures (n, c, H, W) that some of the passes see.

        Returns:
            The scores of every row.
        """
        parts = [
            self.see(alter(index, number), index).scores() for index, number in self._copies(count, PICTURES_AT_ONCE)
        ]
        return self._joined(parts, count)

    def see(self, images: Float[Tensor, "n c H W"], index: Int[Tensor, " n"]) -> "Subject":
        """Run the trunk on other pictures.

        Args:
            images: The pictures; of the size of the others.
            index: Whose question, caption and targets each has.

        Returns:
            The same for these pictures.
        """
        batch = replace(replace(self._batch, memo={}).take(index), images=images.to(self.images.dtype), memo={})
        with self.as_called():
            with torch.no_grad():
                activations = self._task.trunk(batch).detach().to(self.activations.dtype)
            return Subject(self._task, activations, batch, self._targets.take(index))

    def _copies(self, count: int, step: int) -> Iterator[tuple[Int[Tensor, " n"], Int[Tensor, " n"]]]:
        """Numbers of samples and of their alterations; none if there is nothing to explain."""
        everything = torch.arange(len(self.rows) * count if self.rows.numel() else 0, device=self.rows.device)
        for some in everything.split(step) if len(everything) else ():
            yield some // count, some % count

    def _joined(self, parts: list[Tensor], count: int) -> Float[Tensor, "b n r"]:
        b, r, _ = self.rows.shape
        return torch.cat(parts).unflatten(0, (b, count)) if parts else self.activations.new_zeros(b, count, r)

    def _scores(self, x: Float[Tensor, "n k h w"], batch: Batch, targets: Targets) -> Float[Tensor, "n t"]:
        with self.as_called():
            return self._task.scores(x, batch, targets)

    def as_called(self) -> AbstractContextManager[object]:
        """The caller's autocast."""
        return torch.autocast(**self._autocast)


def check(activations: Tensor, batch: Batch, layer: str) -> None:
    """Refuse activations that are no maps.

    Raises:
        UserError: The layer's output is not (b, k, h, w), or its maps have one place only.
    """
    if activations.ndim != 4 or len(activations) != len(batch):
        raise UserError(
            f"layer {layer!r} must give maps of shape (b, k, h, w) with b = {len(batch)}; "
            f"got {tuple(activations.shape)}; choose a layer before pooling"
        )
    if activations.shape[2] * activations.shape[3] == 1:
        raise UserError(f"layer {layer!r} gives 1 x 1 maps, which cannot say where; choose an earlier layer")
