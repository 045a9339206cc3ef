"""The HDF5 file of maps: N rows, one per explained word, of M pictures, questions or captions.

    name               shape      dtype    meaning
    /maps              (N, h, w)  float16  ReLU map divided by its peak, a row a word; raw map = maps * peaks
    /peaks             (N,)       float32  that peak; 0 for a map that is nowhere positive
    /flags             (N,)       enum     uint8: 0 ok, 1 zero, 2 negative (nothing after ReLU), 3 non-finite
    /scores            (N,)       float32  y: log p(word), answer logit or class logit, or a sum of such
    /words             (N,)       int32    number of the word, phrase, answer or class name in /vocabulary
    /target_ids        (N,)       int32    vocabulary, answer or class index; -1 for a row of several, or if not told
    /vocabulary        (V,)       utf-8    all words of the file, each once
    /offsets           (M+1,)     int64    the rows of picture i are offsets[i]:offsets[i+1]
    /ids               (M,)       utf-8    name of the picture, question or caption, each once
    /prompts           (M,)       utf-8    the question, or the caption that was given; empty otherwise
    /sizes             (M, 2)     int32    height and width of the original picture
    /windows           (M, 4)     float64  what the maps cover of it: top, left, bottom, right in its pixels
    /failures/ids      (F,)       utf-8    names of what could not be explained
    /failures/reasons  (F,)       utf-8    why

Where it was asked for, each method's group has three more:

    /signed            (N, h, w)  float16  the map before ReLU, divided by its scale
    /scales            (N,)       float32  that scale, the largest absolute value; 0 for a map of zeros
    /weights           (N, k)     float32  α of each channel (only of methods that are made of such, as Grad-CAM is)

A file of several methods holds the first one's `maps`, `peaks` and `flags` (and `signed`, `scales`, `weights`) at the
root, and the same of every other one in a group of its name, as in `/hires_cam/maps`. All else is common to them.

The attributes of the file are `schema_version` (2), `config` (as resolved, JSON), `conventions` (what the numbers mean,
in words), `versions` (of the packages that made them, JSON), `weights_sha256`, `layer`, `methods` (JSON) and `created`
(ISO 8601, UTC).

Maps lie at the layer's resolution; what is read back differs from what was written by at most a thousandth of the map's
peak. A file appears under its name when it is complete and on the disk, and not before.
"""

import json
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from math import prod
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
import torch
from jaxtyping import Float, Float16, Float32
from torch import Tensor

from mmcam import __version__
from mmcam.disk import checksum_path, sha256, sync, unfinished
from mmcam.errors import UserError
from mmcam.explanation import Explanation

__all__ = [
    "FLAGS",
    "MAPS",
    "SCHEMA_VERSION",
    "MapWriter",
    "dataset",
    "names",
]

SCHEMA_VERSION = 2
FLAGS = ("", "zero", "negative", "non-finite")
"""`Explanation.flags` by their number in the file."""

CONVENTIONS = (
    "maps: ReLU applied, at the layer's resolution, neither scaled nor smoothed but for the division by the peak; "
    "alpha: mean of dy/dA over all places; y: log-probability of a caption's word, logit of an answer or class; "
    "offsets: from 0, half open; windows and sizes: pixels of the original picture, turned upright"
)
TEXT = h5py.string_dtype()
FLAG = h5py.enum_dtype({name or "ok": number for number, name in enumerate(FLAGS)}, basetype="u1")
ROWS = {"scores": np.float32, "words": np.int32, "target_ids": np.int32}
MAPS = ("maps", "peaks", "flags", "signed", "scales", "weights")
"""What each method has of its own."""

