"""What a study says it found, held against numbers made by hand and people whose skill is known."""

import itertools
import math
import random

import numpy as np
import pytest

from mmcam.study import Answer
from mmcam.study.agreement import krippendorff
from mmcam.study.analysis import _by_signs, _holm, analyse, wilson
from tests.study.studies import codes, person, right_value, study


def test_wilson_by_hand():
    """8 of 10: (0.8 + z²/20 ± z √(0.8 · 0.2 / 10 + z²/400)) / (1 + z²/10) with z = 1.95996."""
    assert wilson(8, 10) == pytest.approx((0.490162, 0.943318), abs=1e-5)
    assert wilson(0, 10)[0] == 0
    assert wilson(10, 10) == pytest.approx((0.722467, 1.0), abs=1e-5)
    assert all(math.isnan(end) for end in wilson(0, 0))


def test_agreement_of_krippendorffs_own_example():
    """Four observers, twelve units; Krippendorff, Computing Krippendorff's Alpha-Reliability (2011)."""
    rows = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]
    ratings = [(str(unit), value) for row in rows for unit, value in enumerate(row) if value]
    assert krippendorff(ratings, "nominal") == pytest.approx(0.743, abs=5e-4)
    assert krippendorff(ratings, "interval") == pytest.approx(0.849, abs=5e-4)


def test_agreement_by_pairs(seed):
    """The definition, without coincidences: mean difference inside units, and between any two values."""
    rng = np.random.default_rng(seed)
    ratings = [(str(unit), int(rng.integers(-2, 3))) for unit in range(9) for _ in range(int(rng.integers(1, 5)))]
    units = {unit: [v for u, v in ratings if u == unit] for unit, _ in ratings}
    units = {unit: values for unit, values in units.items() if len(values) > 1}
    every = [value for values in units.values() for value in values]
    inside = sum(
        sum((a - b) ** 2 for a, b in itertools.permutations(values, 2)) / (len(values) - 1) for values in units.values()
    )
    anywhere = sum((a - b) ** 2 for a, b in itertools.permutations(every, 2)) / (len(every) - 1)
    assert krippendorff(ratings, "interval") == pytest.approx(1 - inside / anywhere)


def test_agreement_at_its_ends():
    assert krippendorff([("a", 0), ("a", 0), ("b", 1), ("b", 1)], "nominal") == 1
    assert math.isnan(krippendorff([("a", 0), ("a", 0)], "nominal"))
    assert math.isnan(krippendorff([("a", 0), ("b", 1)], "nominal"))
    # By hand: values 0 1 | 0 1. observed 1; expected 2·2·2/(4·3) = 2/3.
    assert krippendorff([("a", 0), ("a", 1), ("b", 0), ("b", 1)], "nominal") == pytest.approx(-0.5)


def test_signs_against_all_signs():
    """Sums 3, 1, 2, 2, all throws of signs: |sum| is 8 in 2 of 16, at least 6 in 4, and so on."""
    rng = np.random.default_rng(0)
    for sums in ([3, 1, 2, 2], [3, -1, 2, 2], [0, 0, 0], [1, 1, 1, 1, 1, 1]):
        throws = [abs(np.dot(signs, sums)) for signs in itertools.product((-1, 1), repeat=len(sums))]
        exact = np.mean([throw >= abs(sum(sums)) for throw in throws])
        assert _by_signs(np.array(sums, float), 20000, rng) == pytest.approx(exact, abs=0.01)


def test_holm_by_hand():
    assert _holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert _holm([0.5, 0.9]) == [1.0, 1.0]


def test_accuracy_by_hand():
    """Two people of opposite sides, four pairs. The first knows all; the second always says left."""
    made = study(4, ("only",), attention=0)
    first, second = codes(made, 2)
    answers = person(made, first, {"only": 1}, random.Random(0))
    answers += [Answer(second, name, 0, 3000) for name in made.plan(second)]
    found = analyse(made, answers)
    only = found.methods["only"]
    assert (found.people, found.complete, only.n) == (2, 2, 8)
    assert only.value == 6 / 8  # of the second's four, two were right: sides are balanced
    assert (only.left, only.right) == (1.0, 0.5)
    assert (only.low, only.high) == wilson(6, 8)
    assert found.seconds == 2.25
    assert sum(n for _, n in found.classes.values()) == 8
    assert sum(value * n for value, n in found.classes.values()) == 6


