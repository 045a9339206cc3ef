"""Bounds on the memory of a server that runs for long.

Gradio keeps what the last hundred users looked at, all that was ever shown to them as text (pictures are text here),
and answers that nobody fetched. glibc gives every thread a heap of its own and, once a large block was freed, takes
blocks of up to 32 MB from them; such heaps grow with every mixture of sizes.
"""

import ctypes
import sys
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any

from mmcam.demo.kept import Look

__all__ = ["MOST_KEPT", "UNREAD", "forget", "forget_shown", "give_back", "steady"]

MOST_KEPT = 512 * 2**20
"""Bytes of the pictures and maps of all users."""
UNREAD = 256
"""Users whose answers wait to be fetched."""
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8  # of <malloc.h>


def steady() -> bool:
    """Let the C library give memory back: blocks from 1 MiB on as they are freed, and two heaps for all threads.

    Before threads are started, and for processes of one's own only: it holds for the whole process.

    Returns:
        Whether the library is glibc, the only one that needs it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    wanted = {ARENA_MAX: 2, MMAP_THRESHOLD: 2**20, TRIM_THRESHOLD: 2**24}
    return all([mallopt(what, value) for what, value in wanted.items()])


def give_back() -> None:
    """Give the system what no longer is used of the C library's heaps."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def forget(sessions: Sequence[MutableMapping[int, Any]], most: int = MOST_KEPT) -> int:
    """Drop looks until the rest fits; their users are told to press Explain.

    Args:
        sessions: What is kept for each user, the one who came last at the end; that one keeps what it has.
        most: Bytes.

    Returns:
        How many were dropped.
    """
    held = [
        (number, key, value.nbytes)
        for number, session in enumerate(sessions)
        for key, value in session.items()
        if isinstance(value, Look)
    ]
    over, count = sum(size for *_, size in held) - most, 0
    for number, key, size in held:
        if over <= 0 or number == len(sessions) - 1:
            break
        del sessions[number][key]
        over, count = over - size, count + 1
    return count


def forget_shown(config: Mapping[int, Mapping[str, Any]], parts: Iterable[int]) -> None:
    """Drop what a session keeps of values that were sent to the browser; nothing here reads them again.

    Args:
        config: The session's copy of the page's configuration, by number of the part.
        parts: Numbers of those that were shown.
    """
    for number in parts:
        props = config.get(number, {}).get("props", {})
        if "value" in props:
            props["value"] = None
