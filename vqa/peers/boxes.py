"""Pictures as features of boxes, computed beforehand: the HDF5 files of bottom-up attention (arXiv 1707.07998)."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmcam.errors import UserError
from mmcam.importing.files import KINDS, kind_of
from mmcam.importing.pickles import read_pickle

__all__ = ["BoxFeatures", "Boxes", "paint", "picture_of"]

CANVAS = 224
"""Pixels of the longer side of what boxes are painted on."""

LENGTHS = {"image_features": 0, "image_bb": 4, "spatial_features": 6}
"""How many numbers a box has in each data set; 0 for any number."""


LARGEST = 2**24
"""Numbers of one picture's features; a file of a few bytes may say that it has any."""


class Boxes(nn.Module):
    """Stands where the CNN stands in other models: its input, features of boxes, is what is explained."""

    size = (1, 1)
    mean = std = (1.0, 1.0, 1.0)
    layer = "boxes"

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = self.dim = channels

    def trunk(self, images: Float[Tensor, "b k n 1"]) -> tuple[Float[Tensor, "b k n 1"], dict[str, Any]]:
        """The features as they are."""
        return images, {}

    def vector(self, activations: Float[Tensor, "b k n 1"], memo: dict[str, Any]) -> Float[Tensor, "b k"]:
        """Their mean."""
        return activations.mean((2, 3))


class BoxFeatures:
    """The features of the boxes of many pictures, by the pictures' numbers; read when they are asked for."""

    def __init__(self, features: Path | str, pictures: Path | str) -> None:
        """Find the files.

        Args:
            features: `val36.hdf5`, with image_features (N, n, k), image_bb (N, n, 4) and spatial_features (N, n, 6).
            pictures: `val36_imgid2idx.pkl`, from pictures' numbers to rows.

        Raises:
            UserError: A file is missing or of something else.
        """
        self.path = Path(features)
        if (kind := kind_of(self.path)) != "hdf5":
            raise UserError(f"{features}: expected features of boxes in HDF5, got {KINDS[kind]}")
        try:
            with h5py.File(self.path) as file:
                sets = [file.get(key) for key in LENGTHS]
                shapes = {key: getattr(found, "shape", ()) for key, found in zip(LENGTHS, sets, strict=True)}
                kinds = {getattr(getattr(found, "dtype", None), "kind", "") for found in sets}
        except OSError as error:
            raise UserError(f"{features}: expected whole HDF5, got {error}; copy it again") from error
        self.shape: tuple[int, ...] = shapes["image_features"]
        if len(self.shape) != 3 or any(
            shapes[key] != (*self.shape[:2], n or self.shape[2]) for key, n in LENGTHS.items()
        ):
            raise UserError(
                f"{features}: expected image_features (N, n, k), image_bb (N, n, 4) and spatial_features (N, n, 6), "
                f"got {', '.join(f'{key} {shape}' for key, shape in shapes.items())}"
            )
        if not kinds <= set("fiu") or self.shape[1] * self.shape[2] > LARGEST:
            raise UserError(
                f"{features}: expected numbers, {LARGEST} a picture at most, got {self.shape[1]} boxes of "
                f"{self.shape[2]} and types {', '.join(sorted(kinds))}"
            )
        self._rows = rows_of(read_pickle(pictures), str(pictures))

    def of(self, name: str, size: tuple[int, int]) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n 4"]]:
        """Read one picture's features.

        Args:
            name: The sample's id, see `picture_of`.
            size: Height and width of the picture, in pixels.

        Returns:
            The features, and the boxes: left, top, right and bottom as shares of the picture.

        Raises:
            UserError: There are none of this picture, or the boxes are those of one of another size.
        """
        number = picture_of(name)
        row = self._rows.get(number)
        if row is None or not 0 <= row < self.shape[0]:
            raise UserError(
                f"{name!r}: expected a picture of which {self.path} has features, got number {number}; name it by "
                "COCO's file name, such as COCO_val2014_000000262148, or by a question's number in VQA v2"
            )
        with h5py.File(self.path) as file:
            features, pixels, shares = (torch.from_numpy(np.float32(file[key][row])) for key in LENGTHS)  # pyright: ignore
        if not all(bool(torch.isfinite(found).all()) for found in (features, pixels, shares)):
            raise UserError(f"{self.path}: expected finite features and boxes, got others in row {row}; copy it again")
        # Boxes in pixels over boxes in shares: the size of the picture that the features were computed of.
        width, height = (float(pixels[:, i].max() / shares[:, i].max()) for i in (2, 3))
        if not (abs(width - size[1]) <= 2 and abs(height - size[0]) <= 2):  # NaN included
            raise UserError(
                f"{name!r}: expected the picture of {width:.0f} x {height:.0f} pixels that the features of number "
                f"{number} are of, got one of {size[1]} x {size[0]}"
            )
        return features, shares[:, :4]


def rows_of(tree: object, where: str) -> dict[int, int]:
    """Check a dictionary from pictures' numbers to rows.

    Raises:
        UserError: It is something else.
    """
    if not isinstance(tree, Mapping) or not all(type(n) is int and type(row) is int for n, row in tree.items()):
        raise UserError(f"{where}: expected a dictionary from pictures' numbers to rows, got {type(tree).__name__}")
    return {int(number): row for number, row in tree.items()}


def picture_of(name: str) -> int:
    """Read a picture's number out of a sample's id.

    Args:
        name: A file's name as COCO has them, of 12 digits at its end, with the number of a question behind it or not:
            "COCO_val2014_000000262148-q1"; or the number of a question of VQA v2, 1000 times the picture's and more.

    Returns:
        The number.

    Raises:
        UserError: It is neither.
    """
    stem = re.sub(r"-q[0-9]+$", "", name)
    if match := re.search(r"(?<![0-9])[0-9]{1,18}$", stem):
        asked = match[0] == stem and len(stem) != 12
        return int(stem) // 1000 if asked else int(match[0])
    raise UserError(
        f"{name!r}: expected the name of a picture with its number, such as COCO_val2014_000000262148; rename the file"
    )


def paint(scores: Float[Tensor, "r n"], boxes: Float[Tensor, "n 4"], size: tuple[int, int]) -> Float[Tensor, "r y x"]:
    """Paint boxes with their scores: each pixel shows the highest score of the boxes over its centre, or zero.

    Args:
        scores: One row a map.
        boxes: Left, top, right and bottom as shares of the picture. One between all centres is painted on one pixel.
        size: Height and width of the picture; the canvas has its form, with a longer side of `CANVAS` at most.

    Returns:
        The maps.
    """
    shrunk = min(1.0, CANVAS / max(size))
    height, width = (max(1, round(side * shrunk)) for side in size)
    sides = torch.tensor([width, height], dtype=boxes.dtype, device=boxes.device)
    low, high = (boxes[:, i : i + 2] * sides for i in (0, 2))  # in pixels of the canvas
    first, end = (low - 0.5).ceil(), (high - 0.5).ceil()
    middle = ((low + high) / 2).floor().clamp(min=0).minimum(sides - 1)
    empty = end <= first
    first, end = torch.where(empty, middle, first), torch.where(empty, middle + 1, end)
    canvas = scores.new_full((len(scores), height, width), -torch.inf)
    for n, ((left, top), (right, bottom)) in enumerate(zip(first.int().tolist(), end.int().tolist(), strict=True)):
        part = canvas[:, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        part.copy_(part.maximum(scores[:, n, None, None]))
    return canvas.masked_fill(canvas == -torch.inf, 0)
