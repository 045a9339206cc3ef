"""The experiments that ask the model: how maps agree with what its own scores do when the picture changes."""

from collections.abc import Mapping, Sequence

from mmcam.errors import UserError
from mmcam.evaluation.asking import Asking
from mmcam.evaluation.runs import explained
from mmcam.evaluation.tables import Table
from mmcam.experiments import Experiment
from mmcam.metrics.perturb import Faithfulness
from mmcam.task import Task
from mmcam.truth import Truth

__all__ = ["Asked"]


class Asked(Experiment):
    """Methods and baselines under metrics of faithfulness; of the words that name things."""

    def __init__(
        self,
        title: str,
        metrics: Mapping[str, Faithfulness],
        methods: Sequence[str] = ("grad_cam", "activation_norm"),
        given: bool = False,
        share: float = 1.0,
        paper: str = "",
    ) -> None:
        """Choose.

        Args:
            title: Of the table.
            metrics: By the names of the table's columns.
            methods: The first is the one under test.
            given: Explain what people said of the pictures, not what the model says.
            share: Of the samples; a model that is asked hundreds of times a picture takes its time.
            paper: What the paper did and found.
        """
        self.title, self.metrics, self.methods = title, dict(metrics), tuple(methods)
        self.given, self.share, self.paper = given, share, paper

    def run(self, task: Task, truth: Truth, *, limit: int, seed: int) -> list[Table]:
        """Explain and ask.

        Raises:
            UserError: No word names a thing.
        """
        asking = Asking(self.metrics, seed=seed)
        for some in explained(task, truth, self.methods, given=self.given, limit=max(1, round(limit * self.share))):
            words = [next(iter(found.values())).words for found in some.explanations]
            about = [truth.about(number, row) for number, row in zip(some.numbers, words, strict=True)]
            asking.add(task, some, [[i for i, meant in enumerate(row) if meant is not None] for row in about])
        if not asking.rows:
            raise UserError(f"{self.title}: no word of {asking.pictures} samples names a thing")
        conditions = {
            "explained": "what people said" if self.given else "what the model says",
            "samples": asking.pictures,
        }
        return [Table(self.title, asking.figures(), conditions)]
