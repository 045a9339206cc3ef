"""Figures of a table as pictures: one panel a column, one bar a row, its interval as a whisker."""

import math
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas

from mmcam.errors import UserError
from mmcam.evaluation.tables import Table
from mmcam.metrics.base import Figure

__all__ = ["plot"]

COLUMNS = 4  # panels side by side


def plot(table: Table, path: Path, first: int = 1) -> None:
    """Draw a table.

    Args:
        table: Its figures; other cells are left out.
        path: A .png, .svg or .pdf file.
        first: So many rows are methods under test and stand out in colour; the others are baselines.

    Raises:
        UserError: The suffix names no such format, or the table has no figures.
    """
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise UserError(f"{path}: expected a .png, .svg or .pdf file, got {path.suffix or 'no suffix'}")
    columns = [name for name in table.columns if any(isinstance(row.get(name), Figure) for row in table.rows.values())]
    if not columns:
        raise UserError(f"{table.title}: expected figures to draw, the table has none")
    across = min(COLUMNS, len(columns))
    down = math.ceil(len(columns) / across)
    canvas = Canvas(figsize=(3.2 * across + 1, (0.28 * len(table.rows) + 0.9) * down), layout="constrained")
    FigureCanvasAgg(canvas)
    panels = canvas.subplots(down, across, sharey=True, squeeze=False).ravel()
    names = list(table.rows)
    for panel, column in zip(panels, columns, strict=False):
        cells = [table.rows[name].get(column) for name in names]
        for place, cell in enumerate(cells):
            if isinstance(cell, Figure) and cell.n:
                whiskers = [[max(cell.value - cell.low, 0)], [max(cell.high - cell.value, 0)]]
                colour = "#0072b2" if place < first else "#999999"  # told apart by the colour-blind, and in print
                panel.barh(place, cell.value, xerr=whiskers, color=colour, ecolor="black", capsize=2, height=0.7)
        direction = {True: " ↑", False: " ↓", None: ""}[table.higher.get(column)]
        panel.set_title(f"{column}{direction}", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[len(columns) :]:
        panel.set_visible(False)
    for panel in panels:
        panel.set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    canvas.suptitle(table.title, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, dpi=150)
