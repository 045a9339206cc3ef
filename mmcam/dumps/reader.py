"""Reading a file of maps: a part of a dump, a finished one, or what `mmcam explain --hdf5` wrote."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import h5py
import numpy as np
import torch

from mmcam.dumps.schema import FLAGS, SCHEMA_VERSION, dataset, names
from mmcam.errors import UserError, unknown
from mmcam.explanation import Explanation

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["MapReader"]


class MapReader(Sequence[Explanation]):
    """Reads a file of maps, each picture when it is asked for; `mmcam.dumps.schema` says what is in the file.

    `len(reader)`, `reader[0]`, `reader[10:20]`, `reader["dog"]`, `for explanation in reader`. The maps are rectified
    (unless they were dumped with `signed`), so of one that was negative everywhere no more is known than that: it is
    read as the smallest negative number. So its flag stays.

    May be the data set of a `DataLoader` with workers: every process opens the file for itself.

    Attributes:
        ids: Names of the pictures or questions, in order.
        methods: Those that the file holds.
        method: That whose maps are read.
        attributes: What the file says of itself, `config`, `versions` and `methods` decoded.
        failures: What could not be explained, by id, with the reason.
    """

    def __init__(self, path: Path | str, method: str = "") -> None:
        """Open a file; close it by `with` or `close()`.

        Args:
            path: The file, or the folder of a finished dump.
            method: Whose maps to read; the file's first method's if not given.

        Raises:
            UserError: There is no such file, mmcam did not write it, or it has no such method.
        """
        self.path = Path(path) / "maps.h5" if Path(path).is_dir() else Path(path)
        if not self.path.is_file():
            raise UserError(
                f"{self.path}: expected a file of maps, but there is no such file; mmcam dump and "
                "mmcam explain --hdf5 write one"
            )
        self._opened: tuple[int, h5py.File] | None = None
        try:
            attributes = dict(self._file.attrs)
        except OSError as error:
            raise UserError(f"{self.path}: expected an HDF5 file, got one that is not or is cut short") from error
        version = attributes.get("schema_version")
        if version != SCHEMA_VERSION:
            self.close()
            raise UserError(
                f"{self.path}: expected maps by mmcam, schema version {SCHEMA_VERSION}, got version {version}; "
                "write it again, or read it with the mmcam that wrote it"
            )
        self.attributes: dict[str, Any] = attributes
        for name in ("config", "versions", "methods"):
            self.attributes[name] = json.loads(str(attributes[name]))
        self.methods = tuple(self.attributes["methods"])
        if method and method not in self.methods:
            self.close()
            raise unknown(f"method in {self.path}", method, self.methods)
        self.method = method or self.methods[0]
        self._group = "" if self.method == self.methods[0] else f"{self.method}/"
        self.ids: tuple[str, ...] = tuple(self._texts("ids", slice(None)))
        reasons = self._texts("failures/reasons", slice(None))
        self.failures: dict[str, str] = dict(zip(self._texts("failures/ids", slice(None)), reasons, strict=True))
        self._numbers = {name: number for number, name in enumerate(self.ids)}
        self._offsets = dataset(self._file, "offsets")[:]
        self._vocabulary = np.array(self._texts("vocabulary", slice(None)), object)

    def __enter__(self) -> "MapReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def rows(self) -> int:
        """Number of maps of each method."""
        return int(self._offsets[-1])

    def __getstate__(self) -> dict[str, Any]:
        """An open file cannot go to another process; that one opens it anew."""
        return self.__dict__ | {"_opened": None}

    def close(self) -> None:
        """Close the file; reading again opens it again."""
        if self._opened is not None and self._opened[0] == os.getpid():
            self._opened[1].close()
        self._opened = None

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Explanation]:
        return (self[number] for number in range(len(self)))

    @overload
    def __getitem__(self, key: int | str) -> Explanation: ...

    @overload
    def __getitem__(self, key: slice) -> list[Explanation]: ...

    def __getitem__(self, key: int | str | slice) -> Explanation | list[Explanation]:
        """Read one picture, by number or by id, or a slice of them.

        Raises:
            IndexError: There are fewer pictures.
            UserError: There is no such id; names the nearest.
        """
        if isinstance(key, slice):
            return [self[number] for number in range(len(self))[key]]
        number = self._number(key)
        rows = self._rows(number)
        height, width = dataset(self._file, "sizes")[number].tolist()
        top, left, bottom, right = dataset(self._file, "windows")[number].tolist()
        return Explanation(
            id=self.ids[number],
            prompt=self._texts("prompts", slice(number, number + 1))[0],
            words=tuple(self._vocabulary[dataset(self._file, "words")[rows]]),
            scores=torch.from_numpy(dataset(self._file, "scores")[rows]),
            signed=self._signed(rows),
            size=(height, width),
            window=(top, left, bottom, right),
            method=self.method,
            layer=self.attributes["layer"],
            weights=torch.from_numpy(self._of_method("weights")[rows]) if self._has("weights") else None,
        )

    def target_ids(self, key: int | str) -> list[int]:
        """The vocabulary, answer or class id of each row of a picture."""
        return dataset(self._file, "target_ids")[self._rows(self._number(key))].tolist()

    def contents(self) -> list[tuple[str, str, str, str]]:
        """All data sets: name, shape, type, bytes on the disk."""
        rows = []
        for name in names(self._file):
            data = dataset(self._file, name)
            text = (
                "utf-8" if h5py.check_string_dtype(data.dtype) else "enum" if h5py.check_enum_dtype(data.dtype) else ""
            )
            rows.append((f"/{name}", str(data.shape), text or str(data.dtype), str(data.id.get_storage_size())))
        return rows

    def to_dataframe(self) -> "DataFrame":
        """The table of all rows without their maps: id, prompt, word, target_id, score, peak, flag.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise UserError("a table of all rows needs pandas: pip install pandas") from error
        counts = np.diff(self._offsets)
        return DataFrame(
            {
                "id": np.repeat(np.array(self.ids, object), counts),
                "prompt": np.repeat(np.array(self._texts("prompts", slice(None)), object), counts),
                "word": self._vocabulary[dataset(self._file, "words")[:]],
                "target_id": dataset(self._file, "target_ids")[:],
                "score": dataset(self._file, "scores")[:],
                "peak": self._of_method("peaks")[:],
                "flag": np.array(FLAGS, object)[self._of_method("flags")[:]],
            }
        )

    @property
    def _file(self) -> h5py.File:
        """The file as this process has opened it: a handle that came by a fork would share its place with others."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), h5py.File(self.path, "r")
        return self._opened[1]

    def _signed(self, rows: slice) -> torch.Tensor:
        """The maps before ReLU as far as they are known."""
        whole = "signed" if self._has("signed") else "maps"
        scale = self._of_method("scales" if whole == "signed" else "peaks")[rows]
        signed = torch.from_numpy(self._of_method(whole)[rows].astype(np.float32))
        signed *= torch.from_numpy(scale)[:, None, None]
        if whole == "maps":
            for row, flag in zip(signed, self._of_method("flags")[rows], strict=True):
                if FLAGS[flag] == "negative":
                    row.fill_(-torch.finfo(torch.float32).tiny)
                elif FLAGS[flag] == "non-finite" and bool(torch.isfinite(row).all()):
                    row.masked_fill_(row == 0, -torch.inf)
        return signed

    def _of_method(self, name: str) -> h5py.Dataset:
        return dataset(self._file, f"{self._group}{name}")

    def _has(self, name: str) -> bool:
        return f"{self._group}{name}" in self._file

    def _number(self, key: int | str) -> int:
        if isinstance(key, str):
            if key not in self._numbers:
                raise unknown(f"id in {self.path}", key, self.ids)
            return self._numbers[key]
        return range(len(self))[key]

    def _rows(self, number: int) -> slice:
        return slice(int(self._offsets[number]), int(self._offsets[number + 1]))

    def _texts(self, name: str, rows: slice) -> list[str]:
        return list(dataset(self._file, name).asstr()[rows])
