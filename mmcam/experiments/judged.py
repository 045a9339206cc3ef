"""The experiments that hold maps against the truth: most of them are a choice of metrics and methods."""

from collections.abc import Mapping, Sequence

from mmcam.errors import UserError
from mmcam.evaluation.evaluate import Evaluation
from mmcam.evaluation.runs import explained
from mmcam.evaluation.tables import Table
from mmcam.experiments import Experiment
from mmcam.metrics.base import PerMap
from mmcam.metrics.chosen import higher
from mmcam.task import Task
from mmcam.truth import Truth

__all__ = ["Judged"]


class Judged(Experiment):
    """Methods and baselines under some metrics."""

    def __init__(
        self,
        title: str,
        metrics: Mapping[str, PerMap],
        methods: Sequence[str] = ("grad_cam", "activation_norm"),
        given: bool = False,
        right_only: bool = False,
        paper: str = "",
    ) -> None:
        """Choose.

        Args:
            title: Of the table.
            metrics: By the names of the table's columns.
            methods: The first is the one under test.
            given: Explain what people said of the pictures, not what the model says.
            right_only: Only right answers.
            paper: What the paper did and found.
        """
        self.title, self.metrics, self.methods = title, dict(metrics), tuple(methods)
        self.given, self.right_only, self.paper = given, right_only, paper

    def run(self, task: Task, truth: Truth, *, limit: int, seed: int) -> list[Table]:
        """Explain and judge."""
        evaluation = Evaluation(self.metrics, truth, seed=seed, right_only=self.right_only)
        for some in explained(task, truth, self.methods, given=self.given, limit=limit):
            for number, explanations in zip(some.numbers, some.explanations, strict=True):
                evaluation.add(number, explanations)
        if not evaluation.judged:
            raise UserError(f"{self.title}: no word of {limit} samples names a thing of its picture")
        what = "what people said" if self.given else "what the model says"
        conditions = {"explained": what + (", right answers only" if self.right_only else "")}
        return [Table(self.title, evaluation.figures(), conditions, (), higher(self.metrics))]
