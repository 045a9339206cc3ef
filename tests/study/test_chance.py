"""Tests by chance against all ways there are, by hand."""

import itertools
import math

import numpy as np
import pytest

from mmcam.study.chance import between, by_signs, holm


@pytest.mark.parametrize("sums", [[3, 1, 2, 2], [3, -1, 2, 2], [0, 0, 0], [1, 1, 1, 1, 1, 1], [2], []])
def test_signs_against_all_signs(sums):
    """Of 3, 1, 2, 2 the sum of two of sixteen throws is as far from 0 as 8."""
    throws = [abs(np.dot(signs, sums)) for signs in itertools.product((-1, 1), repeat=len(sums))]
    exact = np.mean([throw >= abs(sum(sums)) for throw in throws])
    assert by_signs(np.array(sums, float), 5000, np.random.default_rng(0)) == exact
    if sums:  # as if there were too many ways
        drawn = by_signs(np.array([*sums, *[0] * 16], float), 20000, np.random.default_rng(0))
        assert drawn == pytest.approx(exact, abs=0.01)


def test_signs_by_hand():
    assert by_signs(np.ones(5), 5000, np.random.default_rng(0)) == 2 / 32
    assert by_signs(np.ones(20), 999, np.random.default_rng(0)) == 1 / 1000  # the found one alone: 2 of 2 ** 20


def test_turns_against_all_turns():
    """Three people, three methods, unequal numbers: every way, by plain loops."""
    sums = np.array([[3.0, 0.0, -1.0], [2.0, 1.0, 1.0], [0.0, -2.0, 1.0]])
    numbers = np.array([[4.0, 4.0, 3.0], [4.0, 2.0, 4.0], [1.0, 4.0, 4.0]])
    pairs = [(0, 1), (0, 2), (1, 2)]

    def differences(turns):
        totals, counts = [0.0] * 3, [0.0] * 3
        for person, turn in enumerate(turns):
            for method in range(3):
                totals[(method + turn) % 3] += sums[person, method]
                counts[(method + turn) % 3] += numbers[person, method]
        return [abs(totals[a] / counts[a] - totals[b] / counts[b]) for a, b in pairs]

    found = differences((0, 0, 0))
    ways = [differences(turns) for turns in itertools.product(range(3), repeat=3)]
    exact = [np.mean([way[i] >= found[i] - 1e-9 for way in ways]) for i in range(3)]
    assert between(sums, numbers, pairs, 27, np.random.default_rng(0)) == pytest.approx(exact)
    drawn = between(sums, numbers, pairs, 26, np.random.default_rng(0))  # fewer throws than ways
    assert all(abs(p - q) < 0.35 for p, q in zip(drawn, exact, strict=True))


def test_five_people_and_two_methods():
    """All five do better with the first: 2 of 32 ways. Of one person nothing can be told."""
    sums, numbers = np.array([[4.0, 0.0]] * 5), np.full((5, 2), 4.0)
    assert between(sums, numbers, [(0, 1)], 5000, np.random.default_rng(0)) == [1 / 16]
    assert between(sums[:1], numbers[:1], [(0, 1)], 5000, np.random.default_rng(0)) == [1]


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    assert math.isclose(holm([0.2])[0], 0.2)
