"""torch checkpoints, read without running anything: tensors, plain containers, and modules as trees of tensors.

`torch.load(weights_only=True)` does the reading. Of whole pickled models it refuses the classes; those that are known
to hold nothing but tensors are given stand-ins by name, so that no code of a peer is ever imported. Whole models from
before torch 1.6 are read by `mmcam.importing.old_models`.
"""

import logging
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor
from torch.serialization import safe_globals

from mmcam.errors import UserError
from mmcam.importing.files import KINDS, kind_of
from mmcam.importing.old_models import read_old_model
from mmcam.importing.pickles import OLD_MODULES, Plain, instructions, plain_class, refused

__all__ = ["LARGEST", "named_globals", "read_checkpoint", "state_of"]

logger = logging.getLogger(__name__)

LARGEST = 8 * 2**30
"""Bytes that the tensors of one state dict may take, after those that are views of a few numbers are written out."""

LARGEST_TREE = 256 * 2**20
"""Bytes of the pickle beside the tensors."""

MOST_MODULES = 10_000
"""Of one model: a pickle of a few lines may hold one module in many, many times over."""

MODULES = ("torch.nn.modules.*", "torchvision.models.*", "torch.optim.*", "torch.nn.parallel.*")
"""Classes of whole pickled models and optimisers; stand-ins are made for all of them."""

# What weights_only=True knows by itself, as far as checkpoints name it.
KNOWN = (
    "torch.*Storage",
    "torch._utils._rebuild_*",
    "torch.nn.parameter.*Parameter",
    "torch.nn.parameter.Buffer",
    "torch._tensor._rebuild_from_type_v2",
    "torch.Tensor",
    "torch.Size",
    "torch.device",
    "torch.serialization._get_layout",
    "torch.float*",
    "torch.bfloat16",
    "torch.int*",
    "torch.uint8",
    "torch.bool",
    "collections.OrderedDict",
    "collections.Counter",
    "builtins.set",
    "_codecs.encode",
)


def _mapping(*values: object) -> OrderedDict[Any, Any]:
    """Stands for `collections.defaultdict`, into which torch would set no items."""
    return OrderedDict()


def read_checkpoint(path: Path | str, classes: Iterable[str] = ()) -> Any:  # noqa: ANN401
    """Read a torch checkpoint of any age onto the CPU; nothing in it is imported or called.

    Args:
        path: The file, of torch 0.2 or later.
        classes: Patterns of the full names of classes whose objects may stand in it: "*.Encoder". Modules and
            optimisers of torch and torchvision always may. All are read as `Plain`; `state_of` gives their tensors.

    Returns:
        Tensors in containers. A tensor may still be a view of fewer numbers than it shows;
        `mmcam.importing.weights.weights_of` sees to that.

    Raises:
        UserError: The file is something else or broken, or names a global that is not on the list: the error says
            which.
    """
    path = Path(path)
    kind = kind_of(path)
    if kind == "torch tar":
        raise UserError(
            f"{path}: expected a checkpoint of torch 0.2 or later, got one from before, which cannot be read without "
            "running it; load it with an old torch where you trust it, and save the state dict again"
        )
    if kind not in ("torch", "old torch"):
        raise UserError(f"{path}: expected a torch checkpoint, got {KINDS[kind]}")
    patterns = (*MODULES, *classes)
    stand_ins: list[Any] = []
    for name in sorted(named_globals(path)):
        if name == "collections.defaultdict":
            stand_ins.append((_mapping, name))
        elif name == "builtins.dict":
            stand_ins.append((dict, name))
        elif any(fnmatchcase(name, pattern) for pattern in patterns):
            stand_ins.append((plain_class(name), name))
        elif not any(fnmatchcase(name, pattern) for pattern in KNOWN):
            raise refused(path, name)
    if kind == "old torch" and any(issubclass(made, Plain) for made, _ in stand_ins if isinstance(made, type)):
        return read_old_model(path, patterns)
    try:
        with safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken program may fail in any way
        lines = [line for line in str(error).splitlines() if line.strip() and "weights_only" not in line]
        reason = lines[0][:200] if lines else type(error).__name__
        raise UserError(f"{path} is no whole checkpoint of tensors ({reason}); copy it again") from error


def named_globals(path: Path | str) -> set[str]:
    """List every global that a torch checkpoint names, by reading its instructions without following them.

    Args:
        path: A file of kind "torch" or "old torch".

    Returns:
        Full names, such as "torch.FloatStorage".

    Raises:
        UserError: The file is broken.
    """
    path = Path(path)
    try:
        if kind_of(path) == "torch":
            with zipfile.ZipFile(path) as archive:
                _check_archive(archive, path)
                inner = next(entry for entry in archive.infolist() if entry.filename.partition("/")[2] == "data.pkl")
                if inner.file_size > LARGEST_TREE:
                    raise ValueError(f"a pickle of {inner.file_size / 2**20:.0f} MiB beside the tensors")
                with archive.open(inner) as stream:
                    return set(_globals(stream))
        with path.open("rb") as stream:  # magic number, protocol, system, the object, names of storages
            return {name for _ in range(5) for name in _globals(stream)}
    except UserError:
        raise
    except Exception as error:  # a broken program may fail in any way
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is no whole checkpoint ({reason}); copy it again") from error


def _check_archive(archive: zipfile.ZipFile, path: Path) -> None:
    size = sum(entry.file_size for entry in archive.infolist())
    if size > LARGEST:
        raise UserError(f"{path}: expected {LARGEST / 2**30:.0f} GiB at most, got {size / 2**30:.0f} GiB when unpacked")


def _globals(stream: BufferedIOBase | IO[bytes]) -> Iterator[str]:
    """The globals of one pickle; the stream is left behind its end."""
    texts: list[str] = []
    for instruction, argument in instructions(stream):
        if instruction in ("GLOBAL", "INST"):
            module, _, name = str(argument).partition(" ")
            yield f"{OLD_MODULES.get(module, module)}.{name}"
        elif instruction == "STACK_GLOBAL":  # torch writes none, so that who does has something else in mind
            yield ".".join(texts[-2:]) or "a global without a name"
        elif instruction.startswith("EXT"):
            yield f"copyreg extension {argument}"
        elif isinstance(argument, str):
            texts.append(argument)


def state_of(module: object, prefix: str = "") -> dict[str, Tensor]:
    """Collect the parameters and buffers of a module that was read as `Plain`, by the names of its state dict.

    Raises:
        UserError: It is no module, or one that holds itself or others without end.
    """
    found: dict[str, Tensor] = {}
    left: list[tuple[str, object]] = [(prefix, module)]
    for _ in range(MOST_MODULES):
        if not left:
            return found
        start, part = left.pop()
        if not isinstance(part, Plain) or not hasattr(part, "_modules"):
            raise UserError(f"expected a pickled model, got {type(part).__name__}")
        own, buffers, inner = (getattr(part, kind, None) or {} for kind in ("_parameters", "_buffers", "_modules"))
        if not all(isinstance(values, Mapping) for values in (own, buffers, inner)):
            raise UserError(f"expected a pickled model, got {type(part).__name__} without named parts")
        for values in (own, buffers):
            found |= {f"{start}{name}": value for name, value in values.items() if isinstance(value, Tensor)}
        left += [(f"{start}{name}.", child) for name, child in reversed(inner.items()) if child is not None]
    raise UserError(f"expected a pickled model of {MOST_MODULES} modules at most, got more; does one hold itself?")
