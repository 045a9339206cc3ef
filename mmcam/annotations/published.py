"""Annotations as other people publish them: what is wrong with a file is said with the file, the place and the reason.

content = read_object(path)
for image in content.entries("images"):
    image.take("id", int)          # or: captions.json: images[3]: expected 'id' as int, got none
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

from mmcam.errors import UserError

__all__ = ["MOST_PIXELS", "Entry", "each_entry", "inside", "read_lines", "read_list", "read_object"]

MOST_PIXELS = 100_000_000
"""Larger pictures are refused before masks of them are made."""

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a published file, which knows where it stands.

    Attributes:
        values: As they are written.
        file: The file.
        place: Where in it: "annotations[3]".
    """

    values: dict[str, Any]
    file: Path
    place: str

    @classmethod
    def of(cls, value: object, file: Path, place: str) -> "Entry":
        """Make an entry.

        Raises:
            UserError: The value is no object.
        """
        if not isinstance(value, dict):
            raise UserError(f"{file}: {place}: expected an object, got {_short(value)}; download the file again")
        return cls(value, file, place)

    def broken(self, reason: str) -> UserError:
        """Make the error for this place."""
        return UserError(f"{self.file}: {self.place}: {reason}")

    def take(self, key: str, kind: type[T]) -> T:
        """Get a value that must be there; true is no number.

        Raises:
            UserError: It is missing, or of another kind.
        """
        value = self.values.get(key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            came = _short(value) if key in self.values else "none"
            raise self.broken(f"expected {key!r} as {kind.__name__}, got {came}")
        return value

    def number(self, key: str) -> float:
        """Get a finite number.

        Raises:
            UserError: It is missing or no such number.
        """
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            came = _short(value) if key in self.values else "none"
            raise self.broken(f"expected {key!r} as a number, got {came}")
        return float(value)

    def size(self) -> tuple[int, int]:
        """Get the height and width of a picture.

        Raises:
            UserError: They are missing, or no size that a picture can have.
        """
        height, width = self.take("height", int), self.take("width", int)
        if min(height, width) < 1 or height * width > MOST_PIXELS:
            raise self.broken(f"expected a size of 1 to {MOST_PIXELS:,} pixels, got {height} x {width}")
        return height, width

    def entries(self, key: str) -> "list[Entry]":
        """Get a list of objects.

        Raises:
            UserError: It is missing or holds something else.
        """
        start = "" if self.place == "the file" else f"{self.place}."
        return [Entry.of(value, self.file, f"{start}{key}[{i}]") for i, value in enumerate(self.take(key, list))]


def read_object(path: Path) -> Entry:
    """Read a JSON file that holds an object.

    Raises:
        UserError: There is no such file, it is cut short or no JSON, or it holds something else.
    """
    return Entry.of(_json(path), path, "the file")


def read_list(path: Path) -> list[Entry]:
    """Read a JSON file that holds a list of objects.

    Raises:
        UserError: As for `read_object`.
    """
    content = _json(path)
    if not isinstance(content, list):
        raise UserError(f"{path}: expected a list, got {_short(content)}; download the file again")
    return [Entry.of(value, path, f"[{i}]") for i, value in enumerate(content)]


def each_entry(path: Path) -> Iterator[Entry]:
    """Read a JSON list of objects one by one; all at once would take several times the file's size of memory.

    Raises:
        UserError: As for `read_object`.
    """
    text = _text(path)
    position = _space(text, 0)
    if text[position : position + 1] != "[":
        raise UserError(
            f"{path}: expected a list, got {_short(text[position : position + 20])}; download the file again"
        )
    position = _space(text, position + 1)
    number = 0
    while text[position : position + 1] != "]":
        try:
            value, position = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise _no_json(path, f"[{number}]: {error}") from error
        yield Entry.of(value, path, f"[{number}]")
        number += 1
        position = _space(text, position)
        if text[position : position + 1] == ",":
            position = _space(text, position + 1)
        elif text[position : position + 1] != "]":
            raise _no_json(path, f"[{number}]: expected a comma or the list's end at character {position}")


def read_lines(path: Path) -> list[str]:
    """Read a text file.

    Returns:
        Its lines in order, without the spaces at their ends; empty ones at the file's end are left out.

    Raises:
        UserError: There is no such file, or it is no text.
    """
    lines = [line.strip() for line in _text(path).split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def inside(folder: Path, name: str, where: str) -> Path:
    """Join a folder and a name out of a file.

    Args:
        folder: Where the file must lie.
        name: A file's name or a path with slashes.
        where: The file and the place that the name comes from, for the error.

    Raises:
        UserError: The name leads out of the folder.
    """
    parts = PurePosixPath(name).parts
    leads_out = ".." in parts or PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor or "\\" in name
    if not parts or leads_out or "\0" in name:
        raise UserError(f"{where}: expected the name of a file in {folder}, got {_short(name)}, which leads elsewhere")
    return folder / name


def _text(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; docs/data.md lists what a data set needs, and where it lies")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected text in UTF-8, got other bytes: {error}") from error


def _json(path: Path) -> object:
    try:
        return json.loads(_text(path))
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise _no_json(path, str(error)) from error


def _no_json(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path}: expected whole JSON, got a file that is cut short or damaged ({reason}); download it again"
    )


def _space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
