"""What `mmcam evaluate` does: finds a run, its data and its model, judges it, and gives the tables."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from mmcam.config import SECTIONS, Config, read_config, resolve
from mmcam.dumps.folder import Folder
from mmcam.dumps.plan import MAPS
from mmcam.dumps.reader import MapReader
from mmcam.errors import UserError
from mmcam.evaluation.compare import means_by_unit
from mmcam.evaluation.evaluate import Evaluation
from mmcam.evaluation.judge import Amounts, Some, judge
from mmcam.evaluation.runs import dumped, explained, said_again
from mmcam.evaluation.tables import Table, versions
from mmcam.load import default_method, load_task, weights_sha256
from mmcam.methods.table import check_method
from mmcam.metrics.chosen import MetricSet
from mmcam.sources import choose_source
from mmcam.task import Task
from mmcam.truth import Truth

__all__ = ["Judging", "Run", "open_run", "results"]


@dataclass(frozen=True)
class Run:
    """What is judged: a dump, or a model that is run on the spot.

    Attributes:
        config: Sections `task:` and, where it is known, `data:`.
        path: The dump's file; None for a model.
        methods: Those to judge; the first is the one under test.
        signed: Whether there are maps before ReLU.
        layer: Of the maps; "" for a model.
        weights_sha256: Of the model; "" where it is still to be loaded.
        targets: Of a dump, what it explains: "predicted", "given" or "both"; "" where it does not say.
    """

    config: Mapping[str, Any] | str
    path: Path | None
    methods: tuple[str, ...]
    signed: bool
    layer: str = ""
    weights_sha256: str = ""
    targets: str = ""


def open_run(name: str, config: str, methods: tuple[str, ...] = (), overrides: Mapping[str, Any] | None = None) -> Run:
    """Find a run.

    Args:
        name: A dump's folder, URL or file; "" for a model.
        config: Of the model.
        methods: Those to judge; all of a dump, or the model's own, if none is named. Of a model the activation norm is
            judged in any case.
        overrides: Of YAML keys.

    Raises:
        UserError: There is neither, or the dump is not finished or lacks a method.
    """
    if not name:
        if not config:
            raise UserError("expected a dump or a model, got neither; name a dump's folder, or a model with --config")
        for method in methods:
            check_method(method)
        methods = methods or (default_method(config, overrides),)
        return Run(config, None, tuple(dict.fromkeys((*methods, "activation_norm"))), True)
    path = Path(name)
    if "://" in name or path.is_dir():
        folder = Folder(name)
        if not folder.exists(MAPS):
            raise UserError(
                f"{name}: expected a finished dump, but {MAPS} is missing; give its mmcam dump command again"
            )
        path = folder.fetch(MAPS)
    with MapReader(path) as maps:
        about, chosen = maps.attributes, methods or maps.methods
        for method in chosen:
            MapReader(path, method).close()  # names the methods that there are
        signed = any(name == "/signed" for name, *_ in maps.contents())
    own = {name: section for name, section in about["config"].items() if name in SECTIONS}
    if config:  # another model's file, but the pictures are still those that were dumped
        own = {**read_config(config), **{name: section for name, section in own.items() if name == "data"}}
    targets = about["config"].get("settings", {}).get("targets", "")
    return Run(own, path, chosen, signed, about["layer"], about["weights_sha256"], targets)


@dataclass(frozen=True)
class Judging:
    """How a run is judged.

    Attributes:
        data: See `mmcam.sources`; the run's own if it is "".
        overrides: Of YAML keys.
        given: Explain what people said. A dump has its own words; of one that has both, choose these.
        limit: Only the first samples.
        batch_size: Samples at a time.
        amounts: How much is judged.
        device: Where the model runs.
    """

    data: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    given: bool = False
    limit: int | None = None
    batch_size: int = 16
    amounts: Amounts = field(default_factory=Amounts)
    device: str = "auto"


def results(run: Run, judging: Judging, metrics: MetricSet) -> tuple[list[Table], dict[str, Any]]:
    """Judge a run.

    Args:
        run: What.
        judging: How.
        metrics: By what; the names are the tables' columns.

    Returns:
        The tables, see `judge`; and the mean of each metric in each picture, for comparing two runs.

    Raises:
        UserError: Model, data and run do not belong together, or there is nothing to judge.
    """
    truth, section = choose_source(judging.data, run.config, dict(judging.overrides))
    if not isinstance(truth, Truth):
        raise UserError(
            f"expected annotated data, got {type(truth).__name__}, which does not say where things are; "
            "name some with --data, such as scenes:test (docs/data.md lists them)"
        )
    _same_seed(run.config, section)
    if judging.given and run.targets == "predicted":
        raise UserError("expected a dump of what people gave, got one of what the model said; leave --targets out")
    asks = bool(judging.amounts.faithful or judging.amounts.sanity)
    task = load_task(run.config, device=judging.device, **judging.overrides) if run.path is None or asks else None
    if task is not None and run.weights_sha256 not in ("", weights_sha256(task)):
        raise UserError("expected the model that made the dump, got other weights; dump again, or leave the model out")
    samples = _samples(run, judging, truth, task)
    given = run.targets == "given" or (judging.given and run.targets in ("", "both"))
    who = "people" if given else "model"
    options = {"task": task, "methods": run.methods, "signed": run.signed, "who": who}
    tables, evaluation = judge(samples, truth, metrics, judging.amounts, **options)
    conditions = {
        "task": resolve(run.config, "task", Task, judging.overrides),
        "weights_sha256": run.weights_sha256 if task is None else weights_sha256(task),
        "layer": run.layer if task is None else run.layer or task.layer,  # the maps are those of the dump
        "data": section,
        "limit": judging.limit,
        "explained": "as dumped" if run.path and not run.targets else "given" if given else "predicted",
        "right_only": judging.amounts.right_only,
        "seed": judging.amounts.seed,
        **versions("cpu" if task is None else task.device),
    }
    return [replace(table, conditions=conditions) for table in tables], _pictures(evaluation, truth)


def _same_seed(config: Config, section: Mapping[str, Any]) -> None:
    """Refuse other scenes than those of the dump: of all seeds they have the same ids.

    Raises:
        UserError: The seed is another one.
    """
    known = config.get("data") if isinstance(config, Mapping) else None
    if known is None or known["class_path"] != section["class_path"]:
        return
    seeds = [part.get("init_args", {}).get("seed") for part in (known, section)]
    if seeds[0] != seeds[1]:
        raise UserError(f"expected the data of the dump, seed {seeds[0]}, got seed {seeds[1]}; leave --data out")


def _samples(run: Run, judging: Judging, truth: Truth, task: Task | None) -> Iterator[Some]:
    """A run's samples, some at a time.

    A dump's samples go through the model again as long as it is to be asked.
    """
    given, limit, size = judging.given, judging.limit, judging.batch_size
    if run.path is None and task is not None:
        for some in explained(task, truth, run.methods, given=given, limit=limit, batch_size=size):
            yield some.numbers, some.explanations, some
    elif run.path is not None:
        pairs = dumped(run.path, truth, run.methods, limit, given if run.targets == "both" else None)
        left = max(judging.amounts.faithful, judging.amounts.sanity)
        while group := list(islice(pairs, size)):
            # A model cannot be asked about words that it did not say.
            silent = [pair for pair in group if not next(iter(pair[1].values())).words]
            asked = [pair for pair in group if next(iter(pair[1].values())).words]
            for some, ask in ((silent, False), (asked, left > 0)):
                if some:
                    numbers, found = zip(*some, strict=True)
                    yield numbers, found, said_again(task, truth, some) if ask and task is not None else None
            left -= len(group)


def _pictures(evaluation: Evaluation, truth: Truth) -> dict[str, Any]:
    """The mean of each metric of each row in each picture."""
    means = {
        row: {name: means_by_unit(metric) for name, metric in metrics.items()}
        for row, metrics in evaluation.rows.items()
    }
    numbers = sorted({number for row in means.values() for by_unit in row.values() for number in by_unit})
    values = {
        row: {name: [_rounded(by_unit.get(number)) for number in numbers] for name, by_unit in metrics.items()}
        for row, metrics in means.items()
    }
    return {"ids": [truth.ids[number] for number in numbers], "values": values}


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 6)
