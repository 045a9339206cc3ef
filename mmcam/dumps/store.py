"""Writing a file of maps (`mmcam.dumps.schema`): it appears under its name when it is complete and on the disk."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
import torch
from jaxtyping import Float, Float16, Float32
from torch import Tensor

from mmcam.disk import checksum_path, sha256, sync, unfinished
from mmcam.dumps.schema import (
    CONVENTIONS,
    FAILURES,
    FLAG,
    FLAGS,
    MAPS,
    PICTURES,
    ROWS,
    SCHEMA_VERSION,
    TAILS,
    WORDS,
    create,
    dataset,
    extend,
    names,
    versions,
)
from mmcam.errors import UserError
from mmcam.explanation import Explanation


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
            create(self._file, name, TAILS.get(name, ()), dtype)
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
        extend(self._file, values)
        self._ids.update(values["ids"])

    def fail(self, failures: Mapping[str, str]) -> None:
        """Note what could not be explained, by id, with the reason."""
        extend(self._file, {"failures/ids": [*failures], "failures/reasons": [*failures.values()]})

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
        extend(self._file, values)

    def _numbers(self, words: Sequence[str]) -> list[int]:
        """The words' numbers; a new word is written down."""
        known = len(self._words)
        numbers = [self._words.setdefault(word, len(self._words)) for word in words]
        extend(self._file, {"vocabulary": list(self._words)[known:]})
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
            create(self._file, f"{group}maps", shape, np.float16)
            create(self._file, f"{group}peaks", (), np.float32)
            create(self._file, f"{group}flags", (), FLAG)
            if self._signed:
                create(self._file, f"{group}signed", shape, np.float16)
                create(self._file, f"{group}scales", (), np.float32)
            if self._weights and method in channels:
                create(self._file, f"{group}weights", (channels[method],), np.float32)

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


def _scaled(maps: Float[Tensor, "n h w"]) -> tuple[Float16[Tensor, "n h w"], Float32[Tensor, " n"]]:
    """Divide each map by its largest size, since raw maps of 1e-6 would lose their digits in float16.

    NaN and infinity stay.
    """
    finite = maps.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).abs().flatten(1)
    peaks = finite.amax(1) if maps.numel() else maps.new_zeros(len(maps))
    return (maps / torch.where(peaks > 0, peaks, 1)[:, None, None]).half(), peaks
