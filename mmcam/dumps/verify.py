"""Whether a file of maps, or a whole dump, is what it should be; every problem in words that say what to do."""

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from mmcam.config import instantiate
from mmcam.disk import checksum_path, sha256
from mmcam.dumps.folder import Folder
from mmcam.dumps.plan import MANIFEST, MAPS, Plan, part_name, read_plan
from mmcam.dumps.reader import MapReader
from mmcam.dumps.schema import FLAGS, dataset, names
from mmcam.errors import UserError
from mmcam.sources import Source

__all__ = ["verify"]

APART = ("offsets", "vocabulary", "failures/ids", "failures/reasons")
"""Data sets that have neither a row a map nor a row a picture."""

ROWS = 4096
"""Rows that are looked at together."""


def verify(where: str | Path) -> list[str]:
    """Check one file, or all files of a dump and that nothing is missing.

    Args:
        where: A file of maps, or the folder of a dump.

    Returns:
        The problems, in words; none if all is well.

    Raises:
        UserError: There is no such file, or no dump in the folder.
    """
    if "://" not in str(where) and Path(where).is_file():
        return verify_file(Path(where))
    folder = Folder(where, make=False)
    plan = read_plan(folder)
    problems: list[str] = []
    whole = True
    for number in range(len(plan.parts)):
        name = part_name(number)
        if not folder.exists(name):
            problems.append(f"{folder.path(name)}: missing; give the command of the dump again to make it")
            whole = False
        else:
            problems += verify_file(_fetched(folder, name))
    if not folder.exists(MAPS):
        if whole:
            problems.append(f"{folder.path(MAPS)}: missing; give the command of the dump again to make it")
        return problems
    found = verify_file(_fetched(folder, MAPS))
    problems += found
    return problems if found else [*problems, *_incomplete(folder, plan)]


def verify_file(path: Path) -> list[str]:
    """Check one file: its checksum, its form, its offsets and the ranges of its numbers."""
    problems: list[str] = []
    beside = checksum_path(path)
    if not beside.is_file():
        problems.append(f"{path}: expected its checksum in {beside.name}, but there is none; sha256sum makes one")
    elif beside.read_text(encoding="utf-8", errors="replace").partition(" ")[0] != sha256(path):
        problems.append(f"{path}: damaged: its checksum is another; give the command of the dump again to mend it")
    try:
        with MapReader(path) as maps, h5py.File(path, "r") as file:
            problems += [f"{path}: {problem}" for problem in _wrong(maps, file)]
    except (UserError, OSError, KeyError, RuntimeError, ValueError, UnicodeDecodeError) as error:
        problems.append(str(error) if str(path) in str(error) else f"{path}: cannot be read: {error}")
    return problems


def _wrong(maps: MapReader, file: h5py.File) -> Iterator[str]:
    """What does not fit together inside a file."""
    offsets = dataset(file, "offsets")[:]
    rows = len(dataset(file, "scores"))
    if offsets[0] != 0 or offsets[-1] != rows or (np.diff(offsets) < 0).any():
        yield f"offsets: expected them to rise from 0 to {rows}, the number of rows; they do not"
    per_picture = {name: len(dataset(file, name)) for name in ("ids", "prompts", "sizes", "windows")}
    per_row = {name: len(dataset(file, name)) for name in names(file) if name not in {*per_picture, *APART}}
    for name, count in per_picture.items():
        if count != len(offsets) - 1:
            yield f"{name}: expected {len(offsets) - 1} pictures, got {count}"
    for name, count in per_row.items():
        if count != rows:
            yield f"{name}: expected {rows} rows, got {count}"
    words = dataset(file, "words")[:]
    if len(words) and not 0 <= words.min() <= words.max() < len(dataset(file, "vocabulary")):
        yield "words: expected numbers of words in /vocabulary, got others"
    if len(set(maps.ids)) < len(maps.ids):
        yield "ids: expected each once, got some twice"
    if (dataset(file, "sizes")[:] < 1).any():
        yield "sizes: expected heights and widths of 1 or more"
    for method in maps.methods:
        group = "" if method == maps.methods[0] else f"{method}/"
        yield from _wrong_maps(file, group, rows)


def _wrong_maps(file: h5py.File, group: str, rows: int) -> Iterator[str]:
    """What cannot be in the maps of one method."""
    for start in range(0, rows, ROWS):
        part = slice(start, min(rows, start + ROWS))
        maps, peaks, flags = (dataset(file, f"{group}{name}")[part] for name in ("maps", "peaks", "flags"))
        finite = np.isfinite(maps).all((1, 2)) & np.isfinite(peaks)
        highest = np.where(finite, np.nan_to_num(maps).max((1, 2), initial=0), 1.0)
        if (flags >= len(FLAGS)).any():
            yield f"{group}flags: expected 0 to {len(FLAGS) - 1}, got {flags.max()}"
        if ((maps < 0) | (maps > 1)).any():
            yield f"{group}maps: expected numbers from 0 to 1, got others in rows {part.start}:{part.stop}"
        if (finite & (flags == 0) & (np.abs(highest - 1) > 1e-3)).any() or (peaks < 0).any():
            yield f"{group}peaks: expected every map to reach 1, got others in rows {part.start}:{part.stop}"
        if (~finite & (flags != FLAGS.index("non-finite"))).any():
            yield f"{group}flags: expected non-finite maps to be flagged, got others in rows {part.start}:{part.stop}"


def _incomplete(folder: Folder, plan: Plan) -> Iterator[str]:
    """What of the data set is neither explained nor known to have failed, or was never asked for."""
    try:
        source = instantiate({"data": plan.record["data"]}, "data", Source)
    except UserError as error:
        yield f"{folder.path(MANIFEST)}: the data cannot be opened to compare: {error}"
        return
    with MapReader(folder.fetch(MAPS)) as maps:
        ids = {name.partition(":given")[0] for name in (*maps.ids, *maps.failures)}
    expected = source.ids[: plan.record["samples"]]
    missing = [name for name in expected if name not in ids]
    if missing:
        yield f"{folder.path(MAPS)}: {len(missing)} samples of the data are missing, the first is {missing[0]}"
    more = ids - {*expected}
    if more:
        yield f"{folder.path(MAPS)}: {len(more)} samples are not of the data, one is {min(more)}"


def _fetched(folder: Folder, name: str) -> Path:
    """A file and its checksum, here."""
    if folder.exists(f"{name}.sha256"):
        folder.fetch(f"{name}.sha256")
    return folder.fetch(name)
