"""What in a dump can be asked about: maps that people can tell from another thing, word or model."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from mmcam.dumps.reader import MapReader
from mmcam.errors import UserError
from mmcam.explanation import Explanation
from mmcam.sources import Source
from mmcam.study.plan import Kind
from mmcam.truth import Truth

__all__ = ["Candidate", "candidates", "common_methods"]

_SMALL = (
    "a an the of on in at by to with and or is are was be it its this that these those there for from as into near "
    "next up very some two one his her their while . , ; : ! ? ' \" 's"
)
SMALL = frozenset(_SMALL.split())
"""Words of a caption that no map is asked about: which of them looks at what, nobody could say."""


@dataclass(frozen=True)
class Candidate:
    """Something to ask about.

    Attributes:
        source: Name of the explained picture or question in the dump.
        base: Name of the picture in the data.
        prompt: The question that the models were asked.
        word: The explained word.
        rows: Its row in each dump.
        other: What is not right.
        right: What is right, and what is counted when classes are spread evenly.
    """

    source: str
    base: str
    prompt: str
    word: str
    rows: tuple[int, ...]
    right: str
    other: str


def common_methods(dumps: Sequence[Path], methods: Sequence[str]) -> tuple[str, ...]:
    """The methods whose maps are shown: those named, or all that every dump has.

    Raises:
        UserError: A dump lacks one, or they have none in common.
    """
    known: list[tuple[str, ...]] = []
    for path in dumps:
        with MapReader(path) as maps:
            known.append(maps.methods)
        for method in methods:
            MapReader(path, method).close()  # names the methods that there are
    found = tuple(dict.fromkeys(methods)) or tuple(name for name in known[0] if all(name in some for some in known))
    if not found:
        raise UserError(f"expected two dumps with the same methods, got {known[0]} and {known[1]}; dump one again")
    return found


def candidates(dumps: Sequence[Path], methods: Sequence[str], kind: Kind, source: Source) -> list[Candidate]:
    """Go through the dumps.

    Args:
        dumps: One; of trust, one of each model.
        methods: All of them need a map that shows something.
        kind: What is asked.
        source: The pictures; of "discrimination" with their truth.

    Returns:
        All that can be asked about, in the order of the first dump; several of a picture, perhaps.
    """
    if kind == "discrimination" and not isinstance(source, Truth):
        raise UserError(
            "expected annotated data, which say what is in a picture, got pictures alone; ask about words: --kind words"
        )
    numbers = {name: number for number, name in enumerate(source.ids)}
    found: list[Candidate] = []
    with ExitStack() as stack:
        readers = [[stack.enter_context(MapReader(path, method)) for method in methods] for path in dumps]
        shared = set.intersection(*(set(some[0].ids) for some in readers))
        for name in readers[0][0].ids:
            base = name if name in numbers else name.rpartition(":given")[0] or name
            if name not in shared or base not in numbers:
                continue
            ones = [[reader[name] for reader in some] for some in readers]
            truth = source if isinstance(source, Truth) else None
            if kind == "trust":
                found += _trust(base, ones, truth, numbers[base])
            elif kind == "words":
                found += _words(base, ones[0], truth, numbers[base])
            elif truth is not None:
                found += _discrimination(base, ones[0], truth, numbers[base])
    return found


def _shown(explanations: Sequence[Explanation]) -> list[int]:
    """Rows whose map shows something, by all methods."""
    flags = [one.flags for one in explanations]
    return [row for row in range(len(explanations[0].words)) if not any(some[row] for some in flags)]


def _discrimination(base: str, ones: Sequence[Explanation], truth: Truth, number: int) -> list[Candidate]:
    """Of a picture with things of exactly two kinds, a word for each; a map of one alone would tell by being there."""
    first = ones[0]
    try:
        names = truth.things(number).names
    except UserError:  # no annotations of this picture
        return []
    kinds = sorted(set(names))
    if len(kinds) != 2:
        return []
    about = truth.about(number, first.words)
    found: dict[str, Candidate] = {}
    for row in _shown(ones):
        meant = {names[i] for i in about[row] or ()}
        if len(meant) == 1 and (kind := meant.pop()) not in found:
            other = kinds[1 - kinds.index(kind)]
            found[kind] = Candidate(first.id, base, first.prompt, first.words[row], (row,), kind, other)
    return list(found.values()) if len(found) == 2 else []


def _words(base: str, ones: Sequence[Explanation], truth: Truth | None, number: int) -> list[Candidate]:
    """Every two words of a sentence that are not about the same; if it is known, words for things that are there."""
    first = ones[0]
    about = truth.about(number, first.words) if truth else [()] * len(first.words)
    kept: dict[str, int] = {}
    for row in _shown(ones):
        if first.words[row].lower() not in SMALL and (about[row] or not truth):
            kept.setdefault(first.words[row], row)
    return [
        Candidate(first.id, base, first.prompt, word, (row,), word, other)
        for word, row in kept.items()
        for other, place in kept.items()
        if not _alike(word, other) and not {*(about[row] or ())} & {*(about[place] or ())}
    ]


def _alike(one: str, other: str) -> bool:
    """Whether two words are the same but for capitals or a plural."""
    one, other = sorted((one.lower(), other.lower()), key=len)
    return other in (one, one + "s", one + "es")


def _trust(base: str, ones: Sequence[Sequence[Explanation]], truth: Truth | None, number: int) -> list[Candidate]:
    """Words that both models say; where it is known, only right ones."""
    rows: list[dict[str, int]] = []
    for some in ones:
        mine: dict[str, int] = {}
        for row in _shown(some):
            mine.setdefault(some[0].words[row], row)
        rows.append(mine)
    first = ones[0][0]
    words = [word for word in rows[0] if word in rows[1] and word.lower() not in SMALL]
    if truth:
        words = [word for word, meant in zip(words, truth.about(number, words), strict=True) if meant]
    return [
        Candidate(first.id, base, first.prompt, word, tuple(mine[word] for mine in rows), word, "") for word in words
    ]
