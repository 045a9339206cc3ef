"""One pass over explained samples: maps, sayings, the model's own scores and its destroyed parts, as tables."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mmcam.errors import UserError
from mmcam.evaluation.asking import Asking, Destroying
from mmcam.evaluation.evaluate import Evaluation
from mmcam.evaluation.runs import Explained
from mmcam.evaluation.tables import Table
from mmcam.explanation import Explanation
from mmcam.metrics.chosen import MetricSet, higher
from mmcam.task import Task
from mmcam.truth import Truth

__all__ = ["Amounts", "Some", "judge"]

Some = tuple[tuple[int, ...], tuple[dict[str, Explanation], ...], Explained | None]
"""Numbers of samples, their explanations by method, and what the model made of them, if it is to be asked."""


@dataclass(frozen=True)
class Amounts:
    """How much is judged.

    Attributes:
        right_only: Only maps of right answers.
        faithful: Ask the model about so many of the first samples.
        sanity: Destroy parts of it for so many of the first samples.
        seed: Of everything random.
    """

    right_only: bool = False
    faithful: int = 0
    sanity: int = 0
    seed: int = 0


def judge(
    samples: Iterable[Some],
    truth: Truth,
    metrics: MetricSet,
    amounts: Amounts,
    *,
    task: Task | None = None,
    methods: Sequence[str] = (),
    signed: bool = True,
    who: str = "model",
) -> tuple[list[Table], Evaluation]:
    """Judge explained samples.

    Args:
        samples: Some at a time.
        truth: About them.
        metrics: By what; the names are the tables' columns.
        amounts: How much.
        task: The model, if it is to be asked.
        methods: Whose maps are compared when parts are destroyed.
        signed: Whether there are maps before ReLU.
        who: Said it, "model" or "people": the row of the table of what was said.

    Returns:
        The tables, that of the maps first, unless no word names a thing; and the judged maps.

    Raises:
        UserError: There is nothing to judge.
    """
    evaluation = Evaluation(metrics.maps, truth, seed=amounts.seed, signed=signed, right_only=amounts.right_only)
    asking = Asking(metrics.scores, seed=amounts.seed, signed=signed)
    destroying = Destroying(methods if amounts.sanity else (), amounts.seed)
    for numbers, found, some in samples:
        kept = [evaluation.add(*pair) for pair in zip(numbers, found, strict=True)]
        if task is None or some is None:
            continue
        if left := max(amounts.faithful - asking.pictures, 0):
            asking.add(task, some.first(left), kept[:left])
        if left := max(amounts.sanity - destroying.pictures, 0):
            destroying.add(task, some.first(left))
    tables = []
    if evaluation.judged:
        note = f"{evaluation.skipped} samples without a word that names a thing are left out."
        tables.append(Table("Maps against the truth", evaluation.figures(), {}, (note,), higher(metrics.maps)))
    if said := evaluation.said():
        tables.append(Table("What was said", {who: said}))
    if not tables:
        raise UserError("expected words that name things of their pictures, found none: nothing to judge")
    if asking.rows:
        note = f"The first {asking.pictures} samples; the words that name things."
        tables.append(Table("Maps against the model's own scores", asking.figures(), {}, (note,)))
    if destroying.rows:
        note = f"The first {destroying.pictures} samples, all words. At 1 a map does not depend on what is destroyed."
        tables.append(Table("Maps when parts are destroyed", destroying.figures(), {}, (note,)))
    return tables, evaluation
