"""A model on a few samples, in float64 where that works, and what a check says of it."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmcam.engine import check, explain_activations
from mmcam.explanation import Explanation
from mmcam.task import Batch, Sample, Targets, Task

OK, FAILED, SKIPPED = "ok", "FAILED", "skipped"


@dataclass(frozen=True)
class Check:
    """What one check found.

    Attributes:
        name: What was checked.
        result: "ok", "FAILED" or "skipped".
        figures: The numbers behind the result, or the reason for skipping.
    """

    name: str
    result: str
    figures: str


@dataclass(frozen=True)
class Case:
    """A model on a few samples, with all that the checks share.

    Attributes:
        task: The model, in eval mode; in float64 where that works.
        batch: The samples.
        activations: A.
        targets: What is explained.
        exact: Whether everything is in float64.
    """

    task: Task
    batch: Batch
    activations: Float[Tensor, "b k h w"]
    targets: Targets
    exact: bool

    def head(self, x: Float[Tensor, "n k h w"], index: Int[Tensor, " n"]) -> Float[Tensor, "n t"]:
        """The scores as a function of the activations of the indexed samples."""
        if len(index) == len(self.batch):
            return self.task.scores(x, self.batch, self.targets)
        return self.task.scores(x, self.batch.take(index), self.targets.take(index))

    def rows(self, x: Float[Tensor, "b k h w"]) -> Float[Tensor, "b r"]:
        """The explained scores, without a graph."""
        with torch.no_grad():
            y = self.task.scores(x, self.batch, self.targets)
        return torch.einsum("brt,bt->br", self.targets.rows.to(y.dtype), y)

    def explained(self) -> list[Explanation]:
        """The explanation of every sample."""
        return explain_activations(self.task, self.activations, self.batch, self.targets)

    def tolerance(self, exact: float, rough: float) -> float:
        """The largest relative error that passes."""
        return exact if self.exact else rough


def case_of(task: Task, samples: Sequence[Sample], texts: Sequence[str]) -> Case:
    """Run the trunk on a copy in float64, or on the task itself where there is no such copy."""
    batch = task.collate(samples)
    targets = task.given(texts, batch) if texts else None
    batch = batch.to(task.device)
    try:
        doubled = copy.deepcopy(task).to(torch.float64).eval()
        return _run(doubled, double(batch), targets, exact=True)
    except (RuntimeError, TypeError, NotImplementedError):
        return _run(task, batch, targets, exact=False)


def _run(task: Task, batch: Batch, targets: Targets | None, *, exact: bool) -> Case:
    with torch.no_grad():
        activations = task.trunk(batch).detach()
        check(activations, batch, task.layer)
        targets = task.predict(activations, batch) if targets is None else targets.to(activations.device)
        case = Case(task, batch, activations, targets, exact)
        # A head that cannot run in float64, or rounds to float32 on its way, shows here.
        if exact and targets.rows.numel() and task.scores(activations, batch, targets).dtype != torch.float64:
            raise TypeError("the scores are not in float64")
    return case


def double(batch: Batch) -> Batch:
    """The same samples in float64."""
    inputs = {name: value.double() if value.is_floating_point() else value for name, value in batch.inputs.items()}
    return replace(batch, images=batch.images.double(), inputs=inputs, memo={})


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference, in units of the largest number expected."""
    if expected.numel() == 0:
        return 0.0
    scale = float(expected.abs().max())
    difference = float((found.to(expected.dtype) - expected).abs().max())
    return difference / scale if scale > 0 else (0.0 if difference == 0 else float("inf"))


def verdict(error: float, tolerance: float) -> str:
    """The result of a check that an error is small."""
    return OK if error <= tolerance else FAILED
