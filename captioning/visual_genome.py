"""Visual Genome's regions: a phrase and a box each, on which DenseCap is trained."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from captioning.data import judge_captions
from mmcam.annotations.published import Entry, each_entry, inside, read_list, read_object
from mmcam.errors import unknown
from mmcam.image import read_image
from mmcam.task import Sample
from mmcam.truth import Things, Truth

FOLDERS = ("VG_100K", "VG_100K_2")


class Regions(Truth):
    """Regions of Visual Genome, each a sample of its own: its phrase is given, its box is the one thing.

    Read as in DenseCap's experiment: every word of the phrase is about the box. Boxes of version 1.2 and later count
    pixels from 0, those of 1.0 (`id` and `image` in the regions) from 1. They are clipped to the picture; one of which
    nothing is left has an empty mask.
    """

    def __init__(
        self,
        data: str,
        split: str = "",
        regions: str = "region_descriptions.json",
        splits: str = "densecap_splits.json",
    ) -> None:
        """Read the regions.

        Args:
            data: Folder with `image_data.json`, the regions, `VG_100K/` and `VG_100K_2/`.
            split: "train", "val" or "test" of DenseCap's file; all pictures if not given.
            regions: Name of the file of regions.
            splits: Name of the file of splits.

        Raises:
            UserError: A file is missing or broken, an id stands twice or is not known, or there is no such split.
        """
        root = Path(data)
        wanted = _split(root / splits, split) if split else None
        self._pictures = _pictures(root, wanted)
        self.ids: list[str] = []
        self._regions: list[tuple[int, str, tuple[float, float, float, float]]] = []
        seen: set[int] = set()
        for entry in each_entry(root / regions):
            image = _either(entry, "id", "image_id")
            if wanted is not None and image not in wanted:
                continue
            if image not in self._pictures:
                raise entry.broken(f"image_data.json has no picture {image}")
            for region in entry.entries("regions"):
                number = _either(region, "region_id", "id")
                if number in seen:
                    raise region.broken(f"expected each region once, got {number} again")
                seen.add(number)
                if _either(region, "image_id", "image", image) != image:
                    raise region.broken(f"expected a region of the picture {image}, got one of another")
                self.ids.append(str(number))
                self._regions.append((image, region.take("phrase", str), _box(region)))

    def sample(self, number: int) -> Sample:
        """Read the picture of a region."""
        return Sample(_read(self._pictures[self._regions[number][0]][0]), self.ids[number])

    def given(self, number: int) -> tuple[str, ...]:
        """The region's phrase."""
        return (" ".join(self._regions[number][1].split()),)

    def things(self, number: int) -> Things:
        """The region, named after its phrase."""
        image, _, box = self._regions[number]
        return Things.of_boxes(self.given(number), torch.tensor([box]), self._pictures[image][1])

    def about(self, number: int, words: Sequence[str]) -> list[tuple[int, ...] | None]:
        """Every word is about the region."""
        return [(0,)] * len(words)

    def judge(self, said: Mapping[int, Sequence[str]]) -> dict[str, Float[Tensor, " n"]]:
        """See `judge_captions`; one reference a region."""
        return judge_captions(said, [self.given(number) for number in said])


def _split(file: Path, split: str) -> frozenset[int]:
    content = read_object(file)
    if split not in content.values:
        raise unknown(f"split of {file}", split, content.values)
    ids = content.take(split, list)
    if not all(isinstance(image, int) for image in ids) or len(set(ids)) < len(ids):
        raise content.broken(f"{split}: expected the ids of pictures, each once")
    return frozenset(ids)


def _pictures(root: Path, wanted: frozenset[int] | None) -> dict[int, tuple[Path, tuple[int, int]]]:
    """The file and size of each picture; the address in `image_data.json` tells the folder."""
    found: dict[int, tuple[Path, tuple[int, int]]] = {}
    for entry in read_list(root / "image_data.json"):
        image = _either(entry, "image_id", "id")
        if image in found:
            raise entry.broken(f"expected each picture once, got {image} again")
        *_, folder, name = ("/" + entry.take("url", str)).split("/")
        if folder not in FOLDERS:
            raise entry.broken(f"url: expected a picture in {' or '.join(FOLDERS)}, got {entry.values['url']!r}")
        if name.partition(".")[0] != str(image):
            raise entry.broken(f"url: expected the picture {image}, got {name!r}")
        found[image] = inside(root / folder, name, f"{entry.file}: {entry.place}"), entry.size()
    if wanted is not None and (missing := sorted(wanted - found.keys())):
        file = root / "image_data.json"
        raise Entry({}, file, "the file").broken(
            f"lacks {len(missing)} pictures of the split, the first is {missing[0]}"
        )
    return found


def _box(region: Entry) -> tuple[float, float, float, float]:
    first = 0 if "region_id" in region.values else 1
    left, top, width, height = (region.number(key) for key in ("x", "y", "width", "height"))
    if width < 0 or height < 0:
        raise region.broken(f"expected a box, got one of {width:g} x {height:g}")
    return left - first, top - first, left - first + width, top - first + height


def _either(entry: Entry, key: str, other: str, default: int | None = None) -> int:
    """The value of a key that has two names; the default where it has none."""
    if default is not None and key not in entry.values and other not in entry.values:
        return default
    return entry.take(other if key not in entry.values and other in entry.values else key, int)


@lru_cache(maxsize=4)
def _read(path: Path) -> Image.Image:
    """Read a picture; its regions follow one another."""
    return read_image(path)
