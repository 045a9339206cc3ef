"""Pickles of plain data, read without running anything: the one place where mmcam unpickles.

A pickle is a program whose only dangerous instructions are those that look up a global. Here none is ever imported:
a name on the list gives a stand-in of ours, any other name ends the reading with an error that says it.
"""

import pickle
import pickletools
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import partial
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import IO, Any, cast

from mmcam.errors import UserError
from mmcam.importing.files import KINDS, check_size, kind_of

__all__ = ["OLD_MODULES", "Plain", "PlainReader", "instructions", "plain_class", "read_pickle", "refused"]

LARGEST_MEMO = 2**24
"""Objects that a pickle may number: Python makes room up to the highest number, whatever the file's size."""


class Plain:
    """An object of a class that is not here: its attributes and nothing else."""

    def __init__(self, *values: object, **named: object) -> None:
        """Take and forget whatever the constructor was given."""

    def __setstate__(self, state: object) -> None:
        """Keep the attributes; those of slots come second in a pair."""
        parts = state if isinstance(state, tuple) else (state,)
        for part in parts:
            if isinstance(part, dict):
                self.__dict__.update({str(name): value for name, value in part.items()})


def plain_class(name: str) -> type[Plain]:
    """Make a stand-in for the class of that full name."""
    return type(name.rpartition(".")[2], (Plain,), {"__doc__": f"Stands for {name}."})


def _mapping(*values: object) -> OrderedDict[Any, Any]:
    """Stands for `collections.defaultdict`, whose factory is forgotten."""
    return OrderedDict()


def _counted(*values: Any) -> Counter[Any]:  # noqa: ANN401
    """Stands for `collections.Counter`, a class to which a pickle could set attributes."""
    return Counter(*values)


def _rebuilt(cls: type, base: type, state: object) -> object:
    """Stands for `copyreg._reconstructor`, which protocols 0 and 1 make objects by."""
    if not (isinstance(cls, type) and issubclass(cls, Plain)):
        raise pickle.UnpicklingError("an object of a class that is not on the list")
    return cls()


CONTAINERS: dict[str, Callable[..., object]] = {
    "collections.OrderedDict": OrderedDict,
    "collections.Counter": _counted,
    "collections.defaultdict": _mapping,
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "builtins.dict": dict,
    "builtins.list": list,
    "builtins.int": int,
    "builtins.object": object,
    "copyreg._reconstructor": _rebuilt,
}
"""What may stand in any pickle."""

NUMBERS = (
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
    "_codecs.encode",
)
"""NumPy's numbers, such as a best score: nothing that an importer reads, so they are passed over."""


class PlainReader(pickle.Unpickler):
    """Follows a pickle's instructions, with stand-ins for all that it looks up.

    Attributes:
        refused: Full name of the global at which the reading ended, "" if it was none.
    """

    def __init__(
        self, stream: BufferedIOBase, classes: Iterable[str], more: Mapping[str, Callable[..., object]] | None = None
    ) -> None:
        """Make a reader.

        Args:
            stream: The pickle.
            classes: Patterns of full names that are read as `Plain`.
            more: Other stand-ins by full name.
        """
        super().__init__(stream, encoding="latin-1")
        self.refused = ""
        self._classes = (*classes, *NUMBERS)
        # A pickle may set attributes of what it looks up: of these only, which end with the reader. Those of built-in
        # classes cannot be set.
        self._made: dict[str, Any] = {
            name: made if isinstance(made, type) else partial(made)
            for name, made in {**CONTAINERS, **(more or {})}.items()
        }

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        """Give the stand-in; nothing is ever imported."""
        full = f"{OLD_MODULES.get(module, module)}.{name}"
        if full not in self._made:
            if not any(fnmatchcase(full, pattern) for pattern in self._classes):
                self.refused = full
                raise pickle.UnpicklingError(full)
            self._made[full] = plain_class(full)
        return self._made[full]

    def persistent_load(self, pid: object) -> Any:  # noqa: ANN401
        """Refuse, as plain data refer to nothing outside."""
        raise pickle.UnpicklingError("a reference to something outside the file")


def refused(path: Path, name: str) -> UserError:
    """The error for a file that names a global which is not on the list."""
    return UserError(
        f"{path}: its pickle names {name}, which no such file needs; nothing was run. Get the file from where you "
        "trust it, or save it again as plain data"
    )


def instructions(stream: BufferedIOBase | IO[bytes]) -> Iterator[tuple[str, Any]]:
    """List the instructions of one pickle with their arguments, without following them.

    Args:
        stream: Is left behind the pickle's end.

    Raises:
        ValueError: The pickle is broken, or numbers more objects than it can hold.
    """
    for instruction, argument, _ in pickletools.genops(cast(IO[bytes], stream)):
        if instruction.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(cast(int, argument)) > LARGEST_MEMO:
            raise ValueError(f"an object with the number {argument}")
        yield instruction.name, argument


OLD_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
"""As Python 2 called them."""


def read_pickle(path: Path | str, classes: Iterable[str] = (), largest: int = 256 * 2**20) -> Any:  # noqa: ANN401
    """Read a pickle of numbers, texts and containers; nothing in it is imported or called.

    Args:
        path: The file.
        classes: Patterns of the full names of classes whose objects may stand in it: "argparse.Namespace",
            "*.Vocabulary". They are read as `Plain`: their attributes alone.
        largest: Of the file, in bytes.

    Returns:
        What it holds.

    Raises:
        UserError: The file is something else, too large or broken, or names a global that is not on the list: the
            error says which.
    """
    path = Path(path)
    kind = kind_of(path)
    if kind != "pickle":
        raise UserError(f"{path}: expected a Python pickle, got {KINDS[kind]}")
    check_size(path, largest)
    content = path.read_bytes()
    reader = PlainReader(BytesIO(content), classes)
    try:
        for _ in instructions(BytesIO(content)):
            pass
        return reader.load()
    except Exception as error:  # a broken program may fail in any way
        if reader.refused:
            raise refused(path, reader.refused) from error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is no whole pickle of plain data ({reason}); copy it again") from error
