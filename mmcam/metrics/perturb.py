"""Asking a task about changed pictures, which all metrics of faithfulness do.

Pictures are changed as the network sees them: `Batch.images`, normalised, where 0 is the mean colour. Maps cover
exactly the network's window, so they are brought to the input's size and no further.

What is asked for is the task's own score (`scores`: log-probability of a word under teacher forcing, logit of an
answer) or the probability of what a row is about (`probabilities`). Pictures are made in small groups when their turn
comes, and nothing waits for the device before all are done.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import interpolate

from mmcam.errors import UserError
from mmcam.gradients import of_rows
from mmcam.metrics.base import Columns
from mmcam.task import Batch, Targets, Task, evaluating

__all__ = [
    "Faithfulness",
    "is_constant",
    "on_input",
    "order",
    "probabilities",
    "real_rows",
    "respond",
    "scores",
]

ON_CPU, ELSEWHERE = 8, 64
"""Pictures that pass through the network at once; on a CPU more of them do not fit into its cache."""

Question = Callable[[Task, Tensor, Batch, Targets], Tensor]
"""What is asked of task, activations, batch and targets: one answer a row, (b, r)."""


def scores(task: Task, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets) -> Float[Tensor, "b r"]:
    """Give the score y of each row."""
    return of_rows(targets.rows, task.scores(activations, batch, targets))


def probabilities(
    task: Task, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets
) -> Float[Tensor, "b r"]:
    """Give the probability of what each row is about.

    Of its id; of several ids, such as a sentence, the product; of "a rather than b" that of a; of a row that was turned
    round (`Targets.negative`) that of the row itself.

    Raises:
        UserError: The task does not say.
    """
    p, rows = _floats(task.probabilities(activations, batch, targets)), targets.rows
    about = torch.where((rows > 0).any(2, keepdim=True), rows > 0, rows < 0)
    return p[:, None].masked_fill(~about, 1).prod(2)


def respond(
    task: Task,
    batch: Batch,
    targets: Targets,
    samples: Int[Tensor, " n"],
    images: Callable[[Int[Tensor, " m"]], Float[Tensor, "m c x y"]],
    questions: Sequence[Question],
    chunk: int | None = None,
) -> list[Float[Tensor, "n r"]]:
    """Run trunk and head over changed pictures, without a graph; the task is left as found.

    Args:
        task: The task.
        batch: The samples, on the task's device.
        targets: What is asked about.
        samples: Which sample each picture is a changed one of; on the CPU.
        images: Makes some of the pictures, by their numbers (on the CPU).
        questions: `scores`, `probabilities` or both.
        chunk: Pictures that pass through the network at once; what suits the device if not given.

    Returns:
        For each question the answers of every row of the sample that each picture belongs to; on the task's device.
    """
    if len(targets) != len(batch):
        raise UserError(f"expected targets for {len(batch)} samples, got them for {len(targets)}")
    chunk = chunk or (ON_CPU if task.device.type == "cpu" else ELSEWHERE)
    targets = targets.to(task.device)
    unseen = replace(batch, images=batch.pictures[:, :, :0, :0], memo={})  # the unchanged pictures need not be copied
    answers = [[targets.rows.new_zeros(0, targets.rows.shape[1])] for _ in questions]
    with torch.inference_mode(False), torch.no_grad(), evaluating(task):
        for numbers in torch.arange(len(samples)).split(chunk) if len(samples) else ():
            index = samples[numbers]
            some, asked = replace(unseen.take(index), images=images(numbers)), targets.take(index)
            activations = task.trunk(some)
            for question, found in zip(questions, answers, strict=True):
                found.append(question(task, activations, some, asked))
    return [torch.cat(found) for found in answers]


def _floats(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def real_rows(targets: Targets) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], Bool[Tensor, "b r"]]:
    """Sample and row of every word, and which rows are no padding; on the CPU."""
    real = torch.arange(targets.rows.shape[1]) < torch.tensor([len(words) for words in targets.words])[:, None]
    samples, rows = real.nonzero(as_tuple=True)
    return samples, rows, real


def on_input(maps: Float[Tensor, "b r h w"], batch: Batch) -> Float[Tensor, "b r x y"]:
    """Bring maps to the size of the network's input, bilinearly; what is not finite counts as zero."""
    pictures = batch.pictures
    maps = maps.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).to(pictures.device)
    if 0 in maps.shape:
        return maps.new_zeros(*maps.shape[:2], *pictures.shape[2:])
    large = interpolate(maps, pictures.shape[2:], mode="bilinear", align_corners=False)
    # A constant map shall have no order, not that of rounding errors.
    return torch.where(is_constant(maps)[..., None, None], maps[..., :1, :1], large)


def is_constant(maps: Float[Tensor, "b r h w"]) -> Bool[Tensor, "b r"]:
    """Whether maps tell no place from another; what is not finite counts as zero."""
    flat = maps.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).flatten(2)
    return (flat == flat[..., :1]).all(2)


def order(maps: Float[Tensor, "b r x y"]) -> Int[Tensor, "b r x y"]:
    """Number the pixels of each map from the most salient one, 0; equal ones in reading order."""
    best = maps.flatten(2).argsort(dim=2, descending=True, stable=True)
    numbers = torch.arange(best.shape[2], device=best.device).expand_as(best)
    return torch.empty_like(best).scatter_(2, best, numbers).to(torch.int32).unflatten(2, maps.shape[2:])


class Faithfulness(Columns):
    """A metric that asks the task itself about changed pictures."""

    @abstractmethod
    def measure(
        self, task: Task, batch: Batch, targets: Targets, maps: Float[Tensor, "b r h w"]
    ) -> Float[Tensor, "b r m"]:
        """The values of each map, in the order of `names`; NaN where one is undefined."""

    def update(
        self,
        task: Task,
        batch: Batch,
        targets: Targets,
        maps: Float[Tensor, "b r h w"],
        units: Int[Tensor, " b"],
    ) -> None:
        """Judge the maps of a batch.

        Args:
            task: Is asked about changed pictures.
            batch: The samples.
            targets: What was explained.
            maps: The explanation of each row, before or after ReLU; rows of padding may hold anything.
            units: Number of the picture of each sample.
        """
        samples, rows, _ = real_rows(targets)
        batch = batch.to(task.device)
        values = self.measure(task, replace(batch, images=batch.pictures), targets, maps)
        self.keep(values[samples, rows].float(), units.cpu()[samples], torch.zeros_like(samples))
