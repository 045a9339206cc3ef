"""PASCAL VOC: boxes, and outlines where pictures are segmented."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from classification.data import judge_classes, plain
from mmcam.annotations.markup import Markup, read_markup
from mmcam.annotations.published import MOST_PIXELS, inside, read_lines
from mmcam.errors import UserError, unknown
from mmcam.image import read_image
from mmcam.task import Sample
from mmcam.truth import Things, Truth, box_masks

__all__ = ["CLASSES", "Voc", "VocSegmentation"]

# fmt: off
CLASSES = ("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
           "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")
# fmt: on
"""In the order of the numbers 1 to 20 of the segmentations."""
VOID = 255


class _Listed(Truth):
    """Pictures of a list in `ImageSets`, of VOC's twenty classes."""

    def __init__(self, data: str, split: str, kind: str) -> None:
        self._root = Path(data)
        file = inside(self._root / "ImageSets" / kind, f"{split}.txt", "split")
        self.ids: list[str] = []
        seen: set[str] = set()
        for i, line in enumerate(read_lines(file), start=1):
            name, _, flag = line.partition(" ")
            if not name or flag.strip() not in ("", "1", "0", "-1"):
                raise UserError(f"{file}: line {i}: expected a picture and, for a class, 1, 0 or -1; got {line[:60]!r}")
            if name in seen:
                raise UserError(f"{file}: line {i}: expected each picture once, got {name} again")
            seen.add(name)
            inside(self._root / "JPEGImages", f"{name}.jpg", f"{file}: line {i}")
            if flag.strip() in ("", "1"):
                self.ids.append(name)

    def sample(self, number: int) -> Sample:
        """Read one picture."""
        return Sample(read_image(self._path(self.ids[number], "JPEGImages", "jpg")), self.ids[number])

    def given(self, number: int) -> tuple[str, ...]:
        """All classes in the picture, as one text; none where all things are ignored."""
        classes = sorted(set(self.names(number)[0]))
        return (", ".join(classes),) if classes else ()

    def about(self, number: int, words: Sequence[str]) -> list[tuple[int, ...] | None]:
        """A class means all things of the class; None where all of them are ignored.

        Raises:
            UserError: A word is none of the twenty classes.
        """
        names, ignored = self.names(number)
        linked: list[tuple[int, ...] | None] = []
        for name in map(_class, words):
            numbers = tuple(i for i, other in enumerate(names) if other == name)
            linked.append(None if not numbers and name in ignored else numbers)
        return linked

    def judge(self, said: Mapping[int, Sequence[str]]) -> dict[str, Float[Tensor, " n"]]:
        """See `judge_classes`; of a class of which all things are ignored nothing can be said."""
        return judge_classes(said, self._right)

    @abstractmethod
    def names(self, number: int) -> tuple[tuple[str, ...], frozenset[str]]:
        """The class of each thing, in the order of `things`, and the classes of ignored things."""

    def _right(self, number: int, word: str) -> bool | None:
        (numbers,) = self.about(number, [word])
        return None if numbers is None else bool(numbers)

    def _path(self, name: str, folder: str, suffix: str) -> Path:
        return self._root / folder / f"{name}.{suffix}"


class Voc(_Listed):
    """VOC's boxes. Difficult things are ignored places, as in the challenge."""

    def __init__(self, data: str, split: str = "val") -> None:
        """Read the list; boxes are read when they are asked for.

        Args:
            data: A year's folder, such as `VOCdevkit/VOC2007`.
            split: A list in `ImageSets/Main`: "val", "test", or "cat_val" for the pictures with a cat.

        Raises:
            UserError: The list is missing or broken, or a picture stands twice.
        """
        super().__init__(data, split, "Main")

    def things(self, number: int) -> Things:
        """The boxes, 1-based and inclusive in the file."""
        found = self._markup(number)
        size = found.size
        if size is None:
            picture = self.sample(number).image
            size = picture.height, picture.width
        easy, hard = (
            [
                [thing.box[0] - 1, thing.box[1] - 1, thing.box[2], thing.box[3]]
                for thing in found.things
                if thing.box is not None and thing.difficult == difficult
            ]
            for difficult in (False, True)
        )
        ignored = box_masks(torch.tensor(hard, dtype=torch.float32), size).any(0) if hard else None
        return Things.of_boxes(
            self.names(number)[0], torch.tensor(easy, dtype=torch.float32).view(-1, 4), size, ignored
        )

    def names(self, number: int) -> tuple[tuple[str, ...], frozenset[str]]:
        """The class of each thing that is not difficult, and those of difficult ones."""
        things = self._markup(number).things
        return (
            tuple(thing.names[0] for thing in things if not thing.difficult),
            frozenset(thing.names[0] for thing in things if thing.difficult),
        )

    def _markup(self, number: int) -> Markup:
        return _markup(self._path(self.ids[number], "Annotations", "xml"), self.ids[number])


