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


def merge(files: Sequence[Path], out: Path, *, again: bool = False) -> None:
    """Write the content of several files into one.

    What failed in one file and is in another is no failure.

    Args:
        files: In order; all of the same configuration, weights, layer and methods.
        out: The new file; one that is there is replaced.
        again: An id that comes again replaces the former, as where failures have been made up for.

    Raises:
        UserError: A file is not of maps, differs from the first in what it is of, or holds an id that another has.
    """
    last: dict[str, int] = {}
    failures: dict[str, str] = {}
    for number, file in enumerate(files):
        with MapReader(file) as maps:
            last |= dict.fromkeys(maps.ids, number)
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
        for number, path in enumerate(files):
            with h5py.File(path, "r") as file:
                keep = np.array([not again or last[name] == number for name in dataset(file, "ids").asstr()[:]], bool)
                for pictures in _pieces(dataset(file, "offsets")[:], keep):
                    maps.copy(file, pictures)
        maps.fail({name: reason for name, reason in failures.items() if name not in last})


def _pieces(offsets: np.ndarray, keep: np.ndarray) -> Iterator[slice]:
    """Cut the pictures that are kept into runs of few rows."""
    start = 0
    while start < len(keep):
        stop = max(start + 1, int(np.searchsorted(offsets, offsets[start] + ROWS, "right")) - 1)
        stop = min(stop, start + ROWS, len(keep))
        dropped = np.flatnonzero(~keep[start:stop])
        if len(dropped):
            stop = start + int(dropped[0])
        if stop > start:
            yield slice(start, stop)
        start = stop + (len(dropped) > 0)
