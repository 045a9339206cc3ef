"""What a study says it found, held against numbers made by hand and people whose skill is known."""

import itertools
import math
import random

import numpy as np
import pytest

from mmcam.study import Answer
from mmcam.study.agreement import krippendorff
from mmcam.study.analysis import analyse
from mmcam.study.intervals import wilson
from tests.study.studies import codes, person, right_value, study


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


def test_agreement_is_fleiss_kappa_but_for_the_number_of_ratings():
    """Fleiss' example of 14 raters and 10 subjects, κ 0.210; 1 - α = (1 - κ) (1 - 1 / 140)."""
    table = """0 0 0 0 14  0 2 6 4 2  0 0 3 5 6  0 3 9 2 0  2 2 8 1 1
        7 7 0 0 0  3 2 6 3 0  2 5 3 2 2  6 5 2 1 0  0 2 2 3 7"""
    counts = np.array(table.split(), int).reshape(10, 5)
    ratings = [(str(i), k) for i, row in enumerate(counts) for k, count in enumerate(row) for _ in range(count)]
    agree = ((counts * (counts - 1)).sum(1) / (14 * 13)).mean()
    chance = ((counts.sum(0) / 140) ** 2).sum()
    kappa = (agree - chance) / (1 - chance)
    assert kappa == pytest.approx(0.210, abs=5e-4)
    assert krippendorff(ratings, "nominal") == pytest.approx(1 - (1 - kappa) * 139 / 140)


def test_accuracy_by_hand():
    """Two people of opposite sides, four pairs. The first knows all; the second always says left.

    Errors are 1/4 four times, and 1/4, 1/4, -3/4, -3/4. Sums of people ±1: variance 2 · (1 + 1) / 8² = 1/16, the
    largest part; as of 3/4 · 1/4 / (1/16) = 3 independent answers, with one degree of freedom: t 12.7062.
    """
    made = study(4, ("only",), attention=0)
    first, second = codes(made, 2)
    answers = person(made, first, {"only": 1}, random.Random(0))
    answers += [Answer(second, name, 0, 3000) for name in made.plan(second)]
    found = analyse(made, answers)
    only = found.methods["only"]
    assert (found.people, found.complete, only.n) == (2, 2, 8)
    assert only.value == 6 / 8  # of the second's four, two were right: sides are balanced
    assert (only.left, only.right) == (1.0, 0.5)
    assert (only.low, only.high) == pytest.approx(wilson(0.75, 3.0, 12.7062), abs=1e-5)
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
    only = analyse(made, answers[:1]).methods["only"]
    assert math.isnan(only.low)  # one answer has no interval
    answers += [Answer(second, name, -2) for name in made.plan(second)]
    only = analyse(made, answers).methods["only"]
    assert only.value == 0.5  # (1 + 0) / 2
    assert (only.left, only.right) == (1.5, -0.5)  # the second model left: (1 + 2) / 2; right: (1 - 2) / 2


def test_exchanging_all_sides_changes_nothing():
    """A person of the other sides who chooses the same things is worth the same."""
    made = study(16)
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


@pytest.mark.parametrize("kind", ["discrimination", "words", "trust"])
def test_simulated_people(kind):
    """One who knows, one who guesses, one who always chooses left, each of them eight times."""
    made = study(16, kind=kind, attention=0)
    trust, people, rng = kind == "trust", codes(made, 8), random.Random(1)
    know, guess = ({name: p for name in made.methods} for p in (1.0, 0.5))
    left = [Answer(code, name, -2 if trust else 0) for code in people for name in made.plan(code)]

    one = analyse(made, [a for code in people for a in person(made, code, know, rng)])
    for found in one.methods.values():
        assert found.value == found.left == found.right == (2 if trust else 1)
        assert found.agreement == 1
        assert found.p == 2 / 2**8  # of all ways to throw eight signs, those of people
    assert (one.compared[0].difference, one.compared[0].p) == (0, 1)

    one = analyse(made, [a for code in people for a in person(made, code, guess, rng)])
    for found in one.methods.values():
        assert found.low < one.chance < found.high
        assert found.p > 0.01
        assert abs(found.agreement) < 0.3

    one = analyse(made, left)
    for found in one.methods.values():
        assert found.value == one.chance  # sides are balanced in each person's questions
        assert (found.left, found.right) == ((2, -2) if trust else (1, 0))
        assert found.p == 1
        assert found.agreement < 0  # the same side is the other option for half of them
    assert (one.compared[0].difference, one.compared[0].p) == (0, 1)


def test_one_person_says_nothing_about_others():
    made = study(16, attention=0)
    found = analyse(made, person(made, codes(made, 1)[0], {"grad_cam": 1, "guided": 0}, random.Random(0)))
    for one, value in zip(found.methods.values(), (1, 0), strict=True):
        assert (one.value, one.n, one.p) == (value, 8, 1)
        assert math.isnan(one.agreement)
        assert one.low < value or one.high > value
    assert (found.compared[0].difference, found.compared[0].p) == (1, 1)


def test_missing_answers():
    """Half of the answers are lost by chance, and one method's altogether: the others' values hold, nothing is NaN."""
    made = study(24, ("a", "b", "c"))
    rng, skill = random.Random(2), {"a": 0.9, "b": 0.6, "c": 0.5}
    answers = [a for code in codes(made, 18) for a in person(made, code, skill, rng) if rng.random() < 0.5]
    found = analyse(made, answers)
    assert found.complete == 0
    assert all(one.low < skill[name] < one.high for name, one in found.methods.items())
    found = analyse(made, [a for a in answers if made.by_id[a.trial].method != 2])
    assert math.isnan(found.methods["c"].value)
    assert [math.isnan(one.p) for one in found.compared] == [False, True, True]
    assert found.compared[0].p < 0.05


@pytest.mark.parametrize("kind", ["discrimination", "trust"])
def test_chance_is_seldom_significant(kind):
    """Of 30 studies where maps say nothing, but people like some things better than others, and some people a side.

    Six or more go wrong three times in a thousand if tests and intervals hold their level.
    """
    significant = differing = missed = 0
    for turn in range(30):
        rng, made = np.random.default_rng(turn), study(12, kind=kind, seed=turn, attention=0)
        liked = {trial.pair: rng.normal() for trial in made.trials}
        answers = []
        for code in codes(made, 8, seed=turn):
            left = rng.normal()
            for name in made.plan(code):
                trial = made.by_id[name]
                side = made.sides(trial, code).index(trial.key)
                drawn = rng.normal() + liked[trial.pair] + (-left if side else left)  # for the right one, or the second
                score = int(np.clip(round(drawn), -2, 2))
                chosen = side if drawn > 0 else 1 - side
                answers.append(Answer(code, name, chosen if kind != "trust" else score if side else -score))
        found = analyse(made, answers, throws=300, seed=turn)
        one = found.methods["grad_cam"]
        significant += one.p <= 0.05
        differing += found.compared[0].p <= 0.05
        missed += not one.low <= found.chance <= one.high
    assert max(significant, differing, missed) < 6


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