class VocSegmentation(_Listed):
    """VOC's outlines, one an object; one a class where `SegmentationObject` is missing. Borders are ignored places."""

    def __init__(self, data: str, split: str = "val") -> None:
        """Read the list; outlines are read when they are asked for.

        Args:
            data: A year's folder, such as `VOCdevkit/VOC2012`.
            split: A list in `ImageSets/Segmentation`.

        Raises:
            UserError: The list is missing or broken, or a picture stands twice.
        """
        super().__init__(data, split, "Segmentation")

    def things(self, number: int) -> Things:
        """The outlines."""
        names, objects, ids = self._objects(number)
        masks = torch.from_numpy(np.stack([objects == i for i in ids]) if ids else np.zeros((0, *objects.shape), bool))
        return Things.of_masks(names, masks, torch.from_numpy(objects == VOID))

    def names(self, number: int) -> tuple[tuple[str, ...], frozenset[str]]:
        """The class of each object; no class is ignored."""
        return self._objects(number)[0], frozenset()

    def _objects(self, number: int) -> tuple[tuple[str, ...], UInt8[np.ndarray, "h w"], list[int]]:
        """The class of each object, the picture of their numbers, and the numbers in it."""
        name = self.ids[number]
        file = self._path(name, "SegmentationClass", "png")
        classes = _indices(file)
        if wrong := sorted(set(np.unique(classes).tolist()) - set(range(len(CLASSES) + 1)) - {VOID}):
            raise UserError(f"{file}: expected classes 0 to {len(CLASSES)} and {VOID}, got {wrong[0]}")
        objects_file = self._path(name, "SegmentationObject", "png")
        objects = _indices(objects_file) if objects_file.exists() else classes
        if objects.shape != classes.shape:
            raise UserError(f"{objects_file}: expected the size of the classes, {classes.shape}, got {objects.shape}")
        ids = [i for i in np.unique(objects).tolist() if i not in (0, VOID)]
        names = []
        for i in ids:
            inner = classes[(objects == i) & (classes != VOID)]
            number_of = int(np.bincount(inner).argmax()) if inner.size else 0
            if number_of == 0:
                raise UserError(f"{objects_file}: object {i} lies on the background of {file.name}")
            names.append(CLASSES[number_of - 1])
        return tuple(names), objects, ids


def _class(word: str) -> str:
    """One of the twenty classes; spaces, as in "potted plant", do not matter."""
    name = plain(word).lower().replace(" ", "")
    if name not in CLASSES:
        raise unknown("class of VOC", word, CLASSES)
    return name


@lru_cache(maxsize=4)
def _markup(path: Path, picture: str) -> Markup:
    found = read_markup(path, picture)
    for i, thing in enumerate(found.things, start=1):
        if len(thing.names) != 1 or thing.names[0] not in CLASSES or thing.box is None:
            raise UserError(f"{path}: object {i}: expected one of VOC's classes and a box, got {thing.names[0]!r}")
    return found


@lru_cache(maxsize=4)
def _indices(path: Path) -> UInt8[np.ndarray, "h w"]:
    """The numbers of a palette picture; as colours they would be lost."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; only pictures of ImageSets/Segmentation have outlines")
    try:
        with Image.open(path, formats=["PNG"]) as image:
            mode, pixels = image.mode, image.width * image.height
            if mode == "P" and pixels <= MOST_PIXELS:
                return np.asarray(image).astype(np.uint8)
    except Exception as error:  # a damaged file makes PIL raise almost anything
        raise UserError(f"{path}: expected a whole PNG picture, got one that is damaged ({error})") from error
    raise UserError(
        f"{path}: expected a picture with a palette, of {MOST_PIXELS:,} pixels at most; got {mode}, {pixels:,}"
    )
