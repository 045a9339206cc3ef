"""What a study found: by method how often people were right or whom they trust, how sure that is, and by how much more.

Three tests, none of which takes answers of one person or about one picture for independent where it matters:

- against chance, by pictures: if a map says nothing, the mean of a pair's answers is as likely above as below chance.
  All signs are thrown by chance, many times; p is the share of throws as far from chance as what was found;
- between two methods, by people: which method a person saw on which pair was decided by chance with their code. That
  is decided anew, many times; p is the share of decisions with as large a difference. p of several pairs of methods
  are corrected by Holm's method;
- the sides: what was found when the right option, or the second model, was left, and when it was right.

Intervals of accuracy are Wilson's, which take answers for independent; those of trust come from drawing people anew.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from scipy.stats import norm

from mmcam.metrics.base import summarise
from mmcam.study.agreement import krippendorff
from mmcam.study.answers import Answer
from mmcam.study.plan import Study, Trial

__all__ = ["Analysis", "Compared", "Found", "analyse", "attentive", "wilson"]


@dataclass(frozen=True)
class Found:
    """What was found for one method; NaN where nothing was answered.

    Attributes:
        value: Share of right answers; of trust the mean score, positive for the second model.
        low: Lower end of the 95 % interval.
        high: Upper end.
        n: Number of answers.
        p: How likely such a distance from chance (0.5; of trust 0) is by chance.
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
    names = range(len(study.methods))
    by_method = {name: [one for one in kept if one.trial.method == i] for i, name in enumerate(study.methods)}
    methods = {name: _found(study, some, throws, rng) for name, some in by_method.items()}
    pairs = [(a, b) for a, b in combinations(names, 2)] if kept else []
    tested = _between(kept, len(study.methods), pairs, throws, rng)
    compared = tuple(
        Compared(first, second, methods[first].value - methods[second].value, p)
        for (first, second), p in zip(combinations(study.methods, 2), _holm(tested), strict=False)
    )
    classes: defaultdict[str, list[int]] = defaultdict(list)
    for one in kept:
        if one.trial.options:
            classes[one.trial.options[one.trial.key]].append(one.score)
    return Analysis(
        study=study.id,
        kind=study.kind,
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


def wilson(right: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share (Journal of the American Statistical Association 22, 1927).

    Args:
        right: Number of successes.
        n: Number of trials.
        level: Share of such intervals that hold the true share.

    Returns:
        Its ends; NaN without trials.
    """
    if n == 0:
        return math.nan, math.nan
    z = float(norm.ppf((1 + level) / 2))
    share, spread = right / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


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
    if study.kind == "trust":
        codes = {code: number for number, code in enumerate(sorted({one.answer.code for one in some}))}
        units = torch.tensor([codes[one.answer.code] for one in some], dtype=torch.long)
        figure = summarise(torch.tensor(scores, dtype=torch.float64), units)
        low, high = figure.low, figure.high
    else:
        low, high = wilson(scores.count(1), len(scores))
    sums: defaultdict[int, int] = defaultdict(int)
    for one in some:
        sums[one.trial.pair] += one.score
    scale = "interval" if study.kind == "trust" else "nominal"
    return Found(
        value=_value(study, scores),
        low=low,
        high=high,
        n=len(scores),
        p=_by_signs(np.array([*sums.values()], float), throws, rng) if some else math.nan,
        left=_value(study, [one.score for one in some if one.key_side == 0]),
        right=_value(study, [one.score for one in some if one.key_side == 1]),
        agreement=krippendorff(((one.trial.id, one.option) for one in some), scale),
    )


def _by_signs(sums: np.ndarray, throws: int, rng: np.random.Generator) -> float:
    """The share of throws of signs whose sum is as far from 0; the found one is one of them."""
    extreme = sum(
        int((np.abs(rng.choice([-1.0, 1.0], (len(part), len(sums))) @ sums) >= abs(sums.sum()) - 1e-9).sum())
        for part in np.array_split(np.empty(throws), max(1, throws * len(sums) // 10**6))
    )
    return (1 + extreme) / (1 + throws)


def _between(
    kept: Sequence[_Scored], count: int, pairs: Sequence[tuple[int, int]], throws: int, rng: np.random.Generator
) -> list[float]:
    """For every two methods the share of decisions, which method a person sees where, with as large a difference."""
    codes = {code: number for number, code in enumerate(sorted({one.answer.code for one in kept}))}
    # Sums and numbers of each person's scores by method: a person's turn moves all of them by one method.
    sums, numbers = np.zeros((len(codes), count)), np.zeros((len(codes), count))
    for one in kept:
        place = codes[one.answer.code], one.trial.method
        sums[place] += one.score
        numbers[place] += 1
    turns = rng.integers(count, size=(throws, len(codes)))
    moved = np.zeros((2, throws + 1, count))
    moved[:, 0] = sums.sum(0), numbers.sum(0)
    for turn in range(count):
        chosen = (turns == turn).astype(float)
        moved[0, 1:] += chosen @ np.roll(sums, turn, 1)
        moved[1, 1:] += chosen @ np.roll(numbers, turn, 1)
    means = moved[0] / np.maximum(moved[1], 1)
    found = []
    for a, b in pairs:
        apart = np.abs(means[:, a] - means[:, b])
        found.append(float((apart >= apart[0] - 1e-9).mean()))
    return found


def _holm(values: Sequence[float]) -> list[float]:
    """Correct p values for their number (Holm, Scandinavian Journal of Statistics 6, 1979)."""
    corrected, least = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda place: values[place])):
        least = max(least, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = least
    return corrected


def _without_nan(found: Any) -> Any:  # noqa: ANN401
    if isinstance(found, Mapping):
        return {name: _without_nan(value) for name, value in found.items()}
    if isinstance(found, list | tuple):
        return [_without_nan(value) for value in found]
    return None if isinstance(found, float) and not math.isfinite(found) else found
