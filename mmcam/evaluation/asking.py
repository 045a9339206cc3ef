"""Maps judged by the model itself: its scores when the places of a map change, its maps when parts are destroyed."""

from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.evaluation.baselines import baselines
from mmcam.evaluation.runs import Explained
from mmcam.explanation import Explanation
from mmcam.metrics.base import Columns, Figure
from mmcam.metrics.perturb import Faithfulness, on_input
from mmcam.metrics.sanity import CHECKS, Randomised
from mmcam.task import Task

__all__ = ["Asking", "Destroying"]


class Asking:
    """Faithfulness of every method and baseline; the pictures that no map changes are asked about once for all rows.

    Attributes:
        rows: Metrics by row and name.
        pictures: Number of samples asked about.
    """

    def __init__(self, metrics: Mapping[str, Faithfulness], *, seed: int = 0, signed: bool = True) -> None:
        """Start.

        Args:
            metrics: By name; each row gets copies.
            seed: Of the random row.
            signed: Whether the explanations have their maps before ReLU, which the flipped row needs.
        """
        self.rows: dict[str, dict[str, Faithfulness]] = {}
        self.pictures = 0
        self._metrics, self._signed = dict(metrics), signed
        self._random = torch.Generator().manual_seed(seed)

    def add(self, task: Task, some: Explained, kept: Sequence[Sequence[int]]) -> None:
        """Ask about some samples.

        Args:
            task: Is asked.
            some: The samples, their targets and explanations.
            kept: For each sample the numbers of the words to ask about.
        """
        every = [{**found, **self._baselines(found)} for found in some.explanations]
        names = list(every[0])
        self.pictures += len(every)
        if not any(kept):
            return
        targets = some.targets.only([list(rows) * len(names) for rows in kept])
        maps = torch.zeros(len(every), targets.rows.shape[1], *some.batch.images.shape[2:])
        for i, (found, rows) in enumerate(zip(every, kept, strict=True)):
            if rows:
                large = [on_input(found[name].maps[None, list(rows)], some.batch)[0] for name in names]
                maps[i, : len(rows) * len(names)] = torch.cat(large).to(maps)
        for name, metric in self._metrics.items():
            values = metric.measure(task, some.batch, targets, maps)  # (b, r, columns)
            for i, rows in enumerate(kept):
                for place, row in enumerate(names):
                    part = values[i, place * len(rows) : (place + 1) * len(rows)]
                    self._keep(row, name, part, some.numbers[i])

    def figures(self) -> dict[str, dict[str, Figure]]:
        """Every column of every metric of every row: "deletion score" and so on."""
        return {row: joined(metrics) for row, metrics in self.rows.items()}

    def _baselines(self, found: Mapping[str, Explanation]) -> dict[str, Explanation]:
        return baselines(next(iter(found.values())), self._random, signed=self._signed)

    def _keep(self, row: str, name: str, values: Float[Tensor, "n m"], number: int) -> None:
        units = torch.full((len(values),), number, dtype=torch.long)
        metric = self.rows.setdefault(row, deepcopy(self._metrics))[name]
        metric.keep(values.float().cpu(), units, torch.zeros_like(units))
        metric._update_count += 1  # else torchmetrics warns that there is nothing to compute


class Destroying:
    """Sanity of some methods: how alike their maps stay when vision, language or the words heard are made random."""

    def __init__(self, methods: Sequence[str], seed: int = 0) -> None:
        """Name the methods."""
        self.rows = {name: {what: Randomised(what, name, seed) for what in CHECKS} for name in methods}
        self.pictures = 0

    def add(self, task: Task, some: Explained) -> None:
        """Destroy and compare."""
        for checks in self.rows.values():
            for check in checks.values():
                check.update(task, some.batch, some.targets, torch.tensor(some.numbers))
        self.pictures += len(some.numbers)

    def figures(self) -> dict[str, dict[str, Figure]]:
        """Of every method, by what was destroyed."""
        return {name: joined(checks) for name, checks in self.rows.items()}


def joined(metrics: Mapping[str, Columns]) -> dict[str, Figure]:
    """The figures of several metrics under one roof: "deletion probability", or "occlusion" where it has one only."""
    figures = {}
    for name, metric in metrics.items():
        columns = metric.compute()
        figures |= {name if len(columns) == 1 else f"{name} {column}": figure for column, figure in columns.items()}
    return figures
