"""XML as PASCAL VOC writes it, and after it ILSVRC and Flickr30k Entities: the boxes of one picture.

The parser is expat's, which a document type or an entity stops at once: none of these files has any, and entities are
how a small file becomes a large one.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from mmcam.annotations.published import MOST_PIXELS
from mmcam.errors import UserError

__all__ = ["Marked", "Markup", "read_markup"]

LARGEST = 16_000_000
"""Bytes; the files of these data sets have some thousands."""


@dataclass(frozen=True)
class Marked:
    """One thing of a picture.

    Attributes:
        names: Its class; in Flickr30k Entities the chains that it belongs to.
        box: xmin, ymin, xmax, ymax as they are written; None where the file says that there is none.
        difficult: Whether it is marked so.
    """

    names: tuple[str, ...]
    box: tuple[float, float, float, float] | None
    difficult: bool


@dataclass(frozen=True)
class Markup:
    """What such a file says.

    Attributes:
        size: Height and width of the picture; None where they are missing or 0.
        things: In the file's order.
    """

    size: tuple[int, int] | None
    things: tuple[Marked, ...]


def read_markup(path: Path, picture: str) -> Markup:
    """Read one file.

    Args:
        path: The file.
        picture: Name of the picture that it must be about, without folder and suffix.

    Returns:
        The picture's size and its things; only direct children of `object` count, so that the parts of persons (VOC's
        layout task) are no things.

    Raises:
        UserError: There is no such file, it is no whole XML, has a document type, is about another picture, or a thing
            lacks name or box.
    """
    root = _parse(path)
    about = (root.findtext("filename") or "").strip()
    if about and about != "%s" and Path(about).name not in (picture, f"{picture}{Path(about).suffix}"):
        raise UserError(f"{path}: filename: expected {picture!r}, got {about!r}; the file is about another picture")
    size = root.find("size")
    numbers = [] if size is None else [_number(size, key, path, "size") for key in ("height", "width")]
    if numbers and numbers[0] * numbers[1] > MOST_PIXELS:
        raise UserError(f"{path}: size: expected {MOST_PIXELS:,} pixels at most, got {numbers[0]:g} x {numbers[1]:g}")
    return Markup(
        (int(numbers[0]), int(numbers[1])) if numbers and min(numbers) >= 1 else None,
        tuple(_marked(thing, path, f"object {i}") for i, thing in enumerate(root.findall("object"), start=1)),
    )


def _marked(thing: Element, path: Path, place: str) -> Marked:
    names = tuple((name.text or "").strip() for name in thing.findall("name"))
    if not names or not all(names):
        raise UserError(f"{path}: {place}: expected a name, got none; download the file again")
    difficult = (thing.findtext("difficult") or "0").strip() == "1"
    box = thing.find("bndbox")
    if box is None:
        if any((thing.findtext(key) or "0").strip() == "1" for key in ("scene", "nobndbox")):
            return Marked(names, None, difficult)
        raise UserError(f"{path}: {place}: expected a bndbox, got none; download the file again")
    left, top, right, bottom = (_number(box, key, path, place) for key in ("xmin", "ymin", "xmax", "ymax"))
    if right < left or bottom < top:
        raise UserError(
            f"{path}: {place}: expected a box, got x from {left:g} to {right:g}, y from {top:g} to {bottom:g}"
        )
    return Marked(names, (left, top, right, bottom), difficult)


def _number(parent: Element, key: str, path: Path, place: str) -> float:
    text = parent.findtext(key)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{path}: {place}: expected {key} as a number, got {'none' if text is None else repr(text)}")
    return value


def _parse(path: Path) -> Element:
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; docs/data.md lists what a data set needs, and where it lies")
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path}: expected {LARGEST:,} bytes at most, got {path.stat().st_size:,}; it is no such XML")
    tree = TreeBuilder()
    parser = expat.ParserCreate()

    def refuse(name: str, *_: object) -> None:
        line = parser.CurrentLineNumber
        raise UserError(
            f"{path}: line {line}: expected no document type, got DOCTYPE {name[:40]!r}; do not use the file"
        )

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = lambda tag, attributes: tree.start(tag, attributes)
    parser.EndElementHandler = lambda tag: tree.end(tag)
    parser.CharacterDataHandler = lambda data: tree.data(data)
    try:
        parser.Parse(path.read_bytes(), True)
        return tree.close()
    except expat.ExpatError as error:
        raise UserError(
            f"{path}: expected whole XML, got a file that is cut short or damaged ({error}); download it again"
        ) from error
