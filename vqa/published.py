"""Questions and answers as VQA v1 and v2 publish them, in two JSON files that are joined by id."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from typing import Any

from mmcam.annotations.published import Entry, inside
from mmcam.errors import UserError
from mmcam.pictures import read_json


@dataclass(frozen=True)
class Asked:
    """A question about a picture.

    Attributes:
        id: The question's id.
        picture: Number of the picture among the paths.
        question: The text.
        answer: The right or most common answer; "" where none is published.
        answers: Those of all people who were asked, ten in VQA.
        form: What the file calls the kind of question or answer ("yes/no", "number", "other"); "" if it does not.
    """

    id: str
    picture: int
    question: str
    answer: str
    answers: tuple[str, ...] = ()
    form: str = ""


class VqaV2:
    """The questions of a VQA v1 or v2 file, joined by id with their annotations.

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
            questions: `v2_OpenEnded_*_questions.json`; of v1 without `v2_`, also `MultipleChoice_*`.
            annotations: `v2_*_annotations.json`; None where the answers are not published.
            file_name: A picture's name as a format of its id, such as "COCO_val2014_{:012d}.jpg".
            limit: Use the questions of the first pictures only.

        Raises:
            UserError: A file is missing or broken, an id comes twice, a question has no annotation, or one of another
                picture.
        """
        rows = _rows(questions, "questions")
        answered = {} if annotations is None else _annotated(annotations)
        number: dict[int, int] = {}
        seen: set[int] = set()
        without: list[int] = []
        self.asked: list[Asked] = []
        for row in rows:
            image, identity, text = row.take("image_id", int), row.take("question_id", int), row.take("question", str)
            once(identity, seen, row)
            if image not in number and limit is not None and len(number) >= limit:
                continue
            picture = number.setdefault(image, len(number))
            if annotations is not None and identity not in answered:
                without.append(identity)
                continue
            of, answer, answers, form = answered.get(identity, (image, "", (), ""))
            if of != image:
                raise UserError(f"{annotations}: expected question {identity} to be of picture {image!r}, got {of!r}")
            self.asked.append(Asked(str(identity), picture, text, answer, answers, form))
        if without:
            raise UserError(f"{annotations}: {len(without)} questions have no annotation, the first is {without[0]}")
        self.paths = [inside(pictures, _filled(file_name, image), "file_name") for image in number]


def files_of(data: str | Path, split: str, name: str, prefix: str = "v2_") -> tuple[Path, Path, Path]:
    """Find pictures, questions and annotations of a split.

    Args:
        data: Folder with `<split>/` and `annotations/`, or, as the data set's own tools have it, with
            `Images/<name>/<split>/`, `Questions/` and `Annotations/`.
        split: Name of the split, such as "val2014".
        name: The data set's name in its files.
        prefix: What the files' names begin with: "v2_"; "" for VQA v1.

    Returns:
        A folder and two files; they need not exist.
    """
    root = Path(data)
    questions, annotations = (
        f"{prefix}OpenEnded_{name}_{split}_questions.json",
        f"{prefix}{name}_{split}_annotations.json",
    )
    return (
        _either(root / split, root / "Images" / name / split),
        _either(root / "annotations" / questions, root / "Questions" / questions),
        _either(root / "annotations" / annotations, root / "Annotations" / annotations),
    )


def _either(ours: Path, theirs: Path) -> Path:
    """The one that exists; if neither does, the one whose folder exists: an error names it."""
    return theirs if not ours.exists() and (theirs.exists() or theirs.parent.exists()) else ours


def _rows(path: Path, key: str) -> list[Entry]:
    return Entry(read_json(path, key), path, "the file").entries(key)


def _annotated(path: Path) -> dict[int, tuple[int, str, tuple[str, ...], str]]:
    """By question id: the picture's id, the most common answer, all answers, and their type."""
    found = {}
    seen: set[int] = set()
    for row in _rows(path, "annotations"):
        identity = row.take("question_id", int)
        once(identity, seen, row)
        common = intern(row.take("multiple_choice_answer", str))
        form = intern(row.take("answer_type", str)) if "answer_type" in row.values else ""
        found[identity] = row.take("image_id", int), common, _answers(row), form
    return found


def _answers(row: Entry) -> tuple[str, ...]:
    try:
        return tuple(intern(one["answer"]) for one in row.take("answers", list))
    except (KeyError, TypeError):  # what is wrong is told by the slow way, of two million answers
        return tuple(one.take("answer", str) for one in row.entries("answers"))


def once(identity: Hashable, seen: set[Any], entry: Entry) -> None:
    """Note an id.

    Raises:
        UserError: It has come before.
    """
    if identity in seen:
        raise entry.broken(f"expected each id once, got {identity!r} again")
    seen.add(identity)


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
