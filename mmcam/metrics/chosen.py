"""What `mmcam evaluate` judges by, as a YAML file's section `metrics:`."""

from collections.abc import Mapping

from mmcam.metrics.base import PerMap

__all__ = ["MetricSet"]


class MetricSet:
    """Metrics by the names of a table's columns."""

    def __init__(self, maps: Mapping[str, PerMap]) -> None:
        """Choose.

        Args:
            maps: Metrics of maps against the truth.
        """
        self.maps = dict(maps)
