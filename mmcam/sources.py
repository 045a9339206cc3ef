"""What a dump goes through: named pictures, each with its question and with the texts that people wrote about it.

A source is a `data:` section (`class_path` and `init_args`) in a task's configuration, or pictures of the user's own:

    scenes:test        the section of `configs/<the task's package>/scenes.yaml`, with `split: test`
    photos/            all pictures of a folder
    list.txt           a path or URL a line
    list.csv           with a header: path, and if wanted id, text (the question), given (what to explain)
    my.yaml            the section of a file
    s3://bucket/dir    any of these by a URL that fsspec can open
"""

import csv
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import fsspec
from PIL import Image

from mmcam.class_path import import_class
from mmcam.config import Config, instantiate, read_config, resolve
from mmcam.errors import UserError, unknown
from mmcam.find import SUFFIXES
from mmcam.image import read_image
from mmcam.resources import shipped_configs
from mmcam.task import Sample, Task

__all__ = ["Files", "Source", "choose_source"]


class Source(ABC):
    """What is explained, in order; read in the workers of a loader.

    Attributes:
        ids: Names of the pictures, questions or captions, each once.
    """

    ids: Sequence[str]

    @abstractmethod
    def sample(self, number: int) -> Sample:
        """Read one.

        Raises:
            UserError: It cannot be read; the others can.
        """

    def given(self, number: int) -> tuple[str, ...]:
        """The captions, answers or classes that people gave; none if nobody did."""
        return ()

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Listed:
    """One line of a list of pictures."""

    path: str
    id: str
    text: str = ""
    given: str = ""


class Files(Source):
    """Pictures that lie in a folder or stand in a list, here or elsewhere."""

    def __init__(self, where: str, question: str = "") -> None:
        """Find the pictures.

        Args:
            where: A folder, a list (`.txt`, `.csv`) or one picture; a path, or a URL that fsspec can open.
            question: Asked of every picture that has no question of its own.

        Raises:
            UserError: There is no such thing, or no picture in it; or two have the same id.
        """
        self.question = question
        self.listed = _listed(where)
        self.ids = [one.id for one in self.listed]
        if len(set(self.ids)) < len(self.ids):
            twice = next(name for name in self.ids if self.ids.count(name) > 1)
            raise UserError(f"{where}: expected each id once, got {twice!r} again; give a column 'id'")

    def sample(self, number: int) -> Sample:
        """Read one picture."""
        one = self.listed[number]
        return Sample(_picture(one.path), one.id, one.text or self.question)

    def given(self, number: int) -> tuple[str, ...]:
        """What the list gives."""
        given = self.listed[number].given
        return (given,) if given else ()


def choose_source(data: str, config: Config, overrides: dict[str, Any]) -> tuple[Source, dict[str, Any]]:
    """Make the source that a command names.

    Args:
        data: See the module's docstring; "" for the task's own.
        config: The task's configuration.
        overrides: Of YAML keys; those that begin with "data." are meant.

    Returns:
        The source, and its section with all defaults filled in.

    Raises:
        UserError: There is none of that name.
    """
    own = {name: value for name, value in overrides.items() if name.startswith("data.")}
    name, colon, split = data.partition(":")
    if not data or data.endswith((".yaml", ".yml")):
        chosen: Config = data or config
    elif colon and name.isidentifier() and not split.startswith("//") and not Path(data).exists():
        chosen, own = _of_package(name, config, overrides), {"data.init_args.split": split, **own}
    else:
        chosen = {"data": {"class_path": "mmcam.sources.Files", "init_args": {"where": data}}}
    if "data" not in read_config(chosen):
        raise UserError("expected data to go through, got none; name a folder, a list, or a split such as scenes:test")
    return instantiate(chosen, "data", Source, own), resolve(chosen, "data", Source, own)


def _of_package(name: str, config: Config, overrides: dict[str, Any]) -> Config:
    """The shipped configuration of a data set for tasks like this one, by the package that the task is of."""
    task = resolve(config, "task", Task, overrides)["class_path"]
    known = shipped_configs()
    for base in import_class(task, "task.class_path", Task).__mro__:
        family = base.__module__.partition(".")[0]
        if (key := f"{family}/{name}") in known and "data" in read_config(key):
            return key
    having = sorted({key.partition("/")[2] for key in known if "data" in read_config(key)})
    raise unknown(f"data set for {task}", name, having)


def _listed(where: str) -> list[Listed]:
    """The pictures of a folder, a list or a file."""
    try:
        files, root = fsspec.url_to_fs(where)
        if files.isdir(root):
            inside = sorted(path for path in files.find(root) if Path(path).suffix.lower() in SUFFIXES)
            full = [path if _local(files) else files.unstrip_protocol(path) for path in inside]
            names = [path[len(root.rstrip("/")) + 1 :] for path in inside]
            found = [Listed(*pair) for pair in zip(full, names, strict=True) if not _hidden(pair[1])]
        elif not files.exists(root):
            raise UserError(f"{where!r}: expected a folder, a list or a picture, but there is none; check the path")
        elif Path(where).suffix.lower() in (".txt", ".csv"):
            found = _list(where, files.cat_file(root))
        else:
            found = [Listed(where, Path(root).name)]
    except (ImportError, ValueError, OSError) as error:  # the package of a protocol is missing, or it is not known
        raise UserError(f"{where!r}: expected something that can be opened, got: {error}") from error
    if not found:
        raise UserError(f"{where!r}: expected pictures, found none; known are {', '.join(SUFFIXES)}")
    return found


def _list(where: str, content: bytes) -> list[Listed]:
    """Read a list; its paths are relative to where it lies."""
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{where!r}: expected a list in UTF-8, got other bytes: {error}") from error
    if where.lower().endswith(".txt"):
        paths = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        return [Listed(_beside(where, path), path) for path in paths]
    rows = csv.DictReader(lines)
    columns = rows.fieldnames or []
    for name in columns:
        if name not in ("path", "id", "text", "given"):
            raise unknown(f"column of {where}", name, ("path", "id", "text", "given"))
    if "path" not in columns:
        raise UserError(f"{where!r}: expected a column 'path' in the header, got {', '.join(columns)}")
    return [
        Listed(_beside(where, row["path"]), row.get("id") or row["path"], row.get("text") or "", row.get("given") or "")
        for row in rows
    ]


def _beside(where: str, path: str) -> str:
    """A path out of a list: a URL, an absolute one, or one from the list's folder."""
    if "://" in path or Path(path).is_absolute():
        return path
    return f"{where.rpartition('/')[0]}/{path}" if "/" in where else path


def _picture(path: str) -> Image.Image:
    if "://" not in path:
        return read_image(path)
    try:
        with fsspec.open(path, "rb") as file:
            content = file.read()  # pyright: ignore[reportAttributeAccessIssue]
    except (ImportError, ValueError, OSError) as error:
        raise UserError(f"{path!r}: expected a picture, got: {error}") from error
    try:
        return read_image(BytesIO(content))
    except UserError as error:
        raise UserError(str(error).replace("'the given stream'", repr(path))) from error


def _local(files: fsspec.AbstractFileSystem) -> bool:
    return "file" in ((files.protocol,) if isinstance(files.protocol, str) else files.protocol)


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
