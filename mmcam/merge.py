"""Joining files of maps: the parts of a dump, or dumps from several machines."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np

from mmcam.errors import UserError
from mmcam.reader import MapReader
from mmcam.store import MapWriter, dataset, names

__all__ = ["merge"]

SAME = ("schema_version", "layer", "methods", "weights_sha256", "config")
ROWS = 4096
"""Rows that are copied at a time: some megabytes, however large the files are."""


def merge(files: Sequence[Path], out: Path) -> None:
    """Write the content of several files into one.

    What failed in one file and is in another is no failure.

    Args:
        files: In order; all of the same configuration, weights, layer and methods.
        out: The new file; one that is there is replaced.

    Raises:
        UserError: A file is not of maps, differs from the first in what it is of, or holds an id that another has.
    """
    done: set[str] = set()
    failures: dict[str, str] = {}
    for file in files:
        with MapReader(file) as maps:
            done.update(maps.ids)
            failures |= maps.failures
    with ExitStack() as stack:
        first = stack.enter_context(h5py.File(files[0], "r"))
        kept: set[str] = set()
        for path in files:
            with h5py.File(path, "r") as file:
                kept |= {name.rpartition("/")[2] for name in names(file)}
                for name in SAME:
                    if file.attrs[name] != first.attrs[name]:
                        raise UserError(f"{path}: expected the {name} of {files[0]}, got another; merge those alike")
        writer = MapWriter(
            out,
            config=json.loads(str(first.attrs["config"])),
            layer=str(first.attrs["layer"]),
            methods=json.loads(str(first.attrs["methods"])),
            weights_sha256=str(first.attrs["weights_sha256"]),
            signed="signed" in kept,
            weights="weights" in kept,
            overwrite=True,
            checksum=True,
        )
        maps = stack.enter_context(writer)
        for path in files:
            with h5py.File(path, "r") as file:
                for pictures in _pieces(dataset(file, "offsets")[:]):
                    maps.copy(file, pictures)
        maps.fail({name: reason for name, reason in failures.items() if not {name, f"{name}:given"} & done})


def _pieces(offsets: np.ndarray) -> Iterator[slice]:
    """Cut the pictures of a file into runs of few rows."""
    start = 0
    while start < len(offsets) - 1:
        stop = max(start + 1, int(np.searchsorted(offsets, offsets[start] + ROWS, "right")) - 1)
        stop = min(stop, start + ROWS, len(offsets) - 1)
        yield slice(start, stop)
        start = stop
