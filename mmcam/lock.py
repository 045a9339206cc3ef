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

from mmcam.errors import UserError
from mmcam.folder import Folder

__all__ = ["Stopped", "locked", "stopping"]

logger = logging.getLogger(__name__)


class Stopped(Exception):
    """The user wants to stop; everything finished is on the disk."""


@contextmanager
def locked(folder: Folder, shard: tuple[int, int] = (1, 1)) -> Iterator[None]:
    """Keep other processes from the same work; the system gives the lock back when its holder dies.

    Raises:
        UserError: Another process holds it; says which.
    """
    name = ".lock" if shard == (1, 1) else f".lock-{shard[0]}-of-{shard[1]}"
    where = folder.local or Path(tempfile.gettempdir())
    if folder.local is None:  # keeps off the processes of this machine only
        name = f"mmcam-{hashlib.sha256(folder.url.encode()).hexdigest()[:16]}{name}"
    lock, holder = FileLock(where / name), where / f"{name}.json"
    try:
        lock.acquire(blocking=False)
    except Timeout:
        told = holder.read_text(encoding="utf-8") if holder.exists() else "another process"
        raise UserError(f"{folder.url} is being written by {told}; wait for it, or dump into another folder") from None
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        holder.write_text(f"process {getpid()} on {socket.gethostname()} since {since}", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


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
