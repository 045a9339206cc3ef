"""Intervals by hand, against plain loops, and over simulated studies."""

import math

import numpy as np
import pytest

from mmcam.study.intervals import interval, variance, wilson


def test_wilson_by_hand():
    """8 of 10: (0.8 + z²/20 ± z √(0.8 · 0.2 / 10 + z²/400)) / (1 + z²/10) with z = 1.95996."""
    assert wilson(0.8, 10.0, 1.959964) == pytest.approx((0.490162, 0.943318), abs=1e-5)
    assert wilson(0.0, 10.0, 1.959964)[0] == 0
    assert wilson(1.0, 10.0, 1.959964) == pytest.approx((0.722467, 1.0), abs=1e-5)


def test_variance_against_all_pairs_of_answers(seed):
    """The sum of products of errors over all pairs of answers that share a person, or a picture, or are the same."""
    rng = np.random.default_rng(seed)
    seen = [(p, i) for p in range(7) for i in range(9) if rng.random() < 0.6]
    person, picture = rng.normal(size=7), rng.normal(size=9)
    values = [float(person[p] + picture[i] + rng.normal()) for p, i in seen]
    people, pictures = zip(*seen, strict=True)
    mean, n = sum(values) / len(values), len(values)

    def part(same, units):
        total = 0.0
        for k in range(n):
            for m in range(n):
                if same(k, m):
                    total += (values[k] - mean) * (values[m] - mean)
        return total / n**2 * units / (units - 1)

    by_people = part(lambda k, m: people[k] == people[m], 7)
    by_pictures = part(lambda k, m: pictures[k] == pictures[m], 9)
    alone = part(lambda k, m: k == m, n)
    found, freedom = variance(values, people, pictures)
    assert found == pytest.approx(max(by_people + by_pictures - alone, by_people, by_pictures, alone))
    assert freedom == 6


def test_independent_answers_have_the_usual_variance():
    """Each person one picture of their own: s² / n."""
    values = [0.0, 1.0, 4.0, -1.0, 2.0]
    found, freedom = variance(values, range(5), range(5))
    assert (found, freedom) == (pytest.approx(np.var(values, ddof=1) / 5), 4)
    low, high = interval(values, range(5), range(5), shares=False)
    half = 2.776445 * math.sqrt(found)  # t of four degrees of freedom
    assert (low, high) == pytest.approx((1.2 - half, 1.2 + half))


def test_people_who_hang_together_count_as_one():
    """Four people, each always right or always wrong, of 25 pictures: as of three independent answers, not of 100."""
    values = [float(p < 3) for p in range(4) for _ in range(25)]
    people, pictures = [p for p in range(4) for _ in range(25)], [*range(25)] * 4
    found = interval(values, people, pictures, shares=True)
    assert found == pytest.approx(wilson(0.75, 3.0, 3.182446))  # 3/16 over (6.25² · 3 + 18.75²) / 100² · 4/3 = 1/16


def test_ends():
    assert all(math.isnan(end) for end in interval([], [], [], shares=True))
    assert all(math.isnan(end) for end in interval([2.0], ["a"], [0], shares=False))
    assert interval([1.0], ["a"], [0], shares=True) == pytest.approx(wilson(1.0, 1.0, 1.959964))
    assert interval([2.0] * 4, "aabb", [0, 1, 0, 1], shares=False) == (2, 2)
    low, high = interval([1.0] * 8, "a" * 8, range(8), shares=True)  # one person: of other pictures
    assert (low, high) == pytest.approx(wilson(1.0, 8.0, 2.364624))


@pytest.mark.parametrize("shares", [True, False])
def test_it_holds_the_truth_as_often_as_it_says(shares):
    """400 studies of twelve people and sixteen pictures, both of which differ: 95 % ± 3.3 %, three deviations."""
    held = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        values = rng.normal(size=(12, 1)) * 0.5 + rng.normal(size=(1, 16)) * 0.5 + rng.normal(size=(12, 16))
        values = (values > 0).astype(float) if shares else values
        people, pictures = np.indices(values.shape).reshape(2, -1).tolist()
        low, high = interval(values.ravel().tolist(), people, pictures, shares=shares)
        held += low <= (0.5 if shares else 0) <= high
    assert held > 0.917 * 400
