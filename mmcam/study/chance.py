"""Tests by chance: how likely is as much if maps say nothing, or if two methods' maps say the same?

What chance decided is decided anew, in every way that there is if they are few, else many times; p is the share of
those that give at least as much as was found, which is one of them. So p is exact, or holds its level.

A unit is a person or a picture: its answers stand or fall together. What holds for other people and other pictures has
to pass with either as the unit, so the larger p of the two is what counts.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
from jaxtyping import Float, Int

__all__ = ["between", "by_signs", "holm"]

SLACK = 1e-9


def by_signs(sums: Float[np.ndarray, " units"], throws: int, rng: np.random.Generator) -> float:
    """How likely a sum is as far from 0 if the sign of each unit's sum is thrown.

    Args:
        sums: Of each unit's answers, as distances from chance.
        throws: How many, where there are more ways than that.
        rng: Throws.

    Returns:
        p of both sides together.
    """
    far = abs(sums.sum()) - SLACK
    if 2 ** len(sums) <= throws:
        signs = np.array([*product((-1.0, 1.0), repeat=len(sums))])
        return float((np.abs(signs @ sums) >= far).mean())
    extreme = sum(
        int((np.abs(rng.choice([-1.0, 1.0], (len(part), len(sums))) @ sums) >= far).sum())
        for part in np.array_split(np.empty(throws), max(1, throws * len(sums) // 10**6))
    )
    return (1 + extreme) / (1 + throws)


def between(
    sums: Float[np.ndarray, "units methods"],
    numbers: Float[np.ndarray, "units methods"],
    pairs: Sequence[tuple[int, int]],
    throws: int,
    rng: np.random.Generator,
) -> list[float]:
    """How likely two methods differ as much if each unit's methods are turned by chance, as a person's turn does.

    Args:
        sums: Of each unit's answers by method.
        numbers: Of these answers.
        pairs: Which methods are compared.
        throws: How many, where there are more ways than that.
        rng: Throws.

    Returns:
        p of each pair, of both sides together.
    """
    units, count = sums.shape
    every = units * np.log(count) <= np.log(throws)
    turns = np.array([*product(range(count), repeat=units)]) if every else rng.integers(count, size=(throws, units))
    means = _turned(sums, numbers, turns)
    found = _turned(sums, numbers, np.zeros((1, units), int))[0]
    values: list[float] = []
    for a, b in pairs:
        extreme = np.abs(means[:, a] - means[:, b]) >= abs(found[a] - found[b]) - SLACK
        values.append(float(extreme.mean()) if every else float(1 + extreme.sum()) / (1 + throws))
    return values


def holm(values: Sequence[float]) -> list[float]:
    """Correct p values for their number (Holm, Scandinavian Journal of Statistics 6, 1979)."""
    corrected, least = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda place: values[place])):
        least = max(least, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = least
    return corrected


def _turned(
    sums: Float[np.ndarray, "units methods"],
    numbers: Float[np.ndarray, "units methods"],
    turns: Int[np.ndarray, "throws units"],
) -> Float[np.ndarray, "throws methods"]:
    """Means of all methods, each unit's columns turned."""
    moved = np.zeros((2, len(turns), sums.shape[1]))
    for turn in range(sums.shape[1]):
        chosen = (turns == turn).astype(float)
        moved[0] += chosen @ np.roll(sums, turn, 1)
        moved[1] += chosen @ np.roll(numbers, turn, 1)
    return moved[0] / np.maximum(moved[1], 1)
