"""Do people agree? Krippendorff's α, for any number of people, each of whom saw some of the trials.

α = 1 - observed / expected disagreement (Hayes and Krippendorff, Communication Methods and Measures 1(1), 2007). With
two ratings by all people of all trials and nominal values it is nearly Fleiss' κ. 1: they agree always; 0: as by
chance; below 0: less than by chance. Of maps that show nothing, 0 is what one expects.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Literal

import numpy as np

__all__ = ["krippendorff"]


def krippendorff(ratings: Iterable[tuple[str, int]], scale: Literal["nominal", "interval"]) -> float:
    """Compute α.

    Args:
        ratings: What was rated, and the value.
        scale: Whether values differ by 1 or by the square of their difference.

    Returns:
        α; NaN where nothing was rated twice, or only one value was ever given.
    """
    units: defaultdict[str, list[int]] = defaultdict(list)
    for unit, value in ratings:
        units[unit].append(value)
    rated = [values for values in units.values() if len(values) > 1]
    values = sorted({value for some in rated for value in some})
    if len(values) < 2:
        return float("nan")
    at = {value: number for number, value in enumerate(values)}
    together = np.zeros((len(values), len(values)))  # coincidences
    for some in rated:
        counts = np.bincount([at[value] for value in some], minlength=len(values)).astype(float)
        together += (np.outer(counts, counts) - np.diag(counts)) / (len(some) - 1)
    apart = np.subtract.outer(values, values).astype(float) ** 2
    if scale == "nominal":
        apart = (apart > 0).astype(float)
    totals = together.sum(0)
    expected = (np.outer(totals, totals) * apart).sum() / (totals.sum() - 1)
    return float(1 - (together * apart).sum() / expected)
