"""The HDF5 file of maps: N rows, one per explained word, of M pictures, questions or captions.

    name               shape      dtype    meaning
    /maps              (N, h, w)  float16  ReLU map divided by its peak, a row a word; raw map = maps * peaks
    /peaks             (N,)       float32  that peak; 0 for a map that is nowhere positive
    /flags             (N,)       enum     uint8: 0 ok, 1 zero, 2 negative (nothing after ReLU), 3 non-finite
    /scores            (N,)       float32  y: log p(word), answer logit or class logit, or a sum of such
    /words             (N,)       int32    number of the word, phrase, answer or class name in /vocabulary
    /target_ids        (N,)       int32    vocabulary, answer or class index; -1 for a row of several, or if not told
    /vocabulary        (V,)       utf-8    all words of the file, each once
    /offsets           (M+1,)     int64    the rows of picture i are offsets[i]:offsets[i+1]
    /ids               (M,)       utf-8    name of the picture, question or caption, each once
    /prompts           (M,)       utf-8    the question, or the caption that was given; empty otherwise
    /sizes             (M, 2)     int32    height and width of the original picture
    /windows           (M, 4)     float64  what the maps cover of it: top, left, bottom, right in its pixels
    /failures/ids      (F,)       utf-8    names of what could not be explained
    /failures/reasons  (F,)       utf-8    why

Where it was asked for, each method's group has three more:

    /signed            (N, h, w)  float16  the map before ReLU, divided by its scale
    /scales            (N,)       float32  that scale, the largest absolute value; 0 for a map of zeros
    /weights           (N, k)     float32  α of each channel (only of methods that are made of such, as Grad-CAM is)

A file of several methods holds the first one's `maps`, `peaks` and `flags` (and `signed`, `scales`, `weights`) at the
root, and the same of every other one in a group of its name, as in `/hires_cam/maps`. All else is common to them.

The attributes of the file are `schema_version` (2), `config` (as resolved, JSON), `conventions` (what the numbers mean,
in words), `versions` (of the packages that made them, JSON), `weights_sha256`, `layer`, `methods` (JSON) and `created`
(ISO 8601, UTC).

Maps lie at the layer's resolution; what is read back differs from what was written by at most a thousandth of the map's
peak.
"""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from math import prod
from typing import Any, cast

import h5py
import numpy as np
import torch

from mmcam import __version__

SCHEMA_VERSION = 2
FLAGS = ("", "zero", "negative", "non-finite")
"""`Explanation.flags` by their number in the file."""

CONVENTIONS = (
    "maps: ReLU applied, at the layer's resolution, neither scaled nor smoothed but for the division by the peak; "
    "alpha: mean of dy/dA over all places; y: log-probability of a caption's word, logit of an answer or class; "
    "offsets: from 0, half open; windows and sizes: pixels of the original picture, turned upright"
)
TEXT = h5py.string_dtype()
FLAG = h5py.enum_dtype({name or "ok": number for number, name in enumerate(FLAGS)}, basetype="u1")
ROWS = {"scores": np.float32, "words": np.int32, "target_ids": np.int32}
MAPS = ("maps", "peaks", "flags", "signed", "scales", "weights")
"""What each method has of its own."""

PICTURES = {"ids": TEXT, "prompts": TEXT, "sizes": np.int32, "windows": np.float64}
WORDS = {"vocabulary": TEXT}
FAILURES = {"failures/ids": TEXT, "failures/reasons": TEXT}
TAILS = {"sizes": (2,), "windows": (4,)}
PACKED = {"shuffle": True, "compression": "gzip", "compression_opts": 1, "fletcher32": True}
CHUNK = 2**18
"""Bytes of maps that are compressed together: what reading one picture costs at least."""


def dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """A data set by name."""
    return cast(h5py.Dataset, file[name])


def names(file: h5py.File) -> list[str]:
    """All data sets of a file, with their groups."""
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


def create(file: h5py.File, name: str, tail: Sequence[int], dtype: Any) -> None:  # noqa: ANN401
    """Make an empty data set that grows by rows; large rows are compressed, a chunk at a time.

    Args:
        file: The file, open for writing.
        name: Of the data set, with its group.
        tail: Shape of a row.
        dtype: Of the values.
    """
    if 0 in tail:  # a file without pictures
        file.create_dataset(name, (0, *tail), dtype)
        return
    large = name.rpartition("/")[2] in MAPS and len(tail) > 0
    rows = min(256, max(1, CHUNK // (2 * prod(tail)))) if large else 1024
    more = PACKED if large else {}
    file.create_dataset(name, (0, *tail), dtype, maxshape=(None, *tail), chunks=(rows, *tail), **more)


def extend(file: h5py.File, values: Mapping[str, Any]) -> None:
    """Add rows to data sets, by name."""
    for name, rows in values.items():
        if len(rows):
            data = dataset(file, name)
            start = len(data)
            data.resize(start + len(rows), axis=0)
            data[start:] = rows


def versions() -> dict[str, str]:
    """What made the numbers."""
    found = {"python": platform.python_version(), "mmcam": __version__, "torch": str(torch.__version__)}
    for name in ("torchvision", "h5py", "Pillow", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
