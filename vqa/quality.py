"""How often a VQA model is right, how often without the picture, and whether the maps of its answers point there."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from mmcam.image import read_image
from mmcam.quality import PointingTable, Quality, pictured, with_baselines
from mmcam.scenes.language import questions
from mmcam.task import Sample, Task
from vqa.data import VqaV2, of_split
from vqa.task import VQATask


class VQAQuality(Quality):
    """Figures of a VQA model on fresh scenes.

    `accuracy` over all questions and by form; `accuracy_question_only` of a second model of the same architecture that
    was trained without pictures (`blind`). `answer_pointing`: right answers about things, in pictures with two or more
    things; `answer_pointing_what` only those that name a thing ("what is left of the train?").
    """

    def __init__(self, blind: str | None = None, each: int = 6) -> None:
        """Name the baseline.

        Args:
            blind: Weights of the model that was trained without pictures.
            each: Questions a picture at most.
        """
        self.blind = VQATask(blind) if blind else None
        self.each = each

    def measure(self, task: Task, seed: int, limit: int) -> dict[str, Any]:
        """Ask about fresh scenes."""
        if not isinstance(task, VQATask):
            raise TypeError("VQAQuality measures a VQATask")
        every, naming = PointingTable("answer_pointing", seed), PointingTable("answer_pointing_what", seed)
        right: dict[str, list[bool]] = defaultdict(list)
        blind: list[bool] = []
        for some in pictured(seed, limit):
            rows = [(i, question) for i, (scene, _, _) in enumerate(some) for question in questions(scene, self.each)]
            samples = [
                Sample(some[i][1], f"{some[i][0].key}/{n}", question.text) for n, (i, question) in enumerate(rows)
            ]
            batch = task.collate(samples)
            if self.blind is not None:
                batch_blind = self.blind.collate(
                    [Sample(Image.new("RGB", s.image.size, "grey"), s.id, s.text) for s in samples]
                )
                guesses = self.blind.answers(batch_blind)
                blind += [guess == question.answer for guess, (_, question) in zip(guesses, rows, strict=True)]
            for (i, question), explanations in zip(rows, with_baselines(task, batch), strict=True):
                correct = explanations[""].words[0] == question.answer
                right[question.form].append(correct)
                _, _, masks = some[i]
                if correct and question.about and len(masks) > 1:
                    every.add(explanations, 0, masks, question.about)
                    if question.form == "what":
                        naming.add(explanations, 0, masks, question.about)
        everything = [value for values in right.values() for value in values]
        return {
            "accuracy": round(float(np.mean(everything)), 4),
            "questions": len(everything),
            **({"accuracy_question_only": round(float(np.mean(blind)), 4)} if blind else {}),
            **{f"accuracy_{form}": round(float(np.mean(values)), 4) for form, values in sorted(right.items())},
            **every.figures(),
            **naming.figures(),
        }


class AnswerAccuracy(Quality):
    """Accuracy on a data set in VQA v2's format: the most probable answer against the annotators' most common one."""

    def __init__(self, data: str, name: str, split: str, file_name: str) -> None:
        """Name the data.

        Args:
            data: Folder with `<split>/` and `annotations/`.
            name: The data set's name in its files.
            split: Name of the split.
            file_name: A picture's name: `{split}` is filled in first, then the picture's id.
        """
        self.data, self.name, self.split, self.file_name = Path(data), name, split, file_name

    def source(self, seed: int) -> str:
        """The folder and the split; no seed."""
        return f"{self.data}, split {self.split}"

    def measure(self, task: Task, seed: int, limit: int) -> dict[str, Any]:
        """Ask all questions of the first pictures; the seed is of no use here."""
        if not isinstance(task, VQATask):
            raise TypeError("AnswerAccuracy measures a VQATask")
        annotations = self.data / "annotations"
        data = VqaV2(
            self.data / self.split,
            annotations / f"v2_OpenEnded_{self.name}_{self.split}_questions.json",
            annotations / f"v2_{self.name}_{self.split}_annotations.json",
            of_split(self.file_name, self.split),
            limit,
        )
        right = 0
        for start in tqdm(range(0, len(data.asked), 64), desc="questions", mininterval=5):
            asked = data.asked[start : start + 64]
            samples = [
                Sample(read_image(data.paths[question.picture]), question.id, question.question) for question in asked
            ]
            answers = task.answers(task.collate(samples).to(task.device))
            right += sum(answer == question.answer for answer, question in zip(answers, asked, strict=True))
        return {
            "accuracy": round(right / len(data.asked), 4),
            "questions": len(data.asked),
            "pictures": len(data.paths),
        }
