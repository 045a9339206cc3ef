"""Where a dump is kept: a folder here, or one that fsspec reaches (`s3://…`, `gs://…`, `memory://…`).

What is published is there whole or not at all. Elsewhere, files are made in a temporary folder and sent when finished.
"""

import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

import fsspec

from mmcam.disk import checksum_path, sha256, sync, unfinished
from mmcam.errors import UserError

__all__ = ["Folder"]


class Folder:
    """A folder of finished files.

    Attributes:
        url: As the user named it.
        local: Where it is on this machine; None if it is elsewhere.
    """

    def __init__(self, url: str | Path, *, make: bool = True) -> None:
        """Open the folder.

        Args:
            url: A path, or a URL.
            make: Make it if it is missing, and see that it can be written.

        Raises:
            UserError: It cannot be reached or written.
        """
        self.url = str(url)
        self.local = Path(url) if "://" not in self.url else None
        self._fetched: Path | None = None
        try:
            self._files, self._root = fsspec.url_to_fs(self.url)
            if make:
                self._files.makedirs(self._root, exist_ok=True)
            elif not self._files.isdir(self._root):
                raise UserError(f"{self.url}: expected a file or folder, but there is none; check the path")
        except (ImportError, ValueError, OSError) as error:
            raise UserError(f"{self.url}: expected a folder that can be made, got: {error}") from error
        if make and self.local is not None and not os.access(self.local, os.W_OK):
            raise UserError(f"{self.url}: expected a folder that can be written, got a read-only one; name another")

    def path(self, name: str) -> str:
        """The name of a file in it, for people."""
        return f"{self.url.rstrip('/')}/{name}"

    def work(self) -> Path:
        """Where new files are made: in the folder itself if it is here, so that publishing is a renaming."""
        return self.local or self._temporary()

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return self._files.exists(f"{self._root}/{name}")

    def read(self, name: str) -> bytes:
        """Read a small file."""
        return self._files.cat_file(f"{self._root}/{name}")

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, whole or not at all."""
        new = unfinished(self.work() / Path(name).name)
        new.write_bytes(content)
        sync(new)
        self._publish(new, name)

    def publish(self, path: Path, name: str) -> None:
        """Send a file made in `work()` and its checksum, the checksum first; here, there is nothing to do."""
        if self.local is None:
            self._publish(checksum_path(path), f"{name}.sha256")
            self._publish(path, name)

    def fetch(self, name: str) -> Path:
        """Bring a file here, if it is not; it is kept as long as this object."""
        if self.local is not None:
            return self.local / name
        path = self._temporary() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._files.get_file(f"{self._root}/{name}", str(path))
        return path

    def intact(self, name: str) -> bool:
        """Whether a file is there and is what its checksum says."""
        if not (self.exists(name) and self.exists(f"{name}.sha256")):
            return False
        expected = self.read(f"{name}.sha256").decode("utf-8", "replace").partition(" ")[0]
        return sha256(self.fetch(name)) == expected

    def clean(self, names: Sequence[str]) -> None:
        """Remove what a killed process has left of these files; for the one that holds their lock."""
        for name in names:
            place = (self.local or self._temporary()) / name
            for path in place.parent.glob(f".{place.name}*.part"):
                path.unlink(missing_ok=True)

    def _publish(self, path: Path, name: str) -> None:
        target = f"{self._root}/{name}"
        if self.local is not None:
            path.replace(self.local / name)
            sync(self.local)
            return
        self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._files.put_file(str(path), f"{target}.part")
        self._files.mv(f"{target}.part", target)
        path.unlink()

    def _temporary(self) -> Path:
        if self._fetched is None:
            self._fetched = Path(tempfile.mkdtemp(prefix="mmcam-"))
            weakref.finalize(self, shutil.rmtree, self._fetched, ignore_errors=True)
        return self._fetched
