"""One method at one layer after another: how far from the end does a map still say where (section 3.2, figure 13)?"""

from collections.abc import Mapping, Sequence

from mmcam.errors import UserError
from mmcam.evaluation.evaluate import Evaluation
from mmcam.evaluation.runs import explained
from mmcam.evaluation.tables import Table
from mmcam.experiments import Experiment
from mmcam.load import load_task, weights_sha256
from mmcam.metrics.base import Figure, PerMap
from mmcam.metrics.chosen import higher
from mmcam.task import Task
from mmcam.truth import Truth

__all__ = ["Layers"]


class Layers(Experiment):
    """Rows of layers instead of methods."""

    def __init__(
        self,
        title: str,
        config: str,
        layers: Sequence[str],
        metrics: Mapping[str, PerMap],
        method: str = "grad_cam",
        given: bool = True,
        paper: str = "",
    ) -> None:
        """Choose.

        Args:
            title: Of the table.
            config: Of the same task, which is loaded once a layer.
            layers: Their names, from the input on; one at least.
            metrics: By the names of the table's columns.
            method: Name of the method.
            given: Explain what people said: the same words at every layer.
            paper: What the paper did and found.

        Raises:
            UserError: No layer is named.
        """
        if not layers:
            raise UserError(f"{title}: expected layers, got none; name them from the input on")
        self.title, self.config, self.layers, self.metrics = title, config, tuple(layers), dict(metrics)
        self.method, self.given, self.paper = method, given, paper

    def run(self, task: Task, truth: Truth, *, limit: int, seed: int) -> list[Table]:
        """Explain at every layer and judge; the last rows are the baselines at the last layer.

        Raises:
            UserError: `config` is of another model than the task, or no word names a thing.
        """
        rows: dict[str, dict[str, Figure]] = {}
        for layer in self.layers:
            one = load_task(self.config, device=str(task.device), layer=layer)
            if weights_sha256(one) != weights_sha256(task):
                raise UserError(f"config: expected the model of the section 'task:', {self.config} has other weights")
            evaluation = Evaluation(self.metrics, truth, seed=seed)
            for some in explained(one, truth, [self.method], given=self.given, limit=limit):
                for number, explanations in zip(some.numbers, some.explanations, strict=True):
                    evaluation.add(number, explanations)
            if not evaluation.judged:
                raise UserError(f"{self.title}: no word of {limit} samples names a thing of its picture")
            figures = evaluation.figures()
            rows[layer] = figures.pop(self.method)
            if layer == self.layers[-1]:
                rows |= figures
        conditions = {
            "method": self.method,
            "explained": "what people said" if self.given else "what the model says",
            "layer": "that of the row; of the baselines the last one",
        }
        return [Table(self.title, rows, conditions, (), higher(self.metrics))]
