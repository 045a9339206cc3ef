"""CLEVR: questions about drawn shapes. Neither boxes nor masks are published; CLEVR-XAI has masks."""

from pathlib import Path

from mmcam.annotations.published import inside, read_object
from vqa.data import Questions
from vqa.published import Asked, once


class Clevr(Questions):
    """The questions of CLEVR v1.0, as published: `questions/`, `images/<split>/`.

    Nothing is known about where things are: the scenes give the middle of each only.
    """

    def __init__(self, data: str, split: str = "val") -> None:
        """Read the questions.

        Args:
            data: The folder `CLEVR_v1.0`.
            split: "train", "val" or "test"; of the last no answers are published.

        Raises:
            UserError: The file is missing or broken, or an id comes twice.
        """
        root = Path(data)
        super().__init__(*read_questions(root / "questions" / f"CLEVR_{split}_questions.json", root / "images" / split))


def read_questions(file: Path, pictures: Path) -> tuple[list[Path], list[Asked]]:
    """Read questions in CLEVR's format.

    Args:
        file: `*_questions.json`; answers may be texts, numbers, and true or false, which become "yes" and "no".
        pictures: Folder of the pictures.

    Returns:
        The pictures' files, each once, and the questions.

    Raises:
        UserError: The file is missing or broken, or an id comes twice.
    """
    number: dict[Path, int] = {}
    seen: set[int] = set()
    asked = []
    for row in read_object(file).entries("questions"):
        identity = row.take("question_index", int)
        once(identity, seen, row)
        path = inside(pictures, row.take("image_filename", str), f"{row.file}: {row.place}")
        picture = number.setdefault(path, len(number))
        answer = row.values.get("answer", "")
        if not isinstance(answer, str | int):
            raise row.broken(f"expected 'answer' as a text, a whole number, true or false, got {answer!r:.60}")
        said = ("yes" if answer else "no") if isinstance(answer, bool) else str(answer)
        asked.append(Asked(str(identity), picture, row.take("question", str), said))
    return list(number), asked
