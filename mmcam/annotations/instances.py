"""COCO's instances: which things of which categories are in a picture, and where."""

from collections.abc import Container
from pathlib import Path

import torch

from mmcam.annotations.published import Entry, read_object
from mmcam.annotations.rle import read_mask
from mmcam.errors import UserError
from mmcam.truth import Things

__all__ = ["CocoInstances"]


class CocoInstances:
    """An instances file. Masks are made when a picture is asked for.

    Attributes:
        categories: Names by id.
    """

    def __init__(self, annotations: Path) -> None:
        """Read the file.

        Args:
            annotations: `instances_*.json`.

        Raises:
            UserError: It is missing or broken, an id stands twice, or an annotation is of a picture or category that
                the file does not have.
        """
        self.file = annotations
        content = read_object(annotations)
        self.categories: dict[int, str] = {}
        for category in content.entries("categories"):
            self._once(category, self.categories)
            self.categories[category.take("id", int)] = category.take("name", str)
        self._sizes: dict[int, tuple[int, int]] = {}
        for image in content.entries("images"):
            self._once(image, self._sizes)
            self._sizes[image.take("id", int)] = image.size()
        self._of: dict[int, list[Entry]] = {number: [] for number in self._sizes}
        seen: set[int] = set()
        for thing in content.entries("annotations"):
            self._once(thing, seen)
            seen.add(thing.take("id", int))
            for key, known in (("image_id", self._sizes), ("category_id", self.categories)):
                if thing.take(key, int) not in known:
                    raise thing.broken(f"{key}: the file has no such id as {thing.values[key]}")
            if thing.values.get("iscrowd", 0) not in (0, 1):
                raise thing.broken(f"expected 'iscrowd' as 0 or 1, got {thing.values['iscrowd']!r}")
            self._of[thing.values["image_id"]].append(thing)

    def names(self, image: int) -> tuple[str, ...]:
        """The category of each thing of a picture, in the order of `things`."""
        return tuple(self._name(thing) for thing in self._rows(image) if not thing.values.get("iscrowd"))

    def crowds(self, image: int) -> frozenset[str]:
        """The categories of which a picture has a crowd, whose members are not told apart."""
        return frozenset(self._name(thing) for thing in self._rows(image) if thing.values.get("iscrowd"))

    def things(self, image: int) -> Things:
        """The things of a picture; its crowds are ignored places.

        Args:
            image: The picture's id.

        Raises:
            UserError: The file does not have it, or an outline is broken.
        """
        rows, size = self._rows(image), self._sizes.get(image, (0, 0))
        masks = [read_mask(thing, size) for thing in rows if not thing.values.get("iscrowd")]
        crowds = [read_mask(thing, size) for thing in rows if thing.values.get("iscrowd")]
        return Things.of_masks(
            self.names(image),
            torch.stack(masks) if masks else torch.zeros(0, *size, dtype=torch.bool),
            torch.stack(crowds).any(0) if crowds else None,
        )

    def _rows(self, image: int) -> list[Entry]:
        if image not in self._of:
            raise UserError(
                f"{self.file}: expected the picture {image}, but the file does not have it; use that of its split"
            )
        return self._of[image]

    def _name(self, thing: Entry) -> str:
        return self.categories[thing.values["category_id"]]

    @staticmethod
    def _once(entry: Entry, seen: Container[int]) -> None:
        if entry.take("id", int) in seen:
            raise entry.broken(f"expected each id once, got {entry.values['id']} again")
