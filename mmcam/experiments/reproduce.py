"""Running experiments by their configurations, and the page of their results."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmcam.config import Config, instantiate, resolve
from mmcam.evaluation.tables import Table, versions
from mmcam.experiments import Experiment
from mmcam.load import load_task, weights_sha256
from mmcam.metrics.base import Figure
from mmcam.resources import shipped_configs
from mmcam.truth import Truth

__all__ = ["Done", "called", "drawable", "page", "reproduce", "shipped_experiments"]

MOST = 8  # columns of a table that is drawn

ABOUT = """\
Every table prints the rows that know nothing of the word beside the method: *centre*, *random* and *uniform* maps, the
norm of the activations, and the method's own map with its sign *flipped*. What the paper measured is told above each
table; its numbers are of other models on other data. They say what was asked, and are not to be compared with."""


@dataclass(frozen=True)
class Done:
    """An experiment's outcome.

    Attributes:
        name: Of its configuration.
        paper: What the paper did and found.
        tables: Ours; none if it was not run.
        seconds: How long it took.
        reason: Why it was not run.
    """

    name: str
    paper: str = ""
    tables: tuple[Table, ...] = ()
    seconds: float = 0.0
    reason: str = ""


def shipped_experiments() -> list[str]:
    """Names of the shipped experiments, without "experiments/"."""
    return [name.partition("/")[2] for name in shipped_configs() if name.startswith("experiments/")]


def called(name: str) -> str:
    """What an experiment is called on the page and in the names of files: that of its YAML file, without folder."""
    return Path(name).stem


def reproduce(name: str, *, limit: int, seed: int, device: str = "auto") -> Done:
    """Run one experiment.

    Args:
        name: A shipped one's, or a YAML file with the sections `task:`, `data:` and `experiment:`.
        limit: Use the first pictures or questions only.
        seed: Of everything random; of scenes too.
        device: Where the model runs.

    Returns:
        Its tables, each with all conditions.

    Raises:
        UserError: The configuration is wrong, or its data are not here.
    """
    config: Config = f"experiments/{name}" if name in shipped_experiments() else name
    experiment = instantiate(config, "experiment", Experiment)
    section = resolve(config, "data", Truth)
    more = {"data.init_args.seed": seed} if "seed" in section["init_args"] else {}
    truth = instantiate(config, "data", Truth, more)
    task = load_task(config, device=device)
    start = time.perf_counter()
    tables = experiment.run(task, truth, limit=limit, seed=seed)
    conditions = {
        "task": resolve(config, "task", type(task)),
        "weights": weights_sha256(task),
        "layer": task.layer,
        "data": resolve(config, "data", Truth, more),
        "limit": limit,
        "seed": seed,
        **versions(task.device),
    }
    # What an experiment says of its own tables stands first, and wins.
    tables = [replace(table, conditions={**table.conditions, **conditions, **table.conditions}) for table in tables]
    return Done(called(name), experiment.paper, tuple(tables), time.perf_counter() - start)


def drawable(table: Table) -> bool:
    """Whether a table has so few figures that a picture of them says more than the table."""
    columns = {name for row in table.rows.values() for name, cell in row.items() if isinstance(cell, Figure)}
    return 1 <= len(columns) <= MOST


def page(results: Sequence[Done], command: str) -> str:
    """Write results as one page of Markdown.

    Args:
        results: In order.
        command: That made them.
    """
    lines = ["# Results", "", f"Made by `{command}` in {sum(done.seconds for done in results):.0f} s.", ""]
    lines += [ABOUT, ""]
    for done in results:
        lines += [f"## {done.name.replace('_', ' ')}", ""]
        if done.paper:
            lines += [f"*The paper:* {done.paper.strip()}", ""]
        if done.tables and drawable(done.tables[0]):
            lines += [f"![{done.tables[0].title}]({done.name}.png)", ""]
        if done.reason:
            lines += [f"Not run here: {done.reason}", ""]
        told = [table.conditions for table in done.tables[1:]] + [None]
        lines += [
            table.markdown(conditions=table.conditions != after)
            for table, after in zip(done.tables, told, strict=False)
        ]
    return "\n".join(lines)
