"""Questions and answers as VQA v2 publishes them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from mmcam.errors import UserError
from mmcam.image import read_image
from mmcam.pictures import read_json
from mmcam.scenes.draw import draw
from mmcam.scenes.language import questions
from mmcam.scenes.source import Scenes
from mmcam.sources import Source
from mmcam.task import Sample


@dataclass(frozen=True)
class Asked:
    """A question about a picture.

    Attributes:
        id: The question's id.
        picture: Number of the picture in `VqaV2.paths`.
        question: The text.
        answer: The most common answer; "" where the file has none.
    """

    id: str
    picture: int
    question: str
    answer: str


class VqaV2:
    """The questions of a VQA v2 file, joined by id with their annotations.

    Attributes:
        paths: The pictures' files, each once.
        asked: The questions in the file's order.
    """

    def __init__(
        self,
        pictures: Path,
        questions: Path,
        annotations: Path | None,
        file_name: str = "{:d}.png",
        limit: int | None = None,
    ) -> None:
        """Read questions and annotations.

        Args:
            pictures: Folder of the pictures.
            questions: `v2_OpenEnded_*_questions.json`.
            annotations: `v2_*_annotations.json`; None where the answers are not published.
            file_name: A picture's name as a format of its id, such as "COCO_val2014_{:012d}.jpg".
            limit: Use the questions of the first pictures only.

        Raises:
            UserError: A file is missing or broken, or a question has no annotation.
        """
        try:
            self._read(pictures, questions, annotations, file_name, limit)
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{questions} or its annotations: expected entries as in VQA v2, with image_id, question_id, question "
                f"and multiple_choice_answer; got one that is not whole: {error}"
            ) from error

    def _read(
        self, pictures: Path, questions: Path, annotations: Path | None, file_name: str, limit: int | None
    ) -> None:
        rows = read_json(questions, "questions")["questions"]
        answers: dict[int, str] = {}
        if annotations is not None:
            for row in read_json(annotations, "annotations")["annotations"]:
                answers[row["question_id"]] = row["multiple_choice_answer"]
            without = [row["question_id"] for row in rows if row["question_id"] not in answers]
            if without:
                raise UserError(
                    f"{annotations}: {len(without)} questions have no annotation, the first is {without[0]}"
                )
        number = {image: i for i, image in enumerate(list(dict.fromkeys(row["image_id"] for row in rows))[:limit])}
        self.paths = [pictures / _filled(file_name, image) for image in number]
        self.asked = [
            Asked(
                str(row["question_id"]), number[row["image_id"]], row["question"], answers.get(row["question_id"], "")
            )
            for row in rows
            if row["image_id"] in number
        ]


def of_split(file_name: str, split: str) -> str:
    """Fill a split into the format of pictures' names, "COCO_{split}_{{:012d}}.jpg"; the picture's id is left open.

    Raises:
        UserError: It is no such format, or the picture's id has no place in it.
    """
    try:
        form = file_name.format(split=split)
    except (IndexError, KeyError, ValueError, AttributeError) as error:  # all that a format may lack
        raise _no_format(file_name, error) from error
    if _filled(form, 0) == _filled(form, 1):
        raise _no_format(file_name, "no place for the picture's id")
    return form


def _filled(form: str, image: object) -> str:
    try:
        return form.format(image)
    except (IndexError, KeyError, ValueError, AttributeError) as error:
        raise _no_format(form, error) from error


def _no_format(file_name: str, error: object) -> UserError:
    return UserError(
        f"file_name: expected a format such as 'COCO_{{split}}_{{{{:012d}}}}.jpg', got {file_name!r}: {error}"
    )


def common_answers(asked: Sequence[Asked], most: int) -> list[str]:
    """The most common answers, the most common first; VQA models classify among them."""
    return [answer for answer, _ in Counter(question.answer for question in asked).most_common(most)]


class AskedPictures(Source):
    """The questions of a VQA v2 file, for a dump; what people answered can be explained too."""

    def __init__(
        self, data: str, split: str, name: str = "mscoco", file_name: str = "COCO_{split}_{{:012d}}.jpg"
    ) -> None:
        """Read questions and annotations.

        Args:
            data: Folder with `<split>/` and `annotations/`.
            split: Name of the split, such as "val2014".
            name: The data set's name in its files.
            file_name: A picture's name: `{split}` is filled in first, then the picture's id.
        """
        root = Path(data)
        questions = root / "annotations" / f"v2_OpenEnded_{name}_{split}_questions.json"
        annotations = root / "annotations" / f"v2_{name}_{split}_annotations.json"
        found = VqaV2(
            root / split, questions, annotations if annotations.exists() else None, file_name.format(split=split)
        )
        self._paths, self._asked = found.paths, found.asked
        self.ids = [question.id for question in found.asked]

    def sample(self, number: int) -> Sample:
        """Read the picture of one question."""
        asked = self._asked[number]
        return Sample(_read(self._paths[asked.picture]), asked.id, asked.question)

    def given(self, number: int) -> tuple[str, ...]:
        """Its answer, where it is published."""
        answer = self._asked[number].answer
        return (answer,) if answer else ()


class AskedScenes(Scenes):
    """Scenes of the embedded world and questions about them."""

    def __init__(self, split: str = "test", count: int = 1000, seed: int = 0, questions_each: int = 3) -> None:
        """Ask the questions.

        Args:
            split: "train", "val", "test" or "hard".
            count: Number of scenes.
            seed: The world's.
            questions_each: Questions a scene at most.
        """
        super().__init__(split, count, seed)
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


@lru_cache(maxsize=4)
def _read(path: Path) -> Image.Image:
    """Read a picture; the questions about it follow one another."""
    return read_image(path)