def test_trust_by_hand():
    """Somebody who finds the second model slightly better, one who always says "left, clearly"."""
    made = study(4, ("only",), "trust", attention=0)
    first, second = codes(made, 2)
    answers = [Answer(first, name, right_value(made, made.by_id[name], first) // 2) for name in made.plan(first)]
    only = analyse(made, answers).methods["only"]
    assert (only.value, only.left, only.right) == (1.0, 1.0, 1.0)
    answers += [Answer(second, name, -2) for name in made.plan(second)]
    only = analyse(made, answers).methods["only"]
    assert only.value == 0.5  # (1 + 0) / 2
    assert (only.left, only.right) == (1.5, -0.5)  # the second model left: (1 + 2) / 2; right: (1 - 2) / 2


def test_exchanging_all_sides_changes_nothing():
    """A person of the other sides who chooses the same things is worth the same."""
    made = study(8)
    here, there = (code for code in codes(made, 4) if made.group(code) < 2)
    assert made.group(here) // 2 == made.group(there) // 2
    rng = random.Random(1)
    answers = person(made, here, {"grad_cam": 0.7, "guided": 0.4}, rng)
    mirrored = [Answer(there, a.trial, 1 - a.value, a.milliseconds) for a in answers]
    one, other = analyse(made, answers), analyse(made, mirrored)
    for method in made.methods:
        assert one.methods[method].value == other.methods[method].value
        both = [a for a in [*answers, *mirrored] if made.by_id[a.trial].method == made.methods.index(method)]
        assert analyse(made, both).methods[method].agreement == 1


@pytest.mark.parametrize("kind", ["discrimination", "trust"])
def test_skill_is_found_again(kind):
    """Simulated people: right in 80 % of one method's maps and in 55 % of the other's."""
    made = study(40, kind=kind)
    rng, skill = random.Random(5), {"grad_cam": 0.8, "guided": 0.55}
    answers = [a for code in codes(made, 24) for a in person(made, code, skill, rng)]
    found = analyse(made, answers)
    assert found.people == found.complete == 24
    for name, p in skill.items():
        one = found.methods[name]
        true = p if kind == "discrimination" else 4 * p - 2
        assert one.n == 24 * 20
        assert one.low < true < one.high
    assert found.methods["grad_cam"].p < 0.001
    (compared,) = found.compared
    assert (compared.first, compared.second) == ("grad_cam", "guided")
    assert compared.difference > 0
    assert compared.p < 0.01


@pytest.mark.parametrize("kind", ["discrimination", "trust"])
def test_chance_is_seldom_significant(kind):
    """Of 20 studies with people who guess, one of each test is below 0.05; 5 would be one in 400."""
    made = study(16, kind=kind)
    people, below, differing = codes(made, 8), 0, 0
    for turn in range(20):
        rng = random.Random(turn)
        found = analyse(
            made, [a for code in people for a in person(made, code, dict.fromkeys(made.methods, 0.5), rng)], throws=200
        )
        below += found.methods["grad_cam"].p < 0.05
        differing += found.compared[0].p < 0.05
        assert abs(found.methods["grad_cam"].agreement) < 0.35
    assert below < 5
    assert differing < 5


def test_who_does_not_read_is_left_out():
    made = study(8, attention=4)
    rng, people = random.Random(0), codes(made, 4)
    answers = [a for code in people[:3] for a in person(made, code, {"grad_cam": 1, "guided": 1}, rng)]
    answers += person(made, people[3], {"grad_cam": 0, "guided": 0}, rng, attentive=False)
    found = analyse(made, answers)
    assert found.inattentive == (people[3],)
    assert found.people == 3
    assert found.methods["grad_cam"].value == 1
    kept = analyse(made, answers, least_checks=0.0)
    assert kept.inattentive == ()
    assert kept.methods["grad_cam"].value == 0.75


def test_nothing_and_little():
    made = study(8)
    empty = analyse(made, [])
    assert empty.people == 0
    assert math.isnan(empty.methods["guided"].value)
    assert empty.record()["methods"]["guided"]["value"] is None
    code = codes(made, 1)[0]
    one = [a for a in person(made, code, {"grad_cam": 1, "guided": 1}, random.Random(0))][:1]
    found = analyse(made, one)
    assert (found.people, found.complete) == (1, 0)


def test_three_methods_are_compared_two_by_two():
    made = study(12, ("a", "b", "c"))
    rng, skill = random.Random(0), {"a": 1.0, "b": 1.0, "c": 0.0}
    found = analyse(made, [a for code in codes(made, 24) for a in person(made, code, skill, rng)])
    assert [(c.first, c.second) for c in found.compared] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [c.difference for c in found.compared] == [0, 1, 1]
    assert found.compared[0].p == 1
    assert max(c.p for c in found.compared[1:]) < 0.01
