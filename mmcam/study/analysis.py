"""What a study found: by method how often people were right or whom they trust, how sure that is, and by how much more.

Nothing here takes answers of one person, or about one picture, for independent:

- intervals hold for other people and other pictures (`mmcam.study.intervals`);
- against chance: if a map says nothing, what is right of a pair was as likely the other one, and whichever model is the
  second as likely the first. So the signs of sums of answers are thrown by chance, those of each picture, and those of
  each person, half of whose right options are left; the larger p of the two counts;
- between two methods: which method a person saw on which pair was decided by chance with their code. That is decided
  anew, by people and by pictures; the larger p counts, and those of several pairs of methods are corrected by Holm's
  method;
- the sides: what was found when the right option, or the second model, was left, and when it was right.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from mmcam.study.agreement import krippendorff
from mmcam.study.answers import Answer
from mmcam.study.chance import between, by_signs, holm
from mmcam.study.intervals import interval
from mmcam.study.plan import Study, Trial

__all__ = ["Analysis", "Compared", "Found", "analyse", "attentive"]


@dataclass(frozen=True)
class Found:
    """What was found for one method; NaN where nothing was answered.

    Attributes:
        value: Share of right answers; of trust the mean score, positive for the second model.
        low: Lower end of the 95 % interval.
        high: Upper end.
        n: Number of answers.
        p: How likely such a distance from chance is by chance.
        left: The value when the right option, or the second model, was left.
        right: The value when it was right.
        agreement: Krippendorff's α between people.
    """

    value: float
    low: float
    high: float
    n: int
    p: float
    left: float
    right: float
    agreement: float


@dataclass(frozen=True)
class Compared:
    """Two methods.

    Attributes:
        first: The one.
        second: The other.
        difference: The first one's value less the second one's.
        p: How likely such a difference is by chance, corrected for the number of comparisons.
    """

    first: str
    second: str
    difference: float
    p: float


@dataclass(frozen=True)
class Analysis:
    """What a study found.

    Attributes:
        study: Its name.
        kind: What was asked.
        facts: What it was made from: seeds, dumps, layers, weights.
        throws: How often chance was thrown in tests, where not every way was gone through.
        seed: Of that.
        least_checks: Share of the checks of attention that a person had to get right to count.
        chance: The value to be expected if maps say nothing.
        people: Number of people whose answers count.
        inattentive: Codes of those left out, since they failed checks of attention.
        complete: How many of the people answered all.
        methods: By name.
        compared: Every two methods.
        seconds: Median time of an answer.
        classes: By class or word that was right, of all methods: value and number of answers; empty of trust.
    """

    study: str
    kind: str
    facts: Mapping[str, Any]
    throws: int
    seed: int
    least_checks: float
    chance: float
    people: int
    inattentive: tuple[str, ...]
    complete: int
    methods: Mapping[str, Found]
    compared: tuple[Compared, ...]
    seconds: float
    classes: Mapping[str, tuple[float, int]]

    def record(self) -> dict[str, Any]:
        """As JSON has it: NaN is None."""
        return _without_nan(asdict(self))


@dataclass(frozen=True, eq=False)
class _Scored:
    """An answer as a number: -1 wrong or 1 right; of trust -2 … 2, positive for the second model."""

    answer: Answer
    trial: Trial
    score: int
    option: int
    key_side: int


def _person(one: _Scored) -> str:
    return one.answer.code


def _picture(one: _Scored) -> int:
    return one.trial.pair


UNITS = (_person, _picture)


def analyse(
    study: Study, answers: Sequence[Answer], *, least_checks: float = 0.75, throws: int = 5000, seed: int = 0
) -> Analysis:
    """Analyse.

    Args:
        study: The study.
        answers: All answers, each once a person and trial.
        least_checks: Share of the checks of attention that a person has to get right to count; 0 keeps all.
        throws: How often chance is thrown in a test.
        seed: Of that.

    Returns:
        What was found.
    """
    rng = np.random.default_rng(seed)
    good = attentive(study, answers, least_checks)
    people = Counter(answer.code for answer in answers)
    kept = [_scored(study, a) for a in answers if a.code in good and not study.by_id[a.trial].is_check]
    by_method = {name: [one for one in kept if one.trial.method == i] for i, name in enumerate(study.methods)}
    methods = {name: _found(study, some, throws, rng) for name, some in by_method.items()}
    tested = _between(kept, [*by_method.values()], throws, rng) if kept else []
    compared = tuple(
        Compared(first, second, methods[first].value - methods[second].value, p)
        for (first, second), p in zip(combinations(study.methods, 2), tested, strict=False)
    )
    classes: defaultdict[str, list[int]] = defaultdict(list)
    for one in kept:
        if one.trial.options:
            classes[one.trial.options[one.trial.key]].append(one.score)
    return Analysis(
        study=study.id,
        kind=study.kind,
        facts={name: fact for name, fact in study.facts.items() if name != "legend"},
        throws=throws,
        seed=seed,
        least_checks=least_checks,
        chance=0.0 if study.kind == "trust" else 0.5,
        people=len(good),
        inattentive=tuple(sorted(set(people) - good)),
        complete=sum(people[code] == study.length for code in good),
        methods=methods,
        compared=compared,
        seconds=float(np.median([one.answer.milliseconds for one in kept])) / 1000 if kept else math.nan,
        classes={name: (_value(study, some), len(some)) for name, some in sorted(classes.items())},
    )


def attentive(study: Study, answers: Sequence[Answer], least: float) -> set[str]:
    """Codes of the people who got a share of the checks they came to right; those who came to none count too."""
    right: defaultdict[str, list[bool]] = defaultdict(list)
    for answer in answers:
        checks = right[answer.code]
        trial = study.by_id[answer.trial]
        if trial.is_check and study.kind == "trust":
            checks.append(answer.value == (2 if trial.key else -2))
        elif trial.is_check:
            checks.append(study.sides(trial, answer.code)[answer.value] == trial.key)
    return {code for code, checks in right.items() if not checks or sum(checks) >= least * len(checks)}


def _scored(study: Study, answer: Answer) -> _Scored:
    trial = study.by_id[answer.trial]
    sides = study.sides(trial, answer.code)
    key_side = sides.index(trial.key)
    if study.kind == "trust":
        # The value of the first and second option, not of left and right.
        option = answer.value if sides == (0, 1) else -answer.value
        return _Scored(answer, trial, answer.value if key_side else -answer.value, option, key_side)
    option = sides[answer.value]
    return _Scored(answer, trial, 1 if option == trial.key else -1, option, key_side)


def _value(study: Study, scores: Sequence[int]) -> float:
    if not scores:
        return math.nan
    mean = float(np.mean(scores))
    return mean if study.kind == "trust" else (mean + 1) / 2


def _found(study: Study, some: Sequence[_Scored], throws: int, rng: np.random.Generator) -> Found:
    scores = [one.score for one in some]
    people, pictures = [one.answer.code for one in some], [one.trial.pair for one in some]
    if study.kind == "trust":
        ends = interval([float(score) for score in scores], people, pictures, shares=False)
        low, high = np.clip(ends, -2.0, 2.0).tolist()
    else:
        low, high = interval([(score + 1) / 2 for score in scores], people, pictures, shares=True)
    scale = "interval" if study.kind == "trust" else "nominal"
    return Found(
        value=_value(study, scores),
        low=low,
        high=high,
        n=len(scores),
        p=max(by_signs(_sums(some, unit), throws, rng) for unit in UNITS) if some else math.nan,
        left=_value(study, [one.score for one in some if one.key_side == 0]),
        right=_value(study, [one.score for one in some if one.key_side == 1]),
        agreement=krippendorff(((one.trial.id, one.option) for one in some), scale),
    )


def _sums(some: Sequence[_Scored], unit: Callable[[_Scored], str | int]) -> np.ndarray:
    sums: defaultdict[str | int, int] = defaultdict(int)
    for one in some:
        sums[unit(one)] += one.score
    return np.array([*sums.values()], float)


def _between(
    kept: Sequence[_Scored], by_method: Sequence[Sequence[_Scored]], throws: int, rng: np.random.Generator
) -> list[float]:
    """Compare every two methods, by people and by pictures: the larger p, corrected; NaN where a method is missing."""
    count = len(by_method)
    pairs = [*combinations(range(count), 2)]
    found: list[list[float]] = []
    for unit in UNITS:
        at = {name: number for number, name in enumerate(dict.fromkeys(map(unit, kept)))}
        sums, numbers = np.zeros((len(at), count)), np.zeros((len(at), count))
        for one in kept:
            place = at[unit(one)], one.trial.method
            sums[place] += one.score
            numbers[place] += 1
        found.append(between(sums, numbers, pairs, throws, rng))
    values = holm([max(both) for both in zip(*found, strict=True)])
    return [p if by_method[a] and by_method[b] else math.nan for (a, b), p in zip(pairs, values, strict=True)]


def _without_nan(found: Any) -> Any:  # noqa: ANN401
    if isinstance(found, Mapping):
        return {name: _without_nan(value) for name, value in found.items()}
    if isinstance(found, list | tuple):
        return [_without_nan(value) for value in found]
    return None if isinstance(found, float) and not math.isfinite(found) else found
