"""What a file is, by its first bytes and never by its name: `.pkl` may be torch's, and `.pth.tar` is no tar."""

import hashlib
import json
import re
import tarfile
import zipfile
from io import SEEK_CUR
from pathlib import Path
from typing import Any

from mmcam.errors import UserError
from mmcam.find import check_file

__all__ = ["KINDS", "kind_of", "read_json", "read_lines", "sha256"]

KINDS = {
    "torch": "a torch checkpoint",
    "old torch": "a torch checkpoint from before torch 1.6",
    "torchscript": "a TorchScript program",
    "torch tar": "a torch checkpoint from before torch 0.2",
    "pickle": "a Python pickle",
    "json": "JSON",
    "npz": "NumPy arrays (npz)",
    "npy": "a NumPy array (npy)",
    "hdf5": "HDF5",
    "safetensors": "safetensors",
    "zip": "a zip archive",
    "tar": "a tar archive",
    "gzip": "a gzip archive",
    "lua": "a Lua torch file (t7)",
    "html": "a web page",
    "lfs": "a Git LFS pointer in the file's place",
    "text": "text",
    "empty": "an empty file",
    "unknown": "something else",
}
"""What `kind_of` says, in words."""

# torch.serialization.MAGIC_NUMBER as protocol 2 pickles it: a long of ten bytes.
OLD_TORCH = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
LARGEST_TEXT = 256 * 2**20
STARTS = {
    b"\x89HDF\r\n\x1a\n": "hdf5",
    b"\x93NUMPY": "npy",
    b"\x1f\x8b": "gzip",
    b"version https://git-lfs": "lfs",
    b"\x04\x00\x00\x00\x01\x00\x00\x00": "lua",
}


def kind_of(path: Path | str) -> str:
    """Say what a file is.

    Args:
        path: The file.

    Returns:
        A key of `KINDS`.

    Raises:
        UserError: There is no such file, or it is a folder.
    """
    path = Path(path)
    check_file(path, "file")
    with path.open("rb") as stream:
        head = stream.read(4096)
    if not head:
        return "empty"
    for start, kind in STARTS.items():
        if head.startswith(start):
            return kind
    if head.startswith(b"PK") and zipfile.is_zipfile(path):
        return _kind_of_zip(path)
    if head[:1] == b"\x80" and head[2 : 2 + len(OLD_TORCH)] == OLD_TORCH:
        return "old torch"
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= path.stat().st_size:
        return "safetensors"
    if names := _names_in_tar(path):
        inside = {name.removeprefix("./") for name in names}
        return "torch tar" if {"storages", "tensors", "pickle"} & inside else "tar"
    if head[:1] == b"\x80" and head[1] <= 5:
        return "pickle"
    # Those of protocols 0 and 1 begin with a container and its memo number, or with the class of an object.
    if head[:3] in (b"(dp", b"(lp", b"(i_") or head[:2] in (b"}q", b"]q") or re.match(rb"c[\w.]+\n\w+\n", head):
        return "pickle"
    return _kind_of_text(head)


def read_json(path: Path | str) -> Any:  # noqa: ANN401
    """Read a JSON file.

    Raises:
        UserError: It is something else, or broken.
    """
    kind = kind_of(path)
    if kind != "json":
        raise UserError(f"{path}: expected JSON, got {KINDS[kind]}")
    check_size(Path(path))
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not whole JSON: {error}; copy it again") from error


def read_lines(path: Path | str) -> list[str]:
    """Read a text file's lines, stripped; a last empty one is none.

    Raises:
        UserError: It is no text.
    """
    kind = kind_of(path)
    if kind not in ("text", "json"):
        raise UserError(f"{path}: expected text, got {KINDS[kind]}")
    check_size(Path(path))
    try:
        return [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected text in UTF-8, got {error}") from error


def sha256(path: Path | str) -> str:
    """Hash a file's content."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_size(path: Path, largest: int = LARGEST_TEXT) -> None:
    """Refuse a file that is too large to be what it should be.

    Raises:
        UserError: It is.
    """
    size = path.stat().st_size
    if size > largest:
        raise UserError(f"{path}: expected {largest / 2**20:.0f} MiB at most, got {size / 2**20:.0f} MiB")


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # a broken archive may fail in any way
        return "zip"
    insides = {name.partition("/")[2] for name in names}
    if "constants.pkl" in insides:
        return "torchscript"
    if "data.pkl" in insides:
        return "torch"
    return "npz" if names and all(name.endswith(".npy") for name in names) else "zip"


def _names_in_tar(path: Path) -> list[str]:
    """The first names in a tar archive, none if it is not one.

    By its headers alone: `tarfile` also unpacks what is compressed, and reads long names however long they are.
    """
    names: list[str] = []
    with path.open("rb") as stream:
        for _ in range(4):
            try:
                entry = tarfile.TarInfo.frombuf(stream.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
            except tarfile.TarError:
                break
            names.append(entry.name)
            if not 0 <= entry.size <= path.stat().st_size:
                break
            stream.seek(-(-entry.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE, SEEK_CUR)
    return names


def _kind_of_text(head: bytes) -> str:
    # The last character may be cut in the middle.
    text = head.decode(errors="replace").removesuffix("\ufffd").lstrip("\ufeff")
    if "\ufffd" in text or not all(c.isprintable() or c.isspace() for c in text):
        return "unknown"
    start = text.lstrip().lower()
    if start.startswith(("<!doctype html", "<html")):
        return "html"
    return "json" if start.startswith(("{", "[")) else "text"
