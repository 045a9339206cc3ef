"""The tables of `mmcam evaluate --json` as the page shows them: as text, and each column as a plot of bars."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Bar", "Plot", "View", "views"]

HARD = "\N{NO-BREAK SPACE}"
LEFT, WIDTH, LINE = 110, 180, 18
"""Of a plot in pixels: where bars begin, how long they can be, how far they are apart."""


@dataclass(frozen=True)
class Bar:
    """One row of a plot, in pixels.

    Attributes:
        name: Of the row.
        text: Its value.
        y: Where it stands.
        start: Where its bar begins.
        length: Of its bar.
        low: Where its whisker begins.
        high: Where it ends.
        first: Whether it is the method under test.
    """

    name: str
    text: str
    y: int
    start: float
    length: float
    low: float
    high: float
    first: bool


@dataclass(frozen=True)
class Plot:
    """One column: a bar a row, its interval as a whisker; `zero` is where 0 lies."""

    name: str
    bars: tuple[Bar, ...]
    zero: float
    width: int
    height: int


@dataclass(frozen=True)
class View:
    """One table: header, rows of text, notes, conditions and plots."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    conditions: tuple[tuple[str, str], ...]
    plots: tuple[Plot, ...]


def views(results: Mapping[str, Any]) -> list[View]:
    """Lay out all tables of results.

    Args:
        results: See `mmcam.evaluation.compare.read_results`.
    """
    return [_view(table) for table in (results, *results.get("tables", ()))]


def _view(table: Mapping[str, Any]) -> View:
    rows: Mapping[str, Mapping[str, Any]] = table["rows"]
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    body = tuple((name, *(_text(row.get(column)) for column in columns)) for name, row in rows.items())
    plots = (_plot(column, {name: row.get(column) for name, row in rows.items()}) for column in columns)
    conditions = tuple((name, str(value)) for name, value in table.get("conditions", {}).items())
    found = tuple(plot for plot in plots if plot is not None)
    return View(table["title"], ("", *columns), body, tuple(table.get("notes", ())), conditions, found)


def _text(cell: object) -> str:
    """A figure as value, half the interval's width and number; – where it is undefined."""
    if cell is None:
        return ""
    if isinstance(cell, Mapping):
        value, low, high = (cell.get(name) for name in ("value", "low", "high"))
        if value is None:
            return "–"
        half = f"{HARD}±{HARD}{(high - low) / 2:.3f}" if low is not None and high is not None else ""
        return f"{value:.3f}{half} (n{HARD}={HARD}{cell.get('n')})"
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)


def _plot(name: str, cells: Mapping[str, object]) -> Plot | None:
    """Bars of a column's figures; None if it has none."""
    figures = {
        row: cell for row, cell in cells.items() if isinstance(cell, Mapping) and _number(cell.get("value")) is not None
    }
    if not figures:
        return None
    edges = {row: tuple(_number(cell.get(key)) for key in ("value", "low", "high")) for row, cell in figures.items()}
    every = [edge for row in edges.values() for edge in row if edge is not None]
    least, most = min(0.0, *every), max(0.0, *every)
    scale = WIDTH / ((most - least) or 1.0)

    def at(value: float) -> float:
        return round(LEFT + (value - least) * scale, 2)

    bars = []
    for place, (row, (value, low, high)) in enumerate(edges.items()):
        assert value is not None
        start, end = sorted((at(0.0), at(value)))
        low, high = value if low is None else low, value if high is None else high
        bars.append(Bar(row, f"{value:.3f}", LINE * place, start, round(end - start, 2), at(low), at(high), place == 0))
    return Plot(name, tuple(bars), at(0.0), LEFT + WIDTH + 60, LINE * len(bars))


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
