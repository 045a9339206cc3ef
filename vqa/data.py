"""Questions about pictures and about scenes, as `mmcam dump` and `mmcam evaluate` read them, and what is right."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmcam.errors import unknown
from mmcam.image import read_image
from mmcam.scenes.draw import draw
from mmcam.scenes.questions import questions
from mmcam.scenes.source import Scenes
from mmcam.task import Sample
from mmcam.truth import Things, Truth
from vqa.accuracy import exact_match, vqa_accuracy
from vqa.published import Asked, VqaV2, files_of, of_split

FORMS = ("what", "exists", "count", "group", "where", "relation")
"""The forms of questions about scenes."""


class Questions(Truth):
    """Questions about pictures on the disk; the pictures are read when their turn comes.

    Of a data set that says no more, nothing is known about where things are.

    Attributes:
        paths: The pictures' files.
        asked: The questions.
    """

    def __init__(self, paths: Sequence[Path], asked: Sequence[Asked]) -> None:
        """Take what was read.

        Args:
            paths: The pictures' files.
            asked: The questions.
        """
        self.paths, self.asked = list(paths), list(asked)
        self.ids = [question.id for question in asked]

    def sample(self, number: int) -> Sample:
        """Read the picture of one question."""
        asked = self.asked[number]
        return Sample(self.picture(number), asked.id, asked.question)

    def picture(self, number: int) -> Image.Image:
        """The picture of one question."""
        return _read(self.paths[self.asked[number].picture])

    def given(self, number: int) -> tuple[str, ...]:
        """Its answer, where it is published."""
        answer = self.asked[number].answer
        return (answer,) if answer else ()

    def things(self, number: int) -> Things:
        """None."""
        image = self.picture(number)
        return Things.of_boxes((), torch.zeros(0, 4), (image.height, image.width))

    def about(self, number: int, words: Sequence[str]) -> list[tuple[int, ...] | None]:
        """Nobody has said what the answers are about."""
        return [None] * len(words)

    def judge(self, said: Mapping[int, Sequence[str]]) -> dict[str, Float[Tensor, " n"]]:
        """`exact_match`: 1 where the model's first answer is the right one, and that of each form of question."""
        return matched(said, {number: self.asked[number] for number in said})


def matched(said: Mapping[int, Sequence[str]], asked: Mapping[int, Asked]) -> dict[str, Float[Tensor, " n"]]:
    """Compare first answers with the right ones.

    Args:
        said: The model's answers by number of the question, the best first; no answer is a wrong one.
        asked: The questions.

    Returns:
        `exact_match` and that of each form, `exact_match_<form>`; NaN where no answer is published, nothing if none is.
    """
    values = []
    for number, words in said.items():
        right = asked[number].answer
        values.append(exact_match(" ".join(words[:1]), right) if right else float("nan"))
    return by_form("exact_match", torch.tensor(values), [asked[number].form for number in said])


def by_form(name: str, values: Float[Tensor, " n"], forms: Sequence[str]) -> dict[str, Float[Tensor, " n"]]:
    """Report values together and for each form of question apart.

    Args:
        name: Of the metric.
        values: One a question; NaN where undefined.
        forms: One a question; "" has no report of its own.

    Returns:
        The values by `name`, and by `name_<form>` with NaN for the questions of other forms; nothing if all are NaN.
    """
    if values.isnan().all():
        return {}
    found = {name: values}
    for form in sorted(set(forms) - {""}):
        of_form = torch.tensor([other == form for other in forms])
        found[f"{name}_{form.replace('/', '_').replace(' ', '_')}"] = values.where(of_form, float("nan"))
    return found


