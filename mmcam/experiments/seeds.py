"""Maps as the seeds of weakly supervised segmentation: how good they are, and as the files that SEC trains on."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from mmcam.errors import UserError
from mmcam.evaluation.evaluate import Evaluation
from mmcam.evaluation.runs import explained
from mmcam.evaluation.tables import Table
from mmcam.experiments import Experiment
from mmcam.experiments.judged import higher
from mmcam.experiments.sec import Cues
from mmcam.metrics.seeds import SeedIoU
from mmcam.task import Task
from mmcam.truth import Truth

__all__ = ["Seeds"]


class Seeds(Experiment):
    """Label every pixel with the given class whose map is strongest there, or with none, and compare with outlines."""

    paper = (
        "SEC on PASCAL VOC 2012 with its CAM seeds replaced by Grad-CAM of a plain VGG-16: mean IoU of the trained "
        "segmentation 49.6 against 44.6. Here the seeds themselves are measured, and written for SEC to train on."
    )

    def __init__(
        self,
        thresholds: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5),
        methods: Sequence[str] = ("grad_cam", "activation_norm"),
        export: str = "",
        exported: float = 0.2,
        background: float = 0.05,
        classes: Sequence[str] = (),
    ) -> None:
        """Say where maps are cut.

        Args:
            thresholds: Parts of its maximum that a map needs to claim a pixel.
            methods: Names of methods; the seeds of the first are written.
            export: Folder for SEC's files; none are written if it is "".
            exported: The threshold of the seeds that are written.
            background: Where all maps are below this part of their maxima, a background seed is written.
            classes: In the order of their numbers in SEC's network, from 1 (VOC's: alphabetical); those of the pictures
                in alphabetical order if not given.

        Raises:
            UserError: A threshold is not above 0 and at most 1.
        """
        for threshold in (*thresholds, exported, background):
            if not 0 < threshold <= 1:
                raise UserError(f"expected thresholds above 0 and at most 1, got {threshold}")
        self.thresholds, self.methods, self.export = tuple(thresholds), tuple(methods), export
        self.exported, self.background, self.classes = exported, background, tuple(classes)

    def run(self, task: Task, truth: Truth, *, limit: int, seed: int) -> list[Table]:
        """Explain the classes that people gave, as SEC knows them too.

        Args:
            task: A classifier.
            truth: With outlines; pictures with boxes only are left out.
            limit: Use the first pictures only.
            seed: Of the random row.
        """
        metrics = {f"mIoU at {threshold:.0%}": SeedIoU(threshold) for threshold in self.thresholds}
        evaluation = Evaluation(metrics, truth, seed=seed)
        cues = Cues(self.exported, self.background)
        for some in explained(task, truth, self.methods, given=True, limit=limit):
            for number, found in zip(some.numbers, some.explanations, strict=True):
                first = found[self.methods[0]]
                evaluation.add(
                    number, {**found, "background only": replace(first, signed=torch.zeros_like(first.signed))}
                )
                about, names = truth.about(number, first.words), truth.things(number).names
                kinds = {word: names[things[0]] for word, things in zip(first.words, about, strict=True) if things}
                cues.add(first, [kinds.get(word) for word in first.words])
        if not evaluation.judged:
            raise UserError(f"expected given classes that are things of their pictures, got none in {limit} pictures")
        conditions = {
            "maps": "of the classes that people gave; arg-max where several claim a pixel",
            "background": "where every map is below the threshold, a part of its own maximum",
            "mIoU": "over all classes that occur and the background, pixels of all pictures together",
        }
        if self.export:
            conditions["written to"] = str(cues.write(Path(self.export), self.classes))
        return [Table("Seeds for segmentation", evaluation.figures(), conditions, (), higher(metrics))]
