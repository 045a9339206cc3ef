"""The folder of uploads: how much may lie there, and what is deleted when."""

import time
from collections.abc import Collection, Iterator
from os import stat_result
from pathlib import Path

__all__ = ["AGE", "held", "sweep"]

AGE = 3600
"""Seconds that an upload may lie there."""


def held(folder: Path) -> int:
    """Bytes of all files, those still being written too."""
    return sum(facts.st_size for _, facts in _files(folder))


def sweep(folder: Path, age: int = AGE, keep: Collection[str] = ()) -> set[str]:
    """Delete old files, and the folders that held them; also what was left by clients who went away half-way.

    Args:
        folder: Of uploads; all that lies in it is the demo's.
        age: In seconds since a file was last written to.
        keep: Files that stay (the sample pictures).

    Returns:
        The files that were deleted.
    """
    before, gone = time.time() - age, set()
    for path, facts in list(_files(folder)):
        if facts.st_mtime >= before or str(path) in keep:
            continue
        path.unlink(missing_ok=True)
        gone.add(str(path))
        if path.parent != folder and not any(path.parent.iterdir()):
            path.parent.rmdir()
    return gone


def _files(folder: Path) -> Iterator[tuple[Path, stat_result]]:
    for path in folder.rglob("*"):
        try:
            facts = path.lstat()
        except FileNotFoundError:  # deleted in the meantime
            continue
        if not path.is_dir():
            yield path, facts
