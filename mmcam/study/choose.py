"""Choosing what is asked: classes evenly, no picture twice, every method and side equally often."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from random import Random

from mmcam.errors import UserError
from mmcam.study.candidates import Candidate
from mmcam.study.plan import Kind, Trial

__all__ = ["check_count", "checks", "choose", "trials"]

QUESTIONS: Mapping[Kind, str] = {
    "discrimination": "Which of the two is this map about?",
    "words": "Which word does this map explain?",
}
CHECK = "This question only checks that the page is being read: please choose {}."
ENDS = ("the left end of the scale", "the right end of the scale")


def check_count(pairs: int, methods: int) -> None:
    """Refuse a number of pairs that cannot be balanced.

    Raises:
        UserError: It is no multiple of twice the number of methods.
    """
    step = 2 * methods
    if pairs < step or pairs % step:
        below = pairs // step * step
        way = f"take {below} or {below + step}" if below else f"take {step}"
        raise UserError(f"trials: expected a multiple of {step} ({methods} methods x 2 sides), got {pairs}; {way}")


def choose(found: Sequence[Candidate], count: int, rng: Random) -> list[Candidate]:
    """Choose by chance, always next one with the class that was shown least; of a picture no more than one.

    Which of the two is right is thrown for each picture by itself: nobody can tell it from the classes, nor from what
    was right before.

    Args:
        found: Of two things or words, each as what is right.
        count: How many.
        rng: Decides.

    Raises:
        UserError: There are not as many pictures.
    """
    turned = {(one.source, one.right, one.other): one for one in found}
    by_class: defaultdict[str, list[Candidate]] = defaultdict(list)
    for candidate in found:
        by_class[candidate.right].append(candidate)
    names = sorted(by_class)
    rng.shuffle(names)
    for name in names:
        rng.shuffle(by_class[name])
    used, times, chosen = set[str](), Counter[str](), list[Candidate]()
    while len(chosen) < count:
        names = [name for name in names if by_class[name]]
        if not names:
            raise UserError(
                f"expected {count} pictures to ask about, found {len(used)} that suit; "
                "take fewer --trials, or a larger dump"
            )
        one = by_class[min(names, key=lambda name: times[name])].pop()
        if one.base not in used:
            used.add(one.base)
            times.update(name for name in (one.right, one.other) if name)
            chosen.append(turned[one.source, one.other, one.right] if one.other and rng.randrange(2) else one)
    rng.shuffle(chosen)
    return chosen


def trials(chosen: Sequence[Candidate], methods: int, kind: Kind, rng: Random) -> list[Trial]:
    """Make the trials of all methods; the right option is the first of one pair and the second of its neighbour."""
    made: list[Trial] = []
    first = 0
    for pair, one in enumerate(chosen):
        first = rng.randrange(2) if pair % 2 == 0 else 1 - first
        options = () if kind == "trust" else (one.right, one.other)[:: -1 if first else 1]
        for method in range(methods):
            pictures = tuple(f"{_name(rng)}.jpg" for _ in range(2 if kind == "trust" else 1))
            made.append(
                Trial(_name(rng), pair, method, _question(one, kind), options, pictures, first, one.source, one.word)
            )
    rng.shuffle(made)
    return made


def checks(made: Sequence[Trial], count: int, kind: Kind, rng: Random) -> list[Trial]:
    """Make checks of attention: questions without a picture that say what to choose."""
    options = sorted({trial.options for trial in made})
    found: list[Trial] = []
    for number in range(count):
        key = number % 2
        if kind == "trust":
            found.append(Trial(_name(rng), -1, -1, CHECK.format(ENDS[key]), (), (), key))
        else:
            two = rng.choice(options)
            found.append(Trial(_name(rng), -1, -1, CHECK.format(f"“{two[key]}”"), two, (), key))
    return found


def _question(one: Candidate, kind: Kind) -> str:
    if kind != "trust":
        return QUESTIONS[kind]
    asked = f"Asked “{one.prompt}”, both" if one.prompt else "Both"
    return f"{asked} programs say “{one.word}”. Which of them looked at more reasonable places?"


def _name(rng: Random) -> str:
    return f"{rng.getrandbits(48):012x}"
