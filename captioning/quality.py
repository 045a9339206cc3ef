"""How true a captioner's sentences are, and whether the maps of its nouns point at those very things."""

from typing import Any

from captioning.task import CaptioningTask
from mmcam.quality import PointingTable, Quality, pictured, with_baselines
from mmcam.scenes.language import NOUNS, captions, meant, statements
from mmcam.task import Sample, Task


class CaptionQuality(Quality):
    """Figures of a captioner on fresh scenes.

    `true_captions`: share of captions that follow the grammar and of which every statement is true of the picture.
    `noun_pointing`: nouns of the model's own captions, be they true, false or no sentence, in pictures with two or more
    things; a noun that is not in the picture is a miss. `given_noun_pointing`: nouns of true captions that the model is
    given.
    """

    def measure(self, task: Task, seed: int, limit: int) -> dict[str, Any]:
        """Caption fresh scenes and hold sentences and maps against them."""
        if not isinstance(task, CaptioningTask):
            raise TypeError("CaptionQuality measures a CaptioningTask")
        own, given = PointingTable("noun_pointing", seed), PointingTable("given_noun_pointing", seed)
        true = total = 0
        wrong: list[str] = []
        for some in pictured(seed, limit):
            batch = task.collate([Sample(picture, scene.key) for scene, picture, _ in some])
            references = [captions(scene, 1)[0] for scene, _, _ in some]
            said = with_baselines(task, batch)
            told = with_baselines(task, batch, task.given([caption.text for caption in references], batch))
            for (scene, _, masks), explanations, reference, others in zip(some, said, references, told, strict=True):
                words = explanations[""].words
                things = meant(words, scene)
                true, total = true + (things is not None), total + 1
                if things is None:
                    wrong.append(" ".join(words))
                if len(scene.things) < 2:
                    continue
                # Not `statements`: to leave out what follows no grammar would leave out the worst captions.
                for row, word in enumerate(words):
                    if word not in NOUNS:
                        continue
                    about = things[row] if things else tuple(scene.of_kind(NOUNS[word][0]))
                    if about:
                        own.add(explanations, row, masks, about)
                    else:
                        own.miss()
                for statement in statements(reference.words) or []:
                    given.add(others, statement.word, masks, reference.about[statement.word])
        return {
            "true_captions": round(true / total, 4),
            "captions": total,
            **own.figures(),
            **given.figures(),
            "wrong": wrong[:5],
        }
