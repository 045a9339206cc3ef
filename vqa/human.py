"""Where people looked, or pointed at, to answer a question of VQA: VQA-HAT and VQA-X."""

import logging
import re
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.errors import UserError
from mmcam.image import read_image
from vqa.data import AskedPictures

__all__ = ["HumanMaps", "VqaHat", "VqaX"]

logger = logging.getLogger(__name__)


class HumanMaps(AskedPictures):
    """The questions of VQA of which there are people's maps.

    A map that is the same everywhere says nothing and has no rank correlation: it is left out.

    Attributes:
        constant: Names of the maps that were left out so far; which they are is known when they are read.
        prefix: What the names of VQA's files begin with.
        form: How files of maps are named, in words.
        pattern: The same as a regular expression that finds the question's id.
        ids_are: Which ids, in words.
    """

    prefix: str
    form: str
    pattern: str
    ids_are: str

    def __init__(
        self,
        data: str,
        maps: str,
        split: str = "val2014",
        name: str = "mscoco",
        file_name: str = "COCO_{split}_{{:012d}}.jpg",
    ) -> None:
        """Read the questions and list the maps, which are read when their turn comes.

        Args:
            data: Folder of VQA, of the version that the maps are of; see `AskedPictures`.
            maps: Folder of the maps.
            split: Name of the split of VQA that the maps are of.
            name: The data set's name in its files.
            file_name: A picture's name.

        Raises:
            UserError: A file is missing or broken, or a map is of no question.
        """
        super().__init__(data, split, name, file_name, self.prefix)
        self.constant: set[str] = set()
        self._files = self._by_question(Path(maps))
        strange = sorted(set(self._files) - set(self.ids))
        if strange:
            raise UserError(
                f"{self._files[strange[0]][0]}: expected a map of a question of {data}, {split}, but {strange[0]} "
                f"is none of it, nor are {len(strange) - 1} more; the ids are {self.ids_are}: check split and version"
            )
        self.asked = [question for question in self.asked if question.id in self._files]
        self.ids = [question.id for question in self.asked]

    def _by_question(self, folder: Path) -> dict[str, list[Path]]:
        """The files of each question's maps, in the order of the people."""
        suffix = self.form.rpartition(".")[2]
        files = [file for file in folder.glob(f"*.{suffix}") if not file.name.startswith(".")]
        if not files:
            raise UserError(f"{folder}: expected a folder with people's maps named {self.form}, found none")
        by_question: dict[str, list[Path]] = {}
        for file in sorted(files, key=lambda file: (len(file.name), file.name)):
            found = re.fullmatch(self.pattern, file.name)
            if not found:
                raise UserError(f"{file}: expected a file named {self.form}, got {file.name!r}")
            by_question.setdefault(found[1], []).append(file)
        return by_question

    def human(self, number: int) -> Float[Tensor, "a h w"] | None:
        """The maps of all people who were asked, less those that are constant; None if none is left.

        Raises:
            UserError: A file is broken, or the maps of one question differ in size.
        """
        kept = []
        for file in self._files[self.ids[number]]:
            for i, one in enumerate(self.read(file)):
                if one.min() < one.max():
                    kept.append(one)
                elif (label := f"{file.name}[{i}]") not in self.constant:
                    self.constant.add(label)
                    logger.info("%s: map %d is constant and left out", file, i)
        sizes = {tuple(one.shape) for one in kept}
        if len(sizes) > 1:
            where = self._files[self.ids[number]][0]
            raise UserError(f"{where}: expected all maps of a question to be of one size, got {sorted(sizes)}")
        return torch.stack(kept) if kept else None

    def about(self, number: int, words: Sequence[str]) -> list[tuple[int, ...] | None]:
        """() for every answer: its map is judged, against people's, but no thing is known to hold it against."""
        return [()] * len(words)

    @abstractmethod
    def read(self, file: Path) -> Float[Tensor, "a h w"]:
        """Read the maps of one file.

        Raises:
            UserError: It holds none.
        """


class VqaHat(HumanMaps):
    """VQA-HAT: people un-blurred pictures until they could answer. `vqahat_val`, `vqahat_train`; of VQA v1.

    One person a question of train2014, three of val2014 (1,374 questions).
    """

    prefix = ""
    form = "<question id>_<person>.png"
    pattern = r"(\d+)_\d+\.png"
    ids_are = "those of VQA v1, ten times the picture's and a digit"

    def read(self, file: Path) -> Float[Tensor, "a h w"]:
        """The one grey picture of a file, 0 to 1."""
        grey = np.asarray(read_image(file).convert("L"), dtype=np.float32)
        return torch.from_numpy(grey)[None] / 255


class VqaX(HumanMaps):
    """VQA-X: people marked the evidence for an answer. `visual/val`, `visual/test`, both of VQA v2's val2014.

    The authors publish 1,000 `.npz` files each, with three maps each (so they write in issue 8 of their repository,
    Seth-Park/MultimodalExplanations). What is inside is not documented: names are taken for question ids, and every
    array, whatever it is called, for a map or a stack of maps.
    """

    prefix = "v2_"
    form = "<question id>.npz"
    pattern = r"(\d+)\.npz"
    ids_are = "taken for those of VQA v2, a thousand times the picture's and a number"

    def read(self, file: Path) -> Float[Tensor, "a h w"]:
        """All maps of a file."""
        expected = f"{file}: expected people's maps, arrays (h, w) or (a, h, w) of numbers of 0 or more"
        try:
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                arrays = {key: archive[key] for key in archive.files}
        except (ValueError, EOFError, OSError, MemoryError, AttributeError, TypeError, BadZipFile) as error:
            raise UserError(f"{expected}, got a file that has none: {error}") from error
        found = []
        for key, array in arrays.items():
            if array.ndim not in (2, 3) or array.dtype.kind not in "buif" or not array.size:
                raise UserError(f"{expected}, got {array.dtype} of shape {array.shape} as {key!r}")
            maps = torch.from_numpy(array.astype(np.float32)).view(-1, *array.shape[-2:])
            if not maps.isfinite().all() or maps.min() < 0:
                raise UserError(f"{expected}, got {key!r} from {maps.min()} to {maps.max()}")
            found.append(maps)
        if len({one.shape[1:] for one in found}) != 1:
            raise UserError(f"{expected} of one size, got shapes {[tuple(array.shape) for array in arrays.values()]}")
        return torch.cat(found)
