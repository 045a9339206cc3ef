"""What a dump consists of: the settings, and which samples are in which part.

The plan is in the folder as `dump.json` before the first part is made. It never changes for another configuration,
other data or other settings; it grows where more is asked for by `only_missing`.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mmcam.dumps.folder import Folder
from mmcam.dumps.reader import MapReader
from mmcam.dumps.schema import SCHEMA_VERSION
from mmcam.errors import UserError, unknown
from mmcam.load import weights_sha256
from mmcam.methods.table import check_method
from mmcam.sources import Source
from mmcam.task import Task

__all__ = ["MANIFEST", "MAPS", "Plan", "Settings", "make_plan", "part_name", "read_plan", "todo"]

logger = logging.getLogger(__name__)

MANIFEST, MAPS = "dump.json", "maps.h5"


@dataclass(frozen=True)
class Settings:
    """What is dumped of every sample.

    Attributes:
        methods: Names of functions in `mmcam.cam`; they share one trunk pass.
        targets: Explain what the model says itself, what the source gives, or both (as `<id>` and `<id>:given`).
        signed: Keep the maps before ReLU too.
        weights: Keep α too.
        amp: Compute the trunk in bfloat16.
        part_size: Samples a part.
    """

    methods: tuple[str, ...] = ("grad_cam",)
    targets: Literal["predicted", "given", "both"] = "predicted"
    signed: bool = False
    weights: bool = False
    amp: bool = False
    part_size: int = 1000

    def __post_init__(self) -> None:
        for method in self.methods:
            check_method(method)
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise UserError(f"expected methods, each once; got {', '.join(self.methods) or 'none'}")
        if self.targets not in ("predicted", "given", "both"):
            raise unknown("targets", self.targets, ("predicted", "given", "both"))
        if self.part_size < 1:
            raise UserError(f"expected a part size of 1 or more, got {self.part_size}")


@dataclass(frozen=True)
class Plan:
    """What a dump consists of.

    Attributes:
        record: Configuration, data, hash of the weights, layer and settings, for the record and for comparison.
        parts: For each part the numbers of its samples.
    """

    record: dict[str, Any]
    parts: tuple[tuple[int, ...], ...]

    @property
    def settings(self) -> Settings:
        """What is dumped of every sample."""
        values = self.record["settings"]
        return Settings(**{**values, "methods": tuple(values["methods"])})

    @property
    def count(self) -> int:
        """Number of samples."""
        return sum(map(len, self.parts))


def part_name(number: int) -> str:
    """The file of a part."""
    return f"parts/part-{number:05d}.h5"


def make_plan(
    folder: Folder,
    task: Task,
    source: Source,
    settings: Settings,
    *,
    config: Mapping[str, Any],
    data: Mapping[str, Any],
    limit: int | None = None,
    only_missing: bool = False,
) -> Plan:
    """Plan a dump, or find the plan that is there and see that it is the same.

    Args:
        folder: Where the dump is or will be.
        task: Explains.
        source: The samples.
        settings: What of each.
        config: The resolved section of the task, for the record.
        data: The resolved section of the source, for the record.
        limit: Only the first samples.
        only_missing: Plan more parts for what failed and for what the source has gained since.

    Returns:
        The plan, which is in the folder too.

    Raises:
        UserError: There is another plan; names the differences.
    """
    count = len(source) if limit is None else min(limit, len(source))
    record = {
        "schema_version": SCHEMA_VERSION,
        "task": dict(config),
        "data": dict(data),
        "settings": asdict(settings),
        "layer": task.layer,
        "weights_sha256": weights_sha256(task),
        "samples": count,
        "ids_sha256": _digest(source.ids[:count]),
    }
    record = json.loads(json.dumps(record, ensure_ascii=False))
    parts = tuple(tuple(range(i, min(i + settings.part_size, count))) for i in range(0, count, settings.part_size))
    if folder.exists(MANIFEST):
        there = json.loads(folder.read(MANIFEST))
        old = there["plan"]
        changed = _differences(old, record)
        if only_missing and _digest(source.ids[: old["samples"]]) == old["ids_sha256"]:
            changed = [line for line in changed if not line.startswith(("samples:", "ids_sha256:", "data."))]
        if changed:
            raise UserError(
                f"{folder.url} holds a dump of another kind ({'; '.join(changed)}); "
                "dump into another folder, or delete this one"
            )
        parts = tuple(_numbers(text) for text in there["parts"])
        if not only_missing:
            return Plan(record, parts)
        parts += _missing(folder, source, count, parts, settings.part_size)
    elif count == 0:
        raise UserError("expected samples to explain, the data have none")
    text = {"plan": record, "parts": [_ranges(numbers) for numbers in parts]}
    folder.write(MANIFEST, json.dumps(text, indent=1, ensure_ascii=False).encode())
    return Plan(record, parts)


def read_plan(folder: Folder) -> Plan:
    """Read the plan of a dump.

    Raises:
        UserError: There is none in the folder.
    """
    if not folder.exists(MANIFEST):
        raise UserError(f"{folder.url}: expected a dump, but there is no {MANIFEST}; mmcam dump makes one")
    content = json.loads(folder.read(MANIFEST))
    return Plan(content["plan"], tuple(_numbers(text) for text in content["parts"]))


def todo(folder: Folder, plan: Plan, shard: tuple[int, int] = (1, 1)) -> list[int]:
    """The parts of a shard that are missing or damaged; damaged ones are told.

    Args:
        folder: Where the dump is.
        plan: What it consists of.
        shard: (i, n): only every n-th part, from the i-th on.
    """
    left = []
    for number in range(shard[0] - 1, len(plan.parts), shard[1]):
        name = part_name(number)
        if not folder.intact(name):
            if folder.exists(name):
                logger.warning("%s is damaged and is made again", folder.path(name))
            left.append(number)
    return left


def _missing(
    folder: Folder, source: Source, count: int, parts: Sequence[Sequence[int]], size: int
) -> tuple[tuple[int, ...], ...]:
    """More parts: of what failed in the finished ones, and of what no part has."""
    planned = {sample for numbers in parts for sample in numbers}
    failed: set[str] = set()
    for number, samples in enumerate(parts):
        failed -= {source.ids[i] for i in samples}  # a later part is what counts, also one that is still to be made
        if folder.intact(part_name(number)):
            with MapReader(folder.fetch(part_name(number))) as part:
                failed |= {name.partition(":given")[0] for name in part.failures}
    wanted = [i for i in range(count) if i not in planned or source.ids[i] in failed]
    return tuple(tuple(wanted[i : i + size]) for i in range(0, len(wanted), size))


def _digest(ids: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(ids).encode("utf-8", "surrogateescape")).hexdigest()


def _differences(old: object, new: object, where: str = "") -> list[str]:
    """Name what differs between two plans: "settings.signed: False → True"."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*dict.fromkeys([*old, *new])]
        return [line for key in keys for line in _differences(old.get(key), new.get(key), f"{where}{key}.")]
    return [] if old == new else [f"{where.rstrip('.')}: {_short(old)} → {_short(new)}"]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _ranges(numbers: Sequence[int]) -> str:
    """Write numbers as "0-999,1003"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _numbers(text: str) -> tuple[int, ...]:
    """Read what `_ranges` has written."""
    ends = [run.partition("-") for run in text.split(",") if run]
    return tuple(number for a, _, b in ends for number in range(int(a), int(b or a) + 1))
