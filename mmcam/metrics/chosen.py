"""What `mmcam evaluate` judges by, as a YAML file's section `metrics:`."""

from collections.abc import Mapping

from torchmetrics import Metric

from mmcam.metrics.base import PerMap
from mmcam.metrics.perturb import Faithfulness

__all__ = ["MetricSet", "higher"]


class MetricSet:
    """Metrics by the names of a table's columns."""

    def __init__(self, maps: Mapping[str, PerMap], scores: Mapping[str, Faithfulness] | None = None) -> None:
        """Choose.

        Args:
            maps: Metrics of maps against the truth.
            scores: Metrics that ask the model, about the pictures of `--faithful`.
        """
        self.maps, self.scores = dict(maps), dict(scores or {})


def higher(metrics: Mapping[str, Metric]) -> dict[str, bool]:
    """Of which metrics more, or less, is better."""
    return {name: bool(m.higher_is_better) for name, m in metrics.items() if m.higher_is_better is not None}
