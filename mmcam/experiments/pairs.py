"""Rows of an evaluation against its first row, picture by picture."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mmcam.evaluation.compare import means_by_unit, paired
from mmcam.evaluation.evaluate import Evaluation
from mmcam.evaluation.tables import Table
from mmcam.metrics.base import Figure

__all__ = ["differences"]


def differences(
    title: str, evaluation: Evaluation, first: str, others: Sequence[str], conditions: Mapping[str, Any]
) -> Table:
    """Say how much better or worse the maps of some rows are than those of one, on the same pictures.

    Args:
        title: Of the table.
        evaluation: All of it done.
        first: Name of the row that the others are held against.
        others: Names of the others.
        conditions: Of the table.

    Returns:
        The mean of each metric's difference, with a p-value beside it.
    """
    rows: dict[str, dict[str, Figure | float]] = {}
    for row in others:
        cells = rows.setdefault(f"{row} less {first}", {})
        for name in evaluation.rows[row]:
            before, after = (means_by_unit(evaluation.rows[which][name]) for which in (first, row))
            both = [unit for unit in before if unit in after]
            pair = [torch.tensor([values[unit] for unit in both], dtype=torch.float64) for values in (before, after)]
            cells[name], cells[f"p({name})"] = paired(*pair)
    return Table(title, rows, conditions, ("p: two-sided, paired bootstrap over pictures, 10,000 resamplings.",))
