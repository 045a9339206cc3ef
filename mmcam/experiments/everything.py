"""One model under all metrics and all methods: the full table."""

from collections.abc import Sequence

from mmcam.config import instantiate
from mmcam.experiments import Experiment
from mmcam.judge import Amounts, judge
from mmcam.methods import names
from mmcam.metrics.chosen import MetricSet
from mmcam.runs import explained
from mmcam.tables import Table
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
        faithful: float = 0.02,
        sanity: float = 0.03,
        paper: str = "",
    ) -> None:
        """Choose.

        Args:
            metrics: A configuration with a section `metrics:`.
            methods: All that there are if none is named.
            without: Methods that the model has no use for.
            destroyed: Methods whose maps are compared when parts of the model are destroyed.
            given: Explain what people said of the pictures, not what the model says.
            share: Of the samples; slow methods ask the model hundreds of times a picture.
            faithful: Of the samples, for the metrics that ask the model.
            sanity: Of the samples, for the maps when parts are destroyed.
            paper: What the paper did and found.
        """
        self.metrics, self.given, self.paper = metrics, given, paper
        self.methods = tuple(name for name in methods or names() if name not in without)
        self.destroyed = tuple(destroyed)
        self.share, self.faithful, self.sanity = share, faithful, sanity

    def run(self, task: Task, truth: Truth, *, limit: int, seed: int) -> list[Table]:
        """Judge the model."""
        metrics = instantiate(self.metrics, "metrics", MetricSet)
        counts = [max(1, round(limit * share)) for share in (self.share, self.faithful, self.sanity)]
        every = explained(task, truth, self.methods, given=self.given, limit=counts[0], batch_size=4)
        samples = ((some.numbers, some.explanations, some) for some in every)
        amounts = Amounts(faithful=counts[1], sanity=counts[2], seed=seed)
        return judge(samples, truth, metrics, amounts, task=task, methods=self.destroyed)[0]
