"""How often a VQA model is right, how often without the picture, and whether the maps of its answers point there."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from mmcam.image import read_image
from mmcam.quality import PointingTable, Quality, pictured, with_baselines
from mmcam.scenes.questions import questions
from mmcam.task import Batch, Sample, Task
from mmcam.text import pad, tokenise
from vqa.published import VqaV2, files_of, of_split
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
    """Accuracy on a data set in VQA v2's format: the most probable answer against the annotators' most common one.

    Words of questions that the model does not know are heard as the unknown word, as in training; such questions count
    like all others, and how many there are is a figure too.
    """

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
        files = files_of(self.data, self.split, self.name)
        data = VqaV2(*files, of_split(self.file_name, self.split), limit)
        right = strange = 0
        for start in tqdm(range(0, len(data.asked), 64), desc="questions", mininterval=5):
            asked = data.asked[start : start + 64]
            samples = [
                Sample(read_image(data.paths[question.picture]), question.id, question.question) for question in asked
            ]
            answers = task.answers(_hear(task, samples).to(task.device))
            known = task.model.vocabulary
            strange += sum(any(word not in known for word in tokenise(question.question)) for question in asked)
            right += sum(answer == question.answer for answer, question in zip(answers, asked, strict=True))
        return {
            "accuracy": round(right / len(data.asked), 4),
            "questions": len(data.asked),
            "questions_with_unknown_words": strange,
            "pictures": len(data.paths),
        }


def _hear(task: VQATask, samples: Sequence[Sample]) -> Batch:
    """Collate questions whose words the model need not know; only who asks one question wants to be told of a typo."""
    known = task.model.vocabulary
    rows = [tokenise(sample.text) for sample in samples]
    # The task refuses unknown words, so it is asked with a known one and given the question's words after.
    plain = [replace(sample, text=known.plain[0] if row else "") for sample, row in zip(samples, rows, strict=True)]
    batch = task.collate(plain)
    words, lengths = pad([known.encode(row) for row in rows])
    return replace(batch, texts=tuple(sample.text for sample in samples), inputs={"words": words, "lengths": lengths})
