"""Two results picture by picture: is one run better than the other, or is it chance?"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmcam.errors import UserError
from mmcam.evaluation.tables import Table
from mmcam.metrics.base import Figure, PerMap

__all__ = ["compare", "means_by_unit", "paired", "read_results"]


def means_by_unit(metric: PerMap) -> dict[int, float]:
    """The mean of a metric in each picture where it is defined."""
    values, units, _ = metric.kept()
    kept = ~values.isnan()
    numbers, place = units[kept].unique(return_inverse=True)
    sums = torch.zeros(len(numbers), dtype=torch.float64).index_add_(0, place, values[kept].double())
    return dict(zip(numbers.tolist(), (sums / place.bincount(minlength=len(numbers))).tolist(), strict=True))


def paired(
    one: Float[Tensor, " n"], two: Float[Tensor, " n"], *, samples: int = 10_000, seed: int = 0
) -> tuple[Figure, float]:
    """The paired bootstrap (Efron and Tibshirani 1993, ch. 16): the mean difference, its interval, and its p-value.

    Args:
        one: A value a picture.
        two: Of the same pictures.
        samples: Number of resamplings.
        seed: Of the resampling.

    Returns:
        The mean of two - one with its 95 % percentile interval, and the two-sided share of resamplings whose mean,
        shifted to zero, is at least as far from zero as the one observed; NaN of fewer than two pictures.
    """
    difference = (two - one).double()
    difference = difference[~difference.isnan()]
    n = len(difference)
    if not n:
        return Figure(float("nan"), float("nan"), float("nan"), 0, len(one)), float("nan")
    observed = difference.mean()
    drawn = torch.cat([difference[index].mean(1) for index in _resampled(n, samples, seed)])
    low, high = drawn.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    extreme = ((drawn - observed).abs() >= observed.abs() - 1e-12).sum()
    p = float((extreme + 1) / (samples + 1)) if n > 1 else float("nan")
    return Figure(float(observed), low, high, n, len(one) - n), p


def _resampled(n: int, samples: int, seed: int) -> list[Int[Tensor, "some n"]]:
    generator = torch.Generator().manual_seed(seed)
    step = max(1, 4_000_000 // n)
    return [torch.randint(n, (min(step, samples - i), n), generator=generator) for i in range(0, samples, step)]


def read_results(path: Path) -> dict[str, Any]:
    """Read what `mmcam evaluate --json` wrote.

    Raises:
        UserError: It is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        _ = content["pictures"]["ids"], content["pictures"]["values"], content["title"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: expected results by mmcam evaluate --json, got {type(error).__name__}: {error}"
        ) from error
    return content


def compare(one: Mapping[str, Any], two: Mapping[str, Any], names: tuple[str, str]) -> Table:
    """Compare two results on the pictures that both have.

    Args:
        one: What `read_results` gives.
        two: The other.
        names: Of the two, for the title.

    Returns:
        A table of the differences two - one, with a p-value beside each. Its notes name the rows that only one result
        has, and tell where the results are of different data, whose pictures may differ under the same ids.

    Raises:
        UserError: They have no picture, row or metric in common.
    """
    others = set(two["pictures"]["ids"])
    ids = [name for name in one["pictures"]["ids"] if name in others]
    values = [result["pictures"]["values"] for result in (one, two)]
    if not ids or not values[0].keys() & values[1].keys():
        raise UserError(f"expected results of the same pictures and methods, {names[0]} and {names[1]} share none")
    rows: dict[str, dict[str, Figure | float]] = {}
    for row in (name for name in values[0] if name in values[1]):
        rows[row] = {}
        for metric in (name for name in values[0][row] if name in values[1][row]):
            pair = [_chosen(result, row, metric, ids) for result in (one, two)]
            rows[row][metric], rows[row][f"p({metric})"] = paired(*pair)
    notes = ["p: two-sided, paired bootstrap over pictures, 10,000 resamplings."]
    if alone := [name for name in {**values[0], **values[1]} if name not in rows]:
        notes.append(f"Not compared, as only one of the two has them: {', '.join(alone)}.")
    data = [result.get("conditions", {}).get("data") for result in (one, two)]
    if data[0] != data[1]:
        notes.append("The two name different data: the same ids may be of other pictures.")
    return Table(
        f"{names[1]} less {names[0]}, paired over {len(ids)} pictures",
        rows,
        {"one": one.get("conditions", {}), "two": two.get("conditions", {})},
        tuple(notes),
    )


def _chosen(result: Mapping[str, Any], row: str, metric: str, ids: list[str]) -> Float[Tensor, " n"]:
    by_id = dict(zip(result["pictures"]["ids"], result["pictures"]["values"][row][metric], strict=True))
    return torch.tensor([float("nan") if by_id[name] is None else by_id[name] for name in ids], dtype=torch.float64)
