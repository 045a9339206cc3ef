"""Joining files of maps: the parts of a dump, or dumps from several machines."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmcam.dumps.reader import MapReader
from mmcam.dumps.schema import dataset
from mmcam.dumps.store import MapWriter
from mmcam.errors import UserError

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
    kept: set[str] = set()
    first: dict[str, Any] = {}
    for number, path in enumerate(files):
        with MapReader(path) as maps:
            first = first or maps.attributes
            for name in SAME:
                if maps.attributes[name] != first[name]:
                    raise UserError(f"{path}: expected the {name} of {files[0]}, got another; merge those alike")
            kept |= {name.rpartition("/")[2] for name, *_ in maps.contents()}
            last |= dict.fromkeys(maps.ids, number)
            failures |= maps.failures
    writer = MapWriter(
        out,
        config=first["config"],
        layer=first["layer"],
        methods=first["methods"],
        weights_sha256=first["weights_sha256"],
        signed="signed" in kept,
        weights="weights" in kept,
        overwrite=True,
        checksum=True,
    )
    with writer as whole:
        for number, path in enumerate(files):
            with h5py.File(path, "r") as file:
                keep = np.array([not again or last[name] == number for name in dataset(file, "ids").asstr()[:]], bool)
                for pictures in _pieces(dataset(file, "offsets")[:], keep):
                    whole.copy(file, pictures)
        whole.fail({name: reason for name, reason in failures.items() if name not in last})


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
