"""What can be said about a scene, with the things that each word is about, and whether a caption is true.

Captions follow a small grammar:

    caption   := part | part relation part | part "and" part | part "," part "and" part
    part      := ("a" | "an") noun | number plural
    relation  := "to the left of" | "left of" | "above" | "over" | "below" | "under" | …

in which parts that no relation joins name different kinds, so that `statements` can read any caption back, also one
that a model has made up, and `is_true` can hold it against the scene. Captions, and the answers of
`mmcam.scenes.questions`, are only written where nobody would dispute them (`clear_relation`); what others say is judged
by the milder `holds`.
"""

from dataclasses import dataclass
from itertools import pairwise
from random import Random

from mmcam.scenes.kinds import BY_NAME, KINDS, NUMBERS
from mmcam.scenes.world import Scene, clear_relation, holds

PHRASES = {
    "left": ("to the left of", "left of", "on the left of"),
    "right": ("to the right of", "right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
NOUNS = {kind.name: (kind.name, False) for kind in KINDS} | {
    kind.plural: (kind.name, True) for kind in KINDS if kind.plural != kind.name
}

# What may stand between the parts of a caption.
_JOINTS = ([], ["relation"], ["and"], [",", "and"])


@dataclass(frozen=True)
class Caption:
    """A sentence and, for every word of it, the indices of the things that the word is about."""

    words: tuple[str, ...]
    about: tuple[tuple[int, ...], ...]

    @property
    def text(self) -> str:
        """The sentence as one string; commas are words of their own."""
        return " ".join(self.words)


@dataclass(frozen=True)
class Statement:
    """What a part of a caption claims: so many things of a kind, standing so to those of another part.

    Attributes:
        kind: The name of the kind.
        number: How many; 1 for "a", which means at least one.
        word: Position of the noun in the caption.
        relation: One of `RELATIONS` to the next statement, or None.
    """

    kind: str
    number: int
    word: int
    relation: str | None = None


def captions(scene: Scene, count: int) -> list[Caption]:
    """Write true captions of a scene, as different as its things allow.

    Args:
        scene: The layout.
        count: How many captions; several may be equal where little can be said.

    Returns:
        The captions, the same for the same scene.
    """
    random = Random(f"{scene.key}/captions")
    return [_caption(scene, random) for _ in range(count)]


def _caption(scene: Scene, random: Random) -> Caption:
    kinds = list(dict.fromkeys(thing.kind for thing in scene.things))
    groups = {kind: tuple(scene.of_kind(kind)) for kind in kinds}
    related = [
        (a, relation, b)
        for a in kinds
        for b in kinds
        if a != b and (relation := _common_relation(scene, groups[a], groups[b]))
    ]
    if related and random.random() < 0.75:
        a, relation, b = random.choice(related)
        phrase = random.choice(PHRASES[relation]).split()
        parts = [_part(a, groups[a]), (phrase, groups[a] + groups[b]), _part(b, groups[b])]
    else:
        chosen = random.sample(kinds, random.randint(min(2, len(kinds)), min(3, len(kinds))))
        parts = [_part(chosen[0], groups[chosen[0]])]
        for i, kind in enumerate(chosen[1:], start=2):
            parts += [(["and" if i == len(chosen) else ","], ()), _part(kind, groups[kind])]
    return Caption(
        tuple(word for words, _ in parts for word in words), tuple(about for words, about in parts for _ in words)
    )


def _part(kind: str, things: tuple[int, ...]) -> tuple[list[str], tuple[int, ...]]:
    """Name all things of one kind: "a dog", "two dogs"."""
    if len(things) > 1:
        return [NUMBERS[len(things)], BY_NAME[kind].plural], things
    return ["an" if kind[0] in "aeiou" else "a", kind], things


def _common_relation(scene: Scene, a: tuple[int, ...], b: tuple[int, ...]) -> str | None:
    """The clear relation that every thing of a has to every thing of b."""
    found = {clear_relation(scene.things[i], scene.things[j]) for i in a for j in b}
    return found.pop() if len(found) == 1 else None


def statements(words: tuple[str, ...] | list[str]) -> list[Statement] | None:
    """Read a caption back.

    Args:
        words: The words of a caption, also of one that a model has made.

    Returns:
        Its statements in order, or None if the sentence does not follow the grammar.
    """
    found: list[Statement] = []
    joints: list[str] = []
    rest = list(words)
    position = 0
    while rest:
        if len(rest) < 2 or rest[1] not in NOUNS:
            return None
        kind, plural = NOUNS[rest[1]]
        article = rest[0] in ("a", "an")
        if not article and rest[0] not in NUMBERS[2:]:
            return None
        if article == plural and BY_NAME[kind].plural != kind:
            return None
        if rest[0] == ("a" if kind[0] in "aeiou" else "an"):
            return None
        number, word = 1 if article else NUMBERS.index(rest[0]), position + 1
        rest, position = rest[2:], position + 2
        relation, length = _read_phrase(rest)
        if rest and not length:
            return None
        found.append(Statement(kind, number, word, relation))
        joints += ["relation" if relation else rest[0]] if length else []
        rest, position = rest[length:], position + length
    repeated = joints != ["relation"] and len({s.kind for s in found}) < len(found)
    return None if joints not in _JOINTS or len(joints) != len(found) - 1 or repeated else found


def _read_phrase(words: list[str]) -> tuple[str | None, int]:
    """The relation with which the words begin and how many words it takes; (None, 1) for "and" and a comma."""
    for relation, phrases in PHRASES.items():
        for phrase in phrases:
            parts = phrase.split()
            if words[: len(parts)] == parts:
                return relation, len(parts)
    return None, int(bool(words) and words[0] in ("and", ","))


def meant(words: tuple[str, ...] | list[str], scene: Scene) -> dict[int, tuple[int, ...]] | None:
    """Find the things that the nouns of a caption mean, if everything that the caption says is true of the scene.

    "a dog" is true if there is a dog, "two dogs" if there are exactly two. A relation is true if it `holds` between a
    thing of the one kind and a thing of the other, and after a number for every one of its things with some of the
    other kind.

    Args:
        words: The words of the caption.
        scene: The scene to hold it against.

    Returns:
        For the position of every noun the indices of the things it means, or None if a statement is false or the
        sentence does not follow the grammar.
    """
    said = statements(words)
    if said is None:
        return None
    things = {s.word: scene.of_kind(s.kind) for s in said}
    for s in said:
        if len(things[s.word]) < 1 or (s.number > 1 and len(things[s.word]) != s.number):
            return None
    for s, other in pairwise(said):
        if s.relation is None:
            continue
        pairs = [
            (i, j)
            for i in things[s.word]
            for j in things[other.word]
            if i != j and holds(s.relation, scene.things[i], scene.things[j])
        ]
        first, second = sorted({i for i, _ in pairs}), sorted({j for _, j in pairs})
        if not pairs or (s.number > 1 and len(first) < s.number) or (other.number > 1 and len(second) < other.number):
            return None
        things[s.word], things[other.word] = first, second
    return {word: tuple(indices) for word, indices in things.items()}


def is_true(words: tuple[str, ...] | list[str], scene: Scene) -> bool:
    """Tell whether every statement of a caption is true of the scene."""
    return meant(words, scene) is not None
