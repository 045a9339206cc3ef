"""Of two models that say the same and are right, do the maps tell the better one?"""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch

from mmcam.engine import explain_activations
from mmcam.errors import UserError
from mmcam.evaluation.compare import means_by_unit
from mmcam.evaluation.evaluate import Evaluation
from mmcam.evaluation.runs import explained
from mmcam.evaluation.tables import Table
from mmcam.experiments import Experiment
from mmcam.experiments.judged import higher
from mmcam.experiments.pairs import differences
from mmcam.metrics.base import Figure, summarise
from mmcam.metrics.mass import MassAccuracy
from mmcam.metrics.overlap import IoU
from mmcam.metrics.pointing import Pointing
from mmcam.task import Task
from mmcam.truth import Truth

__all__ = ["Trust", "weaken"]


class Trust(Experiment):
    """A model against itself with noise on its weights, on pictures where both give the same right answer first.

    The share of pictures in which the stronger model's map lies better stands where the paper asked people which model
    they would trust. Each noise makes another weaker model, and they differ more than the pictures' intervals say;
    therefore there are several, side by side.
    """

    paper = (
        "AlexNet (69.20 mAP) against VGG-16 (79.09 mAP) on pictures that both get right: on a scale of -2 to 2, 54 "
        "people preferred VGG-16 by 1.27 when shown Guided Grad-CAM, by 1.00 when shown Guided Backpropagation. A "
        "replication got 0.44 and 0.27, with standard deviations of about 1.3."
    )

    def __init__(self, noise: float = 0.6, draws: int = 5, method: str = "grad_cam") -> None:
        """Say how much weaker the weaker one is.

        Args:
            noise: Standard deviation of the noise on each weight tensor, as a part of the tensor's own.
            draws: Number of weaker models.
            method: Name of the method.

        Raises:
            UserError: There would be no noise, or no weaker model.
        """
        if noise <= 0 or draws < 1:
            raise UserError(f"expected noise above 0 and 1 draw at least, got {noise} and {draws}")
        self.noise, self.draws, self.method = noise, draws, method

    def run(self, task: Task, truth: Truth, *, limit: int, seed: int) -> list[Table]:
        """Explain the first answer of both models.

        Args:
            task: The stronger model.
            truth: Says where the things are; an answer is right if it names one.
            limit: Use the first pictures only.
            seed: Of the noise.
        """
        metrics = {"pointing": Pointing(), "mass": MassAccuracy(), "iou": IoU(0.15)}
        weaker = {f"weaker {i + 1}": weaken(task, self.noise, seed + i) for i in range(self.draws)}
        evaluations = {name: Evaluation(metrics, truth, seed=seed) for name in weaker}
        right: dict[str, list[float]] = {name: [] for name in ("stronger", *weaker)}
        for some in explained(task, truth, [], limit=limit):
            found, answers = {}, {}
            for name, model in {"stronger": task, **weaker}.items():
                batch = replace(some.batch, memo={})
                with torch.no_grad():
                    activations = model.trunk(batch)
                    first = model.predict(activations, batch).only([[0]] * len(batch))
                answers[name] = first.words
                found[name] = explain_activations(model, activations, batch, first, self.method)
                pairs = zip(some.numbers, first.words, strict=True)
                right[name] += [float(bool(truth.about(number, words)[0])) for number, words in pairs]
            for name, evaluation in evaluations.items():
                for i, number in enumerate(some.numbers):
                    equal = answers["stronger"][i] == answers[name][i]
                    if equal and truth.about(number, answers[name][i])[0]:
                        evaluation.add(number, {"stronger": found["stronger"][i], name: found[name][i]})
        if not all(evaluation.judged for evaluation in evaluations.values()):
            raise UserError(
                "expected pictures that both models get right, found none; take less noise or more pictures"
            )
        return self._tables(evaluations, right, higher(metrics))

    def _tables(
        self, evaluations: dict[str, Evaluation], right: dict[str, list[float]], better: dict[str, bool]
    ) -> list[Table]:
        conditions = {
            "weaker": f"Gaussian noise on every weight tensor, standard deviation {self.noise:g} of the tensor's own",
            "maps": "of pictures in which both give the same first answer and it is right",
            "method": self.method,
        }
        title = "A stronger and weaker models with equal predictions"
        column = "right, all pictures"
        rows: dict[str, dict[str, Figure]] = {}
        changes: dict[str, dict[str, Any]] = {}
        shares: dict[str, dict[str, Any]] = {}
        notes: tuple[str, ...] = ()
        for name, evaluation in evaluations.items():
            figures = evaluation.figures()
            rows[f"stronger, where {name} says the same"] = {
                column: summarise(torch.tensor(right["stronger"])),
                **figures["stronger"],
            }
            rows[name] = {column: summarise(torch.tensor(right[name])), **figures[name]}
            paired = differences("", evaluation, name, ["stronger"], {})
            changes |= {row: dict(cells) for row, cells in paired.rows.items()}
            notes = paired.notes
            shares[f"stronger is better than {name}, ties half"] = _better(evaluation, name)
        blind = next(iter(evaluations.values())).figures()
        rows |= {row: figures for row, figures in blind.items() if row not in right}
        notes = (*notes, "Better: share of the pictures in which the stronger model's map has the higher value.")
        return [
            Table(title, rows, conditions, (), better),
            Table(f"{title}, paired", {**changes, **shares}, conditions, notes),
        ]


def weaken(task: Task, noise: float, seed: int) -> Task:
    """Copy a task and put noise on its weights.

    Args:
        task: Left as it is.
        noise: Standard deviation, as a part of that of each tensor; tensors of one axis (biases, norms) stay.
        seed: Of the noise.

    Returns:
        The copy.
    """
    weaker = deepcopy(task)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in weaker.parameters():
            if parameter.ndim > 1 and parameter.is_floating_point():
                drawn = torch.randn(parameter.shape, generator=random).to(parameter)
                parameter += noise * parameter.std() * drawn
    return weaker


def _better(evaluation: Evaluation, weaker: str) -> dict[str, Figure]:
    """In what share of the pictures the stronger one has the higher value."""
    cells = {}
    for name in evaluation.rows[weaker]:
        one, two = (means_by_unit(evaluation.rows[row][name]) for row in ("stronger", weaker))
        wins = [(one[unit] > two[unit]) + 0.5 * (one[unit] == two[unit]) for unit in one if unit in two]
        cells[name] = summarise(torch.tensor(wins, dtype=torch.float64))
    return cells
