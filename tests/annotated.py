"""The samples of published annotations, and what it takes to break a copy of one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmcam.errors import UserError

SAMPLES = Path(__file__).parent / "data" / "annotations"

BOMB = """<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<annotation><filename>&b;</filename></annotation>
"""
"""A small billion-laughs file."""


def copied(folder: Path, *names: str) -> Path:
    """A folder with copies of samples, one laid over the other, all of which may be written."""
    for name in names:
        shutil.copytree(SAMPLES / name, folder, dirs_exist_ok=True)
    return folder


def replaced(old: str, new: str) -> Callable[[str], str]:
    """Put another text in the place of one that must be there."""

    def edit(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return edit


def changed(change: Callable) -> Callable[[str], str]:
    """Change what a JSON file holds, in place."""

    def edit(text: str) -> str:
        content = json.loads(text)
        change(content)
        return json.dumps(content)

    return edit


def half(text: str) -> str:
    """A file that is cut short."""
    return text[: len(text) // 2]


def is_refused(folder: Path, file: str, edit: Callable[[str], str], message: str, use: Callable) -> None:
    """See that a broken copy gives one line with the file and the place."""
    path = folder / file
    path.write_text(edit(path.read_text()))
    with pytest.raises(UserError, match=message) as caught:
        use()
    assert "\n" not in str(caught.value)
    assert Path(file).name in str(caught.value)


def iou(a, b):
    """Intersection over union of two boxes, in plain numbers."""
    left, top, right, bottom = (f(x, y) for f, x, y in zip((max, max, min, min), a, b, strict=True))
    common = max(0.0, right - left) * max(0.0, bottom - top)
    return float(common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common))


def union(things, numbers) -> list[float]:
    """The box around some things' masks, by looking at every pixel."""
    places = [(y, x) for n in numbers for y, x in things.masks[n].nonzero().tolist()]
    rows, columns = zip(*places, strict=True)
    return torch.tensor([min(columns), min(rows), max(columns) + 1, max(rows) + 1]).tolist()
