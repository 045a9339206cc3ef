"""Tables that can be put in a paper: figures with intervals and numbers, and the conditions that they hold under."""

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from mmcam import __version__
from mmcam.metrics.base import Figure

__all__ = ["Table", "versions"]

Cell = Figure | float | int | str | None


@dataclass(frozen=True)
class Table:
    """Rows of figures.

    Attributes:
        title: What the table shows.
        rows: Of each row's name its cells by column; a cell may be missing.
        conditions: What the figures hold under: weights, layer, data, seed, device, versions.
        notes: What a reader has to know, a sentence each.
        higher: Of a column's name whether more is better; none where that makes no sense.
        digits: Decimal places of the figures.
    """

    title: str
    rows: Mapping[str, Mapping[str, Cell]]
    conditions: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    higher: Mapping[str, bool] = field(default_factory=dict)
    digits: int = 3

    @property
    def columns(self) -> list[str]:
        """All columns, in the order in which rows name them."""
        return list(dict.fromkeys(name for row in self.rows.values() for name in row))

    def record(self) -> dict[str, Any]:
        """What goes into JSON: everything; NaN is null, which JSON does not know."""
        rows = {name: {column: _plain(cell) for column, cell in row.items()} for name, row in self.rows.items()}
        return {"title": self.title, "rows": rows, "notes": list(self.notes), "conditions": dict(self.conditions)}

    def json(self) -> str:
        """The record as text."""
        return json.dumps(self.record(), indent=1, ensure_ascii=False, allow_nan=False, default=str)

    def cells(self) -> list[list[str]]:
        """The header and the rows as text: value and half the interval's width; numbers of values stand below."""
        columns = self.columns
        marks = [f"{name} {'↑' if self.higher[name] else '↓'}" if name in self.higher else name for name in columns]
        body = [[name, *(self._text(row.get(column)) for column in columns)] for name, row in self.rows.items()]
        return [["", *marks], *body]

    def markdown(self, *, conditions: bool = True) -> str:
        """The table, its notes and, if wanted, its conditions as Markdown."""
        header, *body = [[cell.replace("|", "\\|") for cell in row] for row in self.cells()]
        lines = [f"### {self.title}", "", _line(header), _line(["---", *["---:"] * (len(header) - 1)])]
        lines += [_line(row) for row in body]
        lines += ["", *(f"{note}  " for note in self.remarks())]
        if self.conditions and conditions:
            said = "; ".join(f"{name} {_short(value)}" for name, value in self.conditions.items())
            lines += ["", f"<sub>{said}</sub>"]
        return "\n".join(lines) + "\n"

    def latex(self) -> str:
        """The table for LaTeX with booktabs; the conditions are a comment."""
        header, *body = [[_escaped(cell) for cell in row] for row in self.cells()]
        caption = _escaped(" ".join([f"{self.title}.", *self._counts()]))
        said = "".join(f"% {name}: {_short(value)}\n" for name, value in self.conditions.items())
        return (
            f"{said}\\begin{{table}}\n\\centering\n\\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}\n\\toprule\n"
            + " & ".join(header)
            + " \\\\\n\\midrule\n"
            + "".join(" & ".join(row) + " \\\\\n" for row in body)
            + f"\\bottomrule\n\\end{{tabular}}\n\\caption{{{caption}}}\n"
            "\\end{table}\n"
        )

    def remarks(self) -> list[str]:
        """What a reader has to know: the numbers of values, then the notes."""
        return [*self._counts(), *self.notes]

    def _text(self, cell: Cell) -> str:
        if cell is None:
            return ""
        if isinstance(cell, Figure):
            if not cell.n:
                return "–"
            half = (cell.high - cell.low) / 2
            return f"{cell.value:.{self.digits}f}" + (f" ± {half:.{self.digits}f}" if math.isfinite(half) else "")
        if isinstance(cell, float):
            return f"{cell:.{self.digits}f}" if math.isfinite(cell) else "–"
        return str(cell)

    def _counts(self) -> list[str]:
        """How many values stand behind the first row's figures, and how many were left out as undefined."""
        first = next(iter(self.rows.values()), {})
        figures = {name: cell for name, cell in first.items() if isinstance(cell, Figure)}
        if not figures:
            return []
        counts = {name: _count(cell) for name, cell in figures.items()}
        usual = max(counts.values(), key=list(counts.values()).count)
        others = ", ".join(f"{name} {count}" for name, count in counts.items() if count != usual)
        return [
            f"n = {usual}{f', but {others}' if others else ''}. ± is half the 95 % bootstrap interval over pictures."
        ]


def versions(device: torch.device | str) -> dict[str, str]:
    """What made the numbers, for a table's conditions."""
    return {
        "device": str(device),
        "mmcam": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def _count(figure: Figure) -> str:
    return f"{figure.n}" + (f" ({figure.excluded} undefined)" if figure.excluded else "")


def _plain(cell: Cell) -> object:
    if isinstance(cell, Figure):
        return {name: _plain(value) for name, value in asdict(cell).items()}
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text[:12] if len(text) == 64 and text.isalnum() else text


def _escaped(text: str) -> str:
    signs = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "^": r"\^{}", "~": r"\~{}", "<": "$<$", ">": "$>$"}
    signs |= {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "±": r"$\pm$", "–": "--"}
    signs |= {"↑": r"$\uparrow$", "↓": r"$\downarrow$", "×": r"$\times$", "α": r"$\alpha$", "≥": r"$\geq$"}
    return "".join(signs.get(letter, letter) for letter in text)
