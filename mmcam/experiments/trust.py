"""Of two models that say the same and are right, do the maps tell the better one?"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import torch

from mmcam.compare import means_by_unit
from mmcam.engine import explain_activations
from mmcam.errors import UserError
from mmcam.evaluate import Evaluation
from mmcam.experiments import Experiment
from mmcam.experiments.judged import higher
from mmcam.experiments.pairs import differences
from mmcam.metrics.base import Figure, summarise
from mmcam.metrics.mass import MassAccuracy
from mmcam.metrics.overlap import IoU
from mmcam.metrics.pointing import Pointing
from mmcam.runs import explained
from mmcam.tables import Table
from mmcam.task import Task
from mmcam.truth import Truth

__all__ = ["Trust", "weaken"]


class Trust(Experiment):
    """A model against itself with noise on its weights, on pictures where both give the same right answer first.

    The share of pictures in which the stronger model's map lies better stands where the paper asked people which model
    they would trust.
    """

    paper = (
        "AlexNet (69.20 mAP) against VGG-16 (79.09 mAP) on pictures that both get right: on a scale of -2 to 2, 54 "
        "people preferred VGG-16 by 1.27 when shown Guided Grad-CAM, by 1.00 when shown Guided Backpropagation. A "
        "replication got 0.44 and 0.27, with standard deviations of about 1.3."
    )

    def __init__(self, noise: float = 0.6, method: str = "grad_cam") -> None:
        """Say how much weaker the weaker one is.

        Args:
            noise: Standard deviation of the noise on each weight tensor, as a part of the tensor's own.
            method: Name of the method.

        Raises:
            UserError: There would be no noise.
        """
        if noise <= 0:
            raise UserError(f"expected noise above 0, got {noise}")
        self.noise, self.method = noise, method

    def run(self, task: Task, truth: Truth, *, limit: int, seed: int) -> list[Table]:
        """Explain the first answer of both models.

        Args:
            task: The stronger model.
            truth: Says where the things are; an answer is right if it names one.
            limit: Use the first pictures only.
            seed: Of the noise.
        """
        metrics = {"pointing": Pointing(), "mass": MassAccuracy(), "iou": IoU(0.15)}
        evaluation = Evaluation(metrics, truth, seed=seed)
        models = {"stronger": task, "weaker": weaken(task, self.noise, seed)}
        right: dict[str, list[bool]] = {name: [] for name in models}
        for some in explained(task, truth, [], limit=limit):
            found, answers = {}, {}
            for name, model in models.items():
                batch = replace(some.batch, memo={})
                with torch.no_grad():
                    activations = model.trunk(batch)
                    first = model.predict(activations, batch).only([[0]] * len(batch))
                answers[name] = first.words
                found[name] = explain_activations(model, activations, batch, first, self.method)
                pairs = zip(some.numbers, first.words, strict=True)
                right[name] += [bool(truth.about(number, words)[0]) for number, words in pairs]
            for i, number in enumerate(some.numbers):
                equal = answers["stronger"][i] == answers["weaker"][i]
                if equal and truth.about(number, answers["stronger"][i])[0]:
                    evaluation.add(number, {name: found[name][i] for name in models})
        if not evaluation.judged:
            raise UserError(
                "expected pictures that both models get right, found none; take less noise or more pictures"
            )
        rows: dict[str, dict[str, Figure]] = {
            name: {"right, all pictures": summarise(torch.tensor(right[name]).double())} for name in models
        }
        for name, figures in evaluation.figures().items():
            rows[name] = rows.get(name, {}) | figures
        conditions = {
            "weaker": f"Gaussian noise on every weight tensor, standard deviation {self.noise:g} of the tensor's own",
            "maps": "of pictures in which both give the same first answer and it is right",
            "method": self.method,
        }
        title = "A stronger and a weaker model with equal predictions"
        paired = differences(f"{title}, paired", evaluation, "weaker", ["stronger"], conditions)
        better = {"stronger is better, ties half": _better(evaluation, list(metrics))}
        notes = (*paired.notes, "Better: share of the pictures in which the stronger model's map has the higher value.")
        paired = replace(paired, rows={**paired.rows, **better}, notes=notes)
        return [Table(title, rows, conditions, (), higher(metrics)), paired]


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


def _better(evaluation: Evaluation, metrics: Sequence[str]) -> dict[str, Figure]:
    """In what share of the pictures the stronger one has the higher value."""
    cells = {}
    for name in metrics:
        one, two = (means_by_unit(evaluation.rows[row][name]) for row in ("stronger", "weaker"))
        wins = [(one[unit] > two[unit]) + 0.5 * (one[unit] == two[unit]) for unit in one if unit in two]
        cells[name] = summarise(torch.tensor(wins, dtype=torch.float64))
    return cells