PICTURES = {"ids": TEXT, "prompts": TEXT, "sizes": np.int32, "windows": np.float64}
WORDS = {"vocabulary": TEXT}
FAILURES = {"failures/ids": TEXT, "failures/reasons": TEXT}
TAILS = {"sizes": (2,), "windows": (4,)}
PACKED = {"shuffle": True, "compression": "gzip", "compression_opts": 1, "fletcher32": True}
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
        methods: Sequence[str] = ("grad_cam",),
        weights_sha256: str = "",
        signed: bool = False,
        weights: bool = False,
        overwrite: bool = False,
        checksum: bool = False,
    ) -> None:
        """Begin a file under a temporary name.

        Args:
            path: The file; its folder is made if it is missing.
            config: The resolved configuration, for the record.
            layer: The explained layer; the same for all maps.
            methods: The methods; the first one's maps are the file's own.
            weights_sha256: Hash of the model's weights, for the record.
            signed: Keep also the maps before ReLU.
            weights: Keep also α, of the methods that have it.
            overwrite: Replace a file that is there.
            checksum: Write `<path>.sha256` too, as `sha256sum` does, before the file appears.

        Raises:
            UserError: There is such a file already.
        """
        self.path = Path(path)
        if self.path.exists() and not overwrite:
            raise UserError(f"{self.path} exists already; pass overwrite=True, or write to another name")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.layer, self.methods = layer, tuple(methods)
        self._signed, self._weights, self._checksum = signed, weights, checksum
        self._part = unfinished(self.path)
        self._file = h5py.File(self._part, "w")
        self._file.attrs.update(
            schema_version=SCHEMA_VERSION,
            config=json.dumps(config, ensure_ascii=False),
            conventions=CONVENTIONS,
            versions=json.dumps(versions()),
            weights_sha256=weights_sha256,
            layer=layer,
            methods=json.dumps(self.methods),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self._ids: set[str] = set()
        self._words: dict[str, int] = {}
        for name, dtype in (ROWS | WORDS | PICTURES | FAILURES).items():
            self._create(name, TAILS.get(name, ()), dtype)
        self._file.create_dataset("offsets", data=np.zeros(1, np.int64), maxshape=(None,), chunks=(1024,))

    def __enter__(self) -> "MapWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Give the complete file its name, or remove an incomplete one."""
        try:
            if kind is None and "maps" not in self._file:
                self._create_maps((0, 0), {})
            self._file.close()
            if kind is None:
                self._publish()
        finally:
            self._part.unlink(missing_ok=True)

    def append(
        self,
        explanations: Sequence[Explanation],
        target_ids: Sequence[Sequence[int]] | None = None,
        others: Mapping[str, Sequence[Explanation]] | None = None,
    ) -> None:
        """Add pictures.

        Args:
            explanations: One a picture or question, by the file's first method; those without words are kept, with no
                rows.
            target_ids: For each of them the id of each row; -1 if not given.
            others: The same rows by the file's other methods.

        Raises:
            UserError: An id is there already, or layer, methods or the maps' size are not the file's.
        """
        if not explanations:
            return
        ids = [[-1] * len(e.words) for e in explanations] if target_ids is None else target_ids
        if [len(row) for row in ids] != [len(e.words) for e in explanations]:
            raise UserError("expected one target id a word; got other numbers of them")
        by_method = {self.methods[0]: explanations, **(others or {})}
        self._check(by_method)
        values: dict[str, Any] = {
            "scores": torch.cat([e.scores for e in explanations]).float().numpy(),
            "words": self._numbers([word for e in explanations for word in e.words]),
            "target_ids": [number for row in ids for number in row],
            "ids": [e.id for e in explanations],
            "prompts": [e.prompt for e in explanations],
            "sizes": [e.size for e in explanations],
            "windows": [e.window for e in explanations],
            "offsets": dataset(self._file, "offsets")[-1] + np.cumsum([len(e.words) for e in explanations]),
        }
        for method, ones in by_method.items():
            values |= {f"{self._group(method)}{name}": value for name, value in self._maps(ones).items()}
        self._extend(values)
        self._ids.update(values["ids"])

    def fail(self, failures: Mapping[str, str]) -> None:
        """Note what could not be explained, by id, with the reason."""
        self._extend({"failures/ids": [*failures], "failures/reasons": [*failures.values()]})

    def copy(self, file: h5py.File, pictures: slice) -> None:
        """Add pictures out of another file of the same form, without computing anything anew.

        Args:
            file: The other file, opened.
            pictures: Which of its pictures, in steps of one.

        Raises:
            UserError: An id is there already.
        """
        offsets = dataset(file, "offsets")[pictures.start : pictures.stop + 1]
        ids = list(dataset(file, "ids").asstr()[pictures])
        self._new(ids)
        if not ids:
            return
        self._ids.update(ids)
        if "maps" not in self._file:
            groups = {method: f"{self._group(method)}weights" for method in self.methods}
            channels = {method: dataset(file, name).shape[1] for method, name in groups.items() if name in file}
            self._create_maps(dataset(file, "maps").shape[1:], channels)
        per_row = [*ROWS, *(name for name in names(self._file) if name.rpartition("/")[2] in MAPS)]
        values: dict[str, Any] = {name: dataset(file, name)[offsets[0] : offsets[-1]] for name in per_row}
        vocabulary = dataset(file, "vocabulary").asstr()[:]
        values["words"] = self._numbers(list(vocabulary[values["words"]]))
        values |= {name: dataset(file, name)[pictures] for name in PICTURES}
        values["offsets"] = dataset(self._file, "offsets")[-1] + offsets[1:] - offsets[0]
        self._extend(values)

    def _numbers(self, words: Sequence[str]) -> list[int]:
        """The words' numbers; a new word is written down."""
        known = len(self._words)
        numbers = [self._words.setdefault(word, len(self._words)) for word in words]
        self._extend({"vocabulary": list(self._words)[known:]})
        return numbers

    def _maps(self, explanations: Sequence[Explanation]) -> dict[str, Any]:
        """What one method has for each row."""
        signed = torch.cat([e.signed for e in explanations]).float()
        maps, peaks = _scaled(signed.relu())
        flags = [FLAGS.index(flag) for e in explanations for flag in e.flags]
        values = {"maps": maps.numpy(), "peaks": peaks.numpy(), "flags": np.array(flags, "u1")}
        if self._signed:
            scaled, scales = _scaled(signed)
            values |= {"signed": scaled.numpy(), "scales": scales.numpy()}
        if self._weights and explanations[0].weights is not None:
            values["weights"] = torch.cat([cast(Tensor, e.weights) for e in explanations]).float().numpy()
        return values

    def _check(self, by_method: Mapping[str, Sequence[Explanation]]) -> None:
        """Refuse what does not belong into this file, before anything of it is written."""
        if set(by_method) != set(self.methods):
            raise UserError(f"{self.path} is of the methods {self.methods}, got {tuple(by_method)}; write another file")
        first = by_method[self.methods[0]]
        shape = tuple(first[0].signed.shape[1:])
        if "maps" not in self._file:
            kept = {method: ones[0].weights for method, ones in by_method.items()}
            self._create_maps(shape, {method: value.shape[1] for method, value in kept.items() if value is not None})
        expected = tuple(dataset(self._file, "maps").shape[1:])
        for method, explanations in by_method.items():
            for e in explanations:
                if (e.layer, e.method) != (self.layer, method):
                    raise UserError(
                        f"{self.path} holds layer and method {(self.layer, method)}, got {(e.layer, e.method)}; "
                        "write another file"
                    )
                if tuple(e.signed.shape[1:]) != expected:
                    raise UserError(
                        f"{self.path} holds maps of {expected}, got {tuple(e.signed.shape[1:])}; write another file, "
                        "or bring all to one size: of Hugging Face's models --task.init_args.grid='[24, 24]'"
                    )
        self._new([e.id for e in first])

    def _new(self, ids: Sequence[str]) -> None:
        seen = set[str]()
        for name in ids:
            if name in self._ids or name in seen:
                raise UserError(f"{self.path} holds {name!r} already; give every picture or question an id of its own")
            seen.add(name)

    def _group(self, method: str) -> str:
        return "" if method == self.methods[0] else f"{method}/"

    def _create_maps(self, shape: Sequence[int], channels: Mapping[str, int]) -> None:
        """Make what each method has, once the size of the maps is known."""
        for method in self.methods:
            group = self._group(method)
            self._create(f"{group}maps", shape, np.float16)
            self._create(f"{group}peaks", (), np.float32)
            self._create(f"{group}flags", (), FLAG)
            if self._signed:
                self._create(f"{group}signed", shape, np.float16)
                self._create(f"{group}scales", (), np.float32)
            if self._weights and method in channels:
                self._create(f"{group}weights", (channels[method],), np.float32)

    def _create(self, name: str, tail: Sequence[int], dtype: Any) -> None:  # noqa: ANN401
        """Make an empty data set that grows by rows; large rows are compressed, a chunk at a time."""
        if 0 in tail:  # a file without pictures
            self._file.create_dataset(name, (0, *tail), dtype)
            return
        large = name.rpartition("/")[2] in MAPS and len(tail) > 0
        rows = min(256, max(1, CHUNK // (2 * prod(tail)))) if large else 1024
        more = PACKED if large else {}
        self._file.create_dataset(name, (0, *tail), dtype, maxshape=(None, *tail), chunks=(rows, *tail), **more)

    def _extend(self, values: Mapping[str, Any]) -> None:
        for name, rows in values.items():
            if len(rows):
                data = dataset(self._file, name)
                start = len(data)
                data.resize(start + len(rows), axis=0)
                data[start:] = rows

    def _publish(self) -> None:
        """Bring the file to the disk, then give it its name: after a power cut it is whole or not there."""
        if self._checksum:
            line = f"{sha256(self._part)}  {self.path.name}\n"
            beside = checksum_path(self.path)
            new = unfinished(beside)
            new.write_text(line, encoding="utf-8")
            sync(new)
            new.replace(beside)
        sync(self._part)
        self._part.replace(self.path)
        sync(self.path.parent)


def dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """A data set by name."""
    return cast(h5py.Dataset, file[name])


def versions() -> dict[str, str]:
    """What made the numbers."""
    found = {"python": platform.python_version(), "mmcam": __version__, "torch": str(torch.__version__)}
    for name in ("torchvision", "h5py", "Pillow", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def names(file: h5py.File) -> list[str]:
    """All data sets of a file, with their groups."""
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


def _scaled(maps: Float[Tensor, "n h w"]) -> tuple[Float16[Tensor, "n h w"], Float32[Tensor, " n"]]:
    """Divide each map by its largest size, since raw maps of 1e-6 would lose their digits in float16.

    NaN and infinity stay.
    """
    finite = maps.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).abs().flatten(1)
    peaks = finite.amax(1) if maps.numel() else maps.new_zeros(len(maps))
    return (maps / torch.where(peaks > 0, peaks, 1)[:, None, None]).half(), peaks
