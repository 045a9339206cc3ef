"""One model under all metrics and all methods: the full table."""

from collections.abc import Sequence
from dataclasses import replace

from mmcam.config import instantiate
from mmcam.engine import explain_activations
from mmcam.errors import UserError
from mmcam.evaluation.judge import Amounts, judge
from mmcam.evaluation.runs import explained
from mmcam.evaluation.tables import Table
from mmcam.experiments import Experiment
from mmcam.methods.table import names
from mmcam.metrics.chosen import MetricSet
from mmcam.task import Task
from mmcam.truth import Truth

__all__ = ["Everything"]

DESTROYED = ("grad_cam", "activation_norm", "hires_cam", "layer_cam", "gradient", "guided_backprop", "guided_grad_cam")


class Everything(Experiment):
    """All that `mmcam evaluate` can say of a model."""

    def __init__(
        self,
        metrics: str = "metrics/all",
        methods: Sequence[str] = (),
        without: Sequence[str] = (),
        destroyed: Sequence[str] = DESTROYED,
        given: bool = False,
        share: float = 0.1,
        faithful: float = 0.015,
        sanity: float = 0.02,
        paper: str = "",
    ) -> None:
        """Choose.

        Args:
            metrics: A configuration with a section `metrics:`.
            methods: All that explain the model if none is named; some ask for attention, or for a linear head.
            without: Methods to leave out.
            destroyed: Methods whose maps are compared when parts of the model are destroyed.
            given: Explain what people said of the pictures, not what the model says.
            share: Of the samples; slow methods ask the model hundreds of times a picture.
            faithful: Of the samples, for the metrics that ask the model.
            sanity: Of the samples, for the maps when parts are destroyed.
            paper: What the paper did and found.
        """
        self.metrics, self.given, self.paper = metrics, given, paper
        self.methods, self.without, self.destroyed = tuple(methods), tuple(without), tuple(destroyed)
        self.share, self.faithful, self.sanity = share, faithful, sanity

    def run(self, task: Task, truth: Truth, *, limit: int, seed: int) -> list[Table]:
        """Judge the model."""
        metrics = instantiate(self.metrics, "metrics", MetricSet)
        counts = [max(1, round(limit * share)) for share in (self.share, self.faithful, self.sanity)]
        methods = [name for name in self.methods or names() if name not in self.without]
        unfit = () if self.methods else self._unfit(task, truth, methods, counts[0])
        methods = [name for name in methods if name not in unfit]
        every = explained(task, truth, methods, given=self.given, limit=counts[0], batch_size=4)
        samples = ((some.numbers, some.explanations, some) for some in every)
        amounts = Amounts(faithful=counts[1], sanity=counts[2], seed=seed)
        who = "people" if self.given else "model"
        tables, _ = judge(samples, truth, metrics, amounts, task=task, methods=self.destroyed, who=who)
        if unfit:
            note = f"Left out, as they refuse the model: {', '.join(unfit)}."
            tables[0] = replace(tables[0], notes=(*tables[0].notes, note))
        return tables

    def _unfit(self, task: Task, truth: Truth, methods: Sequence[str], limit: int) -> tuple[str, ...]:
        """Methods that refuse the model; each is tried on one word."""
        some = next(explained(task, truth, [], given=self.given, limit=limit, batch_size=1))
        word = some.targets.only([[*range(len(words))][:1] for words in some.targets.words])
        refusing = []
        for name in methods:
            try:
                explain_activations(task, some.activations, some.batch, word, name)
            except UserError:
                refusing.append(name)
        return tuple(refusing)
