"""Whole models in files from before torch 1.6, which `torch.load(weights_only=True)` refuses whatever it is told.

Such a file is five pickles (a magic number, a version, the system, the object, the names of storages) and then the
storages: the count of numbers and the numbers. Modules stand in the object beside the source of their classes, which is
what torch refuses; here the source is passed over, and the classes are stand-ins as everywhere.
"""

import pickle
from collections.abc import Iterable, Mapping
from functools import partial
from io import BufferedReader
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from mmcam.errors import UserError
from mmcam.importing.pickles import PlainReader, refused

__all__ = ["read_old_model"]

DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {
        "Float": torch.float32,
        "Double": torch.float64,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
    }
)


class _Numbers:
    """A type of storage, by its name alone."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


def _tensor(base: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: object) -> Tensor:
    return torch.as_strided(base, size, stride, offset)  # which refuses what lies outside


def _parameter(data: Tensor, *rest: object) -> Tensor:
    return data


REBUILT = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": tuple,
} | {
    f"torch.{where}{name}Storage": partial(_Numbers, dtype) for name, dtype in DTYPES.items() for where in ("", "cuda.")
}


class _OldReader(PlainReader):
    def __init__(self, stream: BufferedReader, classes: Iterable[str], largest: int) -> None:
        super().__init__(stream, classes, REBUILT)
        self.storages: dict[str, Tensor] = {}
        self._left = largest

    def persistent_load(self, pid: Any) -> Any:  # noqa: ANN401
        kind, *data = pid
        if kind == "module":  # class, its file and its source
            return data[0]
        if kind != "storage":
            raise pickle.UnpicklingError(f"a reference to a {kind}")
        made, key, _, count, view = data
        numbers = made() if isinstance(made, partial) else None
        if not isinstance(numbers, _Numbers) or type(count) is not int:
            raise pickle.UnpicklingError("a storage of no known type")
        if key not in self.storages:
            self._left -= count * numbers.dtype.itemsize
            if count < 0 or self._left < 0:
                raise pickle.UnpicklingError("storages larger than the file")
            self.storages[key] = torch.zeros(count, dtype=numbers.dtype)
        base = self.storages[key]
        if base.dtype != numbers.dtype:
            raise pickle.UnpicklingError("a storage of two types")
        return base if view is None else base[view[1] : view[1] + view[2]]


def read_old_model(path: Path, classes: Iterable[str]) -> Any:  # noqa: ANN401
    """Read a checkpoint with whole models; nothing in it is imported or called.

    Args:
        path: A file of kind "old torch".
        classes: Patterns of the full names of classes that are read as `Plain`.

    Returns:
        What it holds, with tensors.

    Raises:
        UserError: The file is broken, or names a global that is not on the list.
    """
    reader = None
    try:
        with path.open("rb") as stream:
            for _ in range(3):
                PlainReader(stream, ()).load()
            reader = _OldReader(stream, classes, path.stat().st_size)
            content = reader.load()
            for key in PlainReader(stream, ()).load():
                _fill(reader.storages[key], stream)
    except Exception as error:  # a broken program may fail in any way
        if reader is not None and reader.refused:
            raise refused(path, reader.refused) from error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is no whole checkpoint of tensors ({reason}); copy it again") from error
    return content


def _fill(storage: Tensor, stream: BufferedReader) -> None:
    count = int.from_bytes(stream.read(8), "little", signed=True)
    if count != len(storage):
        raise ValueError(f"a storage of {count} numbers instead of {len(storage)}")
    data = stream.read(count * storage.element_size())
    if len(data) != count * storage.element_size():
        raise ValueError("the file is cut short")
    if count:
        storage.copy_(torch.frombuffer(bytearray(data), dtype=storage.dtype))
