"""Questions and answers as VQA v2 publishes them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmcam.errors import UserError
from mmcam.pictures import read_json


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
