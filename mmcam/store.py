"""The HDF5 file of maps: N rows, one per explained word, of M pictures or questions.

    name         shape      dtype    meaning
    /maps        (N, h, w)  float16  ReLU map divided by its peak, one row per explained word; raw map = maps * peaks
    /peaks       (N,)       float32  that peak; 0 for a map that is nowhere positive
    /scores      (N,)       float32  y: log p(word), answer logit or class logit, or a sum of such
    /words       (N,)       utf-8    the word, phrase, answer or class name
    /target_ids  (N,)       int32    vocabulary, answer or class index; -1 for a row of several, or if not told
    /flags       (N,)       utf-8    "": a map; "zero", "negative" (nothing after ReLU) or "non-finite": what is wrong
    /offsets     (M+1,)     int64    the rows of picture i are offsets[i]:offsets[i+1]
    /ids         (M,)       utf-8    name of the picture (of the question, where there are several), each once
    /prompts     (M,)       utf-8    the question, or the caption that was given; empty otherwise
    /sizes       (M, 2)     int32    height and width of the original picture
    /windows     (M, 4)     float64  what the maps cover of it: top, left, bottom, right in its pixels

The attributes of the file are `schema_version` (1), `mmcam_version`, `config` (as resolved, JSON), `weights_sha256`,
`layer`, `method` and `created` (ISO 8601, UTC).

Maps lie at the layer's resolution; what is read back differs from what was written by at most a thousandth of the map's
peak. A file appears under its name when it is complete, and not before.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
import torch
from jaxtyping import Float, Float16, Float32
from torch import Tensor

from mmcam import __version__
from mmcam.errors import UserError, unknown
from mmcam.explanation import Explanation

__all__ = ["SCHEMA_VERSION", "MapReader", "MapWriter"]

SCHEMA_VERSION = 1
TEXT = h5py.string_dtype()
ROWS = {"peaks": np.float32, "scores": np.float32, "words": TEXT, "target_ids": np.int32, "flags": TEXT}
PICTURES = {"ids": TEXT, "prompts": TEXT, "sizes": np.int32, "windows": np.float64}
TAILS = {"sizes": (2,), "windows": (4,)}
PACKED = {"shuffle": True, "compression": "gzip", "compression_opts": 1}
CHUNK = 2**18
"""Bytes of maps that are compressed together: what reading one picture costs at least."""


class MapWriter:
    """Writes a file of maps, some pictures at a time.

        with MapWriter("maps.h5", config={…}, layer="layer4") as maps:
            maps.append(mmcam.explain(task, batch))

    Leaving the block gives the file its name; leaving it by an exception leaves nothing.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        config: Mapping[str, Any],
        layer: str = "",
        method: str = "grad_cam",
        weights_sha256: str = "",
        overwrite: bool = False,
    ) -> None:
        """Begin a file under a temporary name.

        Args:
            path: The file; its folder is made if it is missing.
            config: The resolved configuration, for the record.
            layer: The explained layer; the same for all maps.
            method: The method; the same for all maps.
            weights_sha256: Hash of the model's weights, for the record.
            overwrite: Replace a file that is there.

        Raises:
            UserError: There is such a file already.
        """
        self.path = Path(path)
        if self.path.exists() and not overwrite:
            raise UserError(f"{self.path} exists already; pass overwrite=True, or write to another name")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        self._file = h5py.File(self._part, "w")
        self._file.attrs.update(
            schema_version=SCHEMA_VERSION,
            mmcam_version=__version__,
            config=json.dumps(config, ensure_ascii=False),
            weights_sha256=weights_sha256,
            layer=layer,
            method=method,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self._same = (layer, method)
        self._ids: set[str] = set()
        for name, dtype in (ROWS | PICTURES).items():
            tail = TAILS.get(name, ())
            self._file.create_dataset(name, (0, *tail), dtype, maxshape=(None, *tail), chunks=(1024, *tail))
        self._file.create_dataset("offsets", data=np.zeros(1, np.int64), maxshape=(None,), chunks=(1024,))

    def __enter__(self) -> "MapWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Give the complete file its name, or remove an incomplete one."""
        try:
            if kind is None and "maps" not in self._file:
                self._file.create_dataset("maps", (0, 0, 0), np.float16)
            self._file.close()
            if kind is None:
                self._part.replace(self.path)
        finally:
            self._part.unlink(missing_ok=True)

    def append(self, explanations: Sequence[Explanation], target_ids: Sequence[Sequence[int]] | None = None) -> None:
        """Add pictures.

        Args:
            explanations: One a picture or question; without words they are kept, with no rows.
            target_ids: For each of them the id of each row; -1 if not given.

        Raises:
            UserError: An id is there already, or layer, method or the maps' size are not the file's.
        """
        if not explanations:
            return
        ids = [[-1] * len(e.words) for e in explanations] if target_ids is None else target_ids
        if [len(row) for row in ids] != [len(e.words) for e in explanations]:
            raise UserError("expected one target id a word; got other numbers of them")
        self._check(explanations)
        maps, peaks = _scaled(torch.cat([e.maps for e in explanations]).float())
        rows: dict[str, Any] = {
            "maps": maps.numpy(),
            "peaks": peaks.numpy(),
            "scores": torch.cat([e.scores for e in explanations]).float().numpy(),
            "words": [word for e in explanations for word in e.words],
            "target_ids": [number for row in ids for number in row],
            "flags": [flag for e in explanations for flag in e.flags],
        }
        pictures: dict[str, Any] = {
            "ids": [e.id for e in explanations],
            "prompts": [e.prompt for e in explanations],
            "sizes": [e.size for e in explanations],
            "windows": [e.window for e in explanations],
            "offsets": _dataset(self._file, "offsets")[-1] + np.cumsum([len(e.words) for e in explanations]),
        }
        for name, values in (rows | pictures).items():
            data = _dataset(self._file, name)
            start = len(data)
            data.resize(start + len(values), axis=0)
            if len(values):
                data[start:] = values
        self._ids.update(pictures["ids"])

    def _check(self, explanations: Sequence[Explanation]) -> None:
        """Refuse what does not belong into this file, before anything of it is written."""
        shape = tuple(explanations[0].signed.shape[1:])
        if "maps" not in self._file:
            area = max(1, shape[0] * shape[1] * 2)
            chunks = (min(256, max(1, CHUNK // area)), *shape)
            self._file.create_dataset("maps", (0, *shape), np.float16, maxshape=(None, *shape), chunks=chunks, **PACKED)
        expected = tuple(_dataset(self._file, "maps").shape[1:])
        new: set[str] = set()
        for e in explanations:
            if (e.layer, e.method) != self._same:
                raise UserError(
                    f"{self.path} holds layer and method {self._same}, got {(e.layer, e.method)}; write another file"
                )
            if tuple(e.signed.shape[1:]) != expected:
                raise UserError(
                    f"{self.path} holds maps of {expected}, got {tuple(e.signed.shape[1:])}; write another file"
                )
            if e.id in self._ids | new:
                raise UserError(f"{self.path} holds {e.id!r} already; give every picture or question an id of its own")
            new.add(e.id)


class MapReader:
    """Reads a file of maps, each picture when it is asked for.

    `len(reader)`, `reader[0]`, `reader["dog"]`, `for explanation in reader`. The maps are rectified, so of one that was
    negative everywhere no more is known than that: it is read as the smallest negative number. So its flag stays.

    Attributes:
        ids: Names of the pictures or questions, in order.
        attributes: What the file says of itself, `config` as a dictionary.
    """

    def __init__(self, path: Path | str) -> None:
        """Open a file; close it by `with` or `close()`.

        Args:
            path: The file.

        Raises:
            UserError: There is no such file, or mmcam did not write it.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(
                f"{self.path}: expected a file of maps, but there is no such file; mmcam explain --hdf5 writes one"
            )
        try:
            self._file = h5py.File(self.path, "r")
        except OSError as error:
            raise UserError(f"{self.path}: expected an HDF5 file, got one that is not or is cut short") from error
        version = self._file.attrs.get("schema_version")
        if version != SCHEMA_VERSION:
            self._file.close()
            raise UserError(
                f"{self.path}: expected maps by mmcam, schema version {SCHEMA_VERSION}, got version {version}; "
                "write it again, or read it with the mmcam that wrote it"
            )
        self.attributes: dict[str, Any] = dict(self._file.attrs)
        self.attributes["config"] = json.loads(self.attributes["config"])
        self.ids: tuple[str, ...] = tuple(self._texts("ids", slice(None)))
        self._numbers = {name: number for number, name in enumerate(self.ids)}
        self._offsets = _dataset(self._file, "offsets")[:]

    def __enter__(self) -> "MapReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Explanation]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, key: int | str) -> Explanation:
        """Read one picture, by number or by id.

        Raises:
            IndexError: There are fewer pictures.
            UserError: There is no such id; names the nearest.
        """
        number = self._number(key)
        rows = self._rows(number)
        flags = self._texts("flags", rows)
        signed = torch.from_numpy(_dataset(self._file, "maps")[rows].astype(np.float32))
        signed *= torch.from_numpy(_dataset(self._file, "peaks")[rows])[:, None, None]
        for row, flag in zip(signed, flags, strict=True):
            if flag == "negative":
                row.fill_(-torch.finfo(torch.float32).tiny)
            elif flag == "non-finite" and bool(torch.isfinite(row).all()):
                row.masked_fill_(row == 0, -torch.inf)
        height, width = _dataset(self._file, "sizes")[number].tolist()
        top, left, bottom, right = _dataset(self._file, "windows")[number].tolist()
        return Explanation(
            id=self.ids[number],
            prompt=self._texts("prompts", slice(number, number + 1))[0],
            words=tuple(self._texts("words", rows)),
            scores=torch.from_numpy(_dataset(self._file, "scores")[rows]),
            signed=signed,
            size=(height, width),
            window=(top, left, bottom, right),
            method=self.attributes["method"],
            layer=self.attributes["layer"],
        )

    def target_ids(self, key: int | str) -> list[int]:
        """The vocabulary, answer or class id of each row of a picture."""
        return _dataset(self._file, "target_ids")[self._rows(self._number(key))].tolist()

    def _number(self, key: int | str) -> int:
        if isinstance(key, str):
            if key not in self._numbers:
                raise unknown(f"id in {self.path}", key, self.ids)
            return self._numbers[key]
        return range(len(self))[key]

    def _rows(self, number: int) -> slice:
        return slice(int(self._offsets[number]), int(self._offsets[number + 1]))

    def _texts(self, name: str, rows: slice) -> list[str]:
        return list(_dataset(self._file, name).asstr()[rows])


def _scaled(maps: Float[Tensor, "n h w"]) -> tuple[Float16[Tensor, "n h w"], Float32[Tensor, " n"]]:
    """Divide each map by its peak, since raw maps of 1e-6 would lose their digits in float16; NaN and infinity stay."""
    peaks = (
        maps.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).flatten(1).amax(1)
        if maps.numel()
        else maps.new_zeros(len(maps))
    )
    return (maps / torch.where(peaks > 0, peaks, 1)[:, None, None]).half(), peaks


def _dataset(file: h5py.File, name: str) -> h5py.Dataset:
    return cast(h5py.Dataset, file[name])
