"""How often the embedded classifier is right, and whether its maps point at the things that it names."""

from typing import Any

from classification.task import ClassificationTask
from mmcam.quality import PointingTable, Quality, pictured, with_baselines
from mmcam.task import Sample, Task


class ClassQuality(Quality):
    """Figures of the embedded classifier on fresh scenes.

    `top_class_right`: the most probable class is in the picture. `class_pointing`: the maps of all kinds that are in
    the picture, in pictures with two or more things.
    """

    def measure(self, task: Task, seed: int, limit: int) -> dict[str, Any]:
        """Classify fresh scenes."""
        if not isinstance(task, ClassificationTask):
            raise TypeError("ClassQuality measures a ClassificationTask")
        pointing = PointingTable("class_pointing", seed)
        right = 0
        for some in pictured(seed, limit):
            batch = task.collate([Sample(picture, scene.key) for scene, picture, _ in some])
            kinds = [sorted({thing.kind for thing in scene.things}) for scene, _, _ in some]
            best = [explanations[""].words[0] for explanations in with_baselines(task, batch)]
            right += sum(name in present for name, present in zip(best, kinds, strict=True))
            told = with_baselines(task, batch, task.given([", ".join(present) for present in kinds], batch))
            for (scene, _, masks), present, explanations in zip(some, kinds, told, strict=True):
                if len(scene.things) > 1:
                    for row, kind in enumerate(present):
                        pointing.add(explanations, row, masks, scene.of_kind(kind))
        return {"top_class_right": round(right / limit, 4), "pictures": limit, **pointing.figures()}