class AskedPictures(Questions):
    """The questions of a VQA v1 or v2 file; what people answered can be explained too."""

    def __init__(
        self,
        data: str,
        split: str,
        name: str = "mscoco",
        file_name: str = "COCO_{split}_{{:012d}}.jpg",
        prefix: str = "v2_",
    ) -> None:
        """Read questions and annotations.

        Args:
            data: Folder with `<split>/` and `annotations/`, or, as the data set's own tools have it, with
                `Images/<name>/<split>/`, `Questions/` and `Annotations/`.
            split: Name of the split, such as "val2014".
            name: The data set's name in its files.
            file_name: A picture's name: `{split}` is filled in first, then the picture's id.
            prefix: What the files' names begin with: "v2_"; "" for VQA v1.
        """
        pictures, questions, annotations = files_of(data, split, name, prefix)
        known = annotations if annotations.exists() else None
        found = VqaV2(pictures, questions, known, of_split(file_name, split))
        super().__init__(found.paths, found.asked)

    def judge(self, said: Mapping[int, Sequence[str]]) -> dict[str, Float[Tensor, " n"]]:
        """`vqa_accuracy` by what all people said, and that of each type of answer."""
        values = []
        for number, words in said.items():
            people = self.asked[number].answers
            values.append(vqa_accuracy(" ".join(words[:1]), people) if people else float("nan"))
        return by_form("vqa_accuracy", torch.tensor(values), [self.asked[number].form for number in said])


class AskedScenes(Scenes):
    """Scenes of the embedded world and questions about them.

    An answer is about the things that the question is about, whatever the model says: it is judged whether the model
    looked where the answer is to be found. "no" to "is there a dog ?" is about a thing that is not there.
    """

    def __init__(
        self,
        split: str = "test",
        count: int = 1000,
        seed: int = 0,
        questions_each: int = 3,
        forms: list[str] | None = None,
    ) -> None:
        """Ask the questions.

        Args:
            split: "train", "val", "test" or "hard".
            count: Number of scenes.
            seed: The world's.
            questions_each: Questions a scene at most.
            forms: Answers to other forms of questions name no thing; "what" alone leaves the answers that are the name
                of a thing. All forms if not given.
        """
        super().__init__(split, count, seed)
        self.forms = FORMS if forms is None else tuple(forms)
        for form in self.forms:
            if form not in FORMS:
                raise unknown("form of question", form, FORMS)
        asked = [list(enumerate(questions(self.scene(i), questions_each))) for i in range(count)]
        self._asked = [(i, question) for i, several in enumerate(asked) for _, question in several]
        self.ids = [f"{self.ids[i]}-q{number}" for i, several in enumerate(asked) for number, _ in several]

    def sample(self, number: int) -> Sample:
        """Draw the picture of one question."""
        index, asked = self._asked[number]
        return Sample(draw(self.scene(index))[0], self.ids[number], asked.text)

    def given(self, number: int) -> tuple[str, ...]:
        """The right answer."""
        return (self._asked[number][1].answer,)

    def things(self, number: int) -> Things:
        """The visible pixels of each thing of the question's scene."""
        return self.things_of(self.scene(self._asked[number][0]))

    def about(self, number: int, words: Sequence[str]) -> list[tuple[int, ...] | None]:
        """The things that the question is about, for every answer."""
        asked = self._asked[number][1]
        return [asked.about if asked.form in self.forms else None] * len(words)

    def judge(self, said: Mapping[int, Sequence[str]]) -> dict[str, Float[Tensor, " n"]]:
        """`exact_match` of the first answer, and by form of question."""
        asked = {number: self._asked[number] for number in said}
        return matched(said, {n: Asked("", i, one.text, one.answer, form=one.form) for n, (i, one) in asked.items()})


class PointedScenes(AskedScenes):
    """Scenes where the masks of what a question is about stand for what people pointed at.

    So the metrics of human attention run where there are no people. What they give here says nothing about people.
    """

    def human(self, number: int) -> Float[Tensor, "1 h w"] | None:
        """One map, 1 on the things that the question is about; None where it is about none."""
        index, asked = self._asked[number]
        if not asked.about:
            return None
        return self.things_of(self.scene(index)).masks[list(asked.about)].any(0, keepdim=True).float()


@lru_cache(maxsize=4)
def _read(path: Path) -> Image.Image:
    """Read a picture; the questions about it follow one another."""
    return read_image(path)
