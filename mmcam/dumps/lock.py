"""One process at a time on a folder, and a way to stop it that loses nothing."""

import hashlib
import logging
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from os import getpid
from pathlib import Path

from filelock import FileLock, Timeout

from mmcam.dumps.folder import Folder
from mmcam.errors import UserError

__all__ = ["Stopped", "alone", "locked", "stopping"]

logger = logging.getLogger(__name__)


class Stopped(Exception):
    """The user wants to stop; everything finished is on the disk."""


@contextmanager
def locked(folder: Folder, shard: tuple[int, int] = (1, 1)) -> Iterator[None]:
    """Keep other processes from the same work; the system gives the lock back when its holder dies.

    Shards of one division (1/4, 2/4 …) go together; those of another may have the same parts to do and do not. For a
    folder that is elsewhere, only processes of this machine are kept off.

    Args:
        folder: The dump's.
        shard: (i, n): what part of the work.

    Raises:
        UserError: Another process holds it; says which.
    """
    mine = _place(folder, f"{shard[0]}-of-{shard[1]}")
    lock, holder = FileLock(mine), mine.with_name(f"{mine.name}.json")
    try:
        lock.acquire(blocking=False)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        holder.write_text(f"process {getpid()} on {socket.gethostname()} since {since}", encoding="utf-8")
    except Timeout:
        raise _busy(folder, holder) from None
    try:
        # Own lock first: of two that look at each other's, at least one gives way.
        for other in mine.parent.glob(f"{mine.name.rpartition('lock-')[0]}lock-*-of-*"):
            if other.suffix != ".json" and not other.name.endswith(f"-of-{shard[1]}") and _held(other):
                raise _busy(folder, other.with_name(f"{other.name}.json"))
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


@contextmanager
def alone(folder: Folder) -> Iterator[None]:
    """Wait until no other process brings the parts together."""
    with FileLock(_place(folder, "merge")):
        yield


def _place(folder: Folder, what: str) -> Path:
    """The file of a lock."""
    if folder.local is not None:
        return folder.local / f".lock-{what}"
    return Path(tempfile.gettempdir()) / f"mmcam-{hashlib.sha256(folder.url.encode()).hexdigest()[:16]}-lock-{what}"


def _held(path: Path) -> bool:
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False


def _busy(folder: Folder, holder: Path) -> UserError:
    who = holder.read_text(encoding="utf-8") if holder.exists() else "another process"
    return UserError(f"{folder.url} is being written by {who}; wait for it, or dump into another folder")


@contextmanager
def stopping() -> Iterator[Callable[[], None]]:
    """Turn Ctrl-C and SIGTERM into `Stopped` at the next call of the function that it yields."""
    asked: list[int] = []

    def note(number: int, _: object) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt  # the user insists
        asked.append(number)
        logger.warning("finishing the batch in hand …")

    def look() -> None:
        if asked:
            raise Stopped

    if threading.current_thread() is not threading.main_thread():  # only that one is told of signals
        yield look
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield look
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
