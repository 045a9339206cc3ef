"""Intervals that hold for other people and other pictures: answers of one person, or about one picture, hang together.

The variance of a mean is that of people and that of pictures, less what both have in common (Cameron, Gelbach and
Miller, Robust inference with multiway clustering, Journal of Business and Economic Statistics 29(2), 2011). A share
gets Wilson's interval, for as many answers as would have that variance if they were independent.
"""

import math
from collections.abc import Hashable, Sequence

import numpy as np
from scipy.stats import norm, t

__all__ = ["interval", "variance", "wilson"]

LEVEL = 0.95


def wilson(share: float, n: float, width: float) -> tuple[float, float]:
    """Wilson's interval of a share (Journal of the American Statistical Association 22, 1927).

    Args:
        share: Of n trials.
        n: Their number; what others are worth need not be whole.
        width: Standard deviations to each side: 1.96 of the normal distribution for 95 %.

    Returns:
        Its ends, from 0 to 1.
    """
    spread = width * width / n
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def variance(values: Sequence[float], people: Sequence[Hashable], pictures: Sequence[Hashable]) -> tuple[float, int]:
    """The variance of a mean.

    Args:
        values: One an answer.
        people: Whose.
        pictures: About what; no person answers twice about one.

    Returns:
        The variance, never less than of people, of pictures or of answers alone; and its degrees of freedom: one less
        than the smaller number of people or pictures. Of one person (or one picture) nothing is known about others:
        then it is that of pictures (or people) alone.
    """
    errors = np.asarray(values, float) - np.mean(values)
    parts = [_part(errors, units) for units in (people, pictures, range(len(errors)))]
    counts = [len(set(units)) for units in (people, pictures)]
    both = parts[0] + parts[1] - parts[2]
    return max(both, *parts), min((count for count in counts if count > 1), default=1) - 1


def interval(
    values: Sequence[float], people: Sequence[Hashable], pictures: Sequence[Hashable], *, shares: bool
) -> tuple[float, float]:
    """The 95 % interval of a mean.

    Args:
        values: One an answer.
        people: Whose.
        pictures: About what.
        shares: Whether values are 0 and 1.

    Returns:
        Its ends; NaN without values, and of scores without two values.
    """
    if not values:
        return math.nan, math.nan
    mean = float(np.mean(values))
    spread, freedom = variance(values, people, pictures)
    width = float(t.ppf((1 + LEVEL) / 2, freedom)) if freedom else float(norm.ppf((1 + LEVEL) / 2))
    if shares:
        return wilson(mean, mean * (1 - mean) / spread if spread else float(len(values)), width)
    return (mean - width * math.sqrt(spread), mean + width * math.sqrt(spread)) if freedom else (math.nan, math.nan)


def _part(errors: np.ndarray, units: Sequence[Hashable]) -> float:
    """The variance if units are independent; 0 of a single one."""
    numbers = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    if len(numbers) < 2:
        return 0.0
    sums = np.bincount([numbers[unit] for unit in units], weights=errors)
    return float((sums**2).sum()) / len(errors) ** 2 * len(numbers) / (len(numbers) - 1)
