"""The papers' experiments, one a module: from a task and annotated pictures to tables.

`scripts/reproduce.py` runs those that `configs/experiments/*.yaml` describe: on scenes always, on a published data set
where it is there.
"""

from abc import ABC, abstractmethod

from mmcam.evaluation.tables import Table
from mmcam.task import Task
from mmcam.truth import Truth

__all__ = ["Experiment"]


class Experiment(ABC):
    """What a YAML file's section `experiment:` makes.

    Attributes:
        paper: What the paper did and found, with its section, for the results page.
    """

    paper: str = ""

    @abstractmethod
    def run(self, task: Task, truth: Truth, *, limit: int, seed: int) -> list[Table]:
        """Do it.

        Args:
            task: The model, in eval mode; left as found.
            truth: The annotated pictures.
            limit: Use the first pictures only.
            seed: Of everything random.

        Returns:
            Its tables, with conditions; those of the model and the data are added by the caller.
        """
