"""Files that are on the disk whole or not at all: made under another name, hashed, synced, renamed."""

import hashlib
import os
import platform
from pathlib import Path

__all__ = ["checksum_path", "sha256", "sync", "unfinished"]


def checksum_path(path: Path) -> Path:
    """Where the checksum of a file lies."""
    return path.with_name(f"{path.name}.sha256")


def unfinished(path: Path) -> Path:
    """Where a process makes a file before it has its name; no other process, on whatever machine, uses that."""
    return path.with_name(f".{path.name}.{platform.node() or 'here'}.{os.getpid()}.part")


def sha256(path: Path) -> str:
    """Hash a file's content, in 64 digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
