"""Where the things of a scene are: sampling a layout, and what is left of, right of, above and below what.

Everything is drawn from `random.Random` seeded with a string, so the same seed, split and index give the same things on
every machine. Python promises to keep the generator's stream, but not what `sample` and its like make of it: therefore
a test pins a digest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random
from zlib import crc32

from mmcam.errors import UserError, unknown
from mmcam.scenes.kinds import NAMES

SIZE = 96
"""Side of a picture in pixels."""

SMALLEST, LARGEST = 20.0, 50.0
"""Range of a thing's size, the geometric mean of its width and height in pixels: a factor of 2.5."""

RELATIONS = ("left", "right", "above", "below")


@dataclass(frozen=True)
class Thing:
    """One thing of a scene: its kind and where its outline lies.

    Attributes:
        kind: A name out of `mmcam.scenes.kinds.NAMES`.
        box: left, top, width, height in pixels.
        mirrored: Whether the drawing is flipped left to right.
    """

    kind: str
    box: tuple[int, int, int, int]
    mirrored: bool

    @property
    def centre(self) -> tuple[float, float]:
        """Centre of the box: x, y."""
        left, top, width, height = self.box
        return left + width / 2, top + height / 2


@dataclass(frozen=True)
class Scene:
    """The layout of one picture: `draw` makes the pixels of it, `language` and `questions` the texts.

    Attributes:
        key: "seed/split/index", which also seeds background and texts.
        things: In the order in which they are drawn; a later one covers an earlier one.
    """

    key: str
    things: tuple[Thing, ...]

    def of_kind(self, name: str) -> list[int]:
        """Indices of the things of a kind."""
        return [i for i, thing in enumerate(self.things) if thing.kind == name]


def offset(a: Thing, b: Thing) -> tuple[float, float]:
    """The way from the centre of b to the centre of a: x to the right, y downwards."""
    return a.centre[0] - b.centre[0], a.centre[1] - b.centre[1]


def holds(relation: str, a: Thing, b: Thing) -> bool:
    """Tell whether "a is <relation> of b" may be said: a lies on that side and not mainly on another one.

    The displacement along the relation's axis must be positive and at least as large as two thirds of the displacement
    along the other axis, so that of a diagonal pair both "left" and "above" are true.
    """
    x, y = offset(a, b)
    along, across = {"left": (-x, y), "right": (x, y), "above": (-y, x), "below": (y, x)}[relation]
    return along > 0 and along >= abs(across) * 2 / 3


def clear_relation(a: Thing, b: Thing) -> str | None:
    """The relation of a to b that nobody would dispute: 10 px at least and 1.5 times the other axis; else None."""
    for relation in RELATIONS:
        x, y = offset(a, b)
        along, across = {"left": (-x, y), "right": (x, y), "above": (-y, x), "below": (y, x)}[relation]
        if along >= 10 and along >= 1.5 * abs(across):
            return relation
    return None


def held_out(a: str, b: str) -> bool:
    """Tell whether two kinds are never seen together in train, val and test: one pair in ten, fixed for all seeds."""
    return a != b and crc32("+".join(sorted((a, b))).encode()) % 10 == 0


def make_scene(seed: int, split: str, index: int, aspects: dict[str, float]) -> Scene:
    """Sample a layout of 1 to 4 things.

    Args:
        seed: The world's seed; another seed is another world.
        split: "train", "val", "test" hold no held-out pair of kinds; "hard" holds at least one in every picture.
        index: Number of the picture in its split.
        aspects: Width over height of each kind's outline, see `mmcam.scenes.draw.aspects`.

    Returns:
        The scene; the same for the same arguments on every machine.
    """
    key = f"{seed}/{split}/{index}"
    random = Random(key)
    while True:
        kinds = _kinds(random, hard=split == "hard")
        things = _place(random, kinds, aspects)
        if things is not None:
            return Scene(key, tuple(things))


def compose(key: str, kinds: Sequence[str], aspects: dict[str, float]) -> Scene:
    """Place things of given kinds, for experiments that say what shall be seen together.

    Args:
        key: Names the scene, and seeds layout and pixels.
        kinds: One a thing, in the order in which they are drawn.
        aspects: Width over height of each kind's outline, see `mmcam.scenes.draw.aspects`.

    Returns:
        The scene; the same for the same arguments on every machine.

    Raises:
        UserError: A kind is not known, or there are more than four things, for which there is no room.
    """
    for kind in kinds:
        if kind not in NAMES:
            raise unknown("kind of things", kind, NAMES)
    if not 1 <= len(kinds) <= 4:
        raise UserError(f"expected 1 to 4 kinds in a scene, got {len(kinds)}")
    random = Random(key)
    while True:
        things = _place(random, list(kinds), aspects)
        if things is not None:
            return Scene(key, tuple(things))


def _kinds(random: Random, *, hard: bool) -> list[str]:
    """Choose the kinds; repeated ones are common, so that counting is worth a question."""
    while True:
        count = random.choice((2, 3, 4)) if hard else random.choice((1, 2, 2, 3, 3, 4, 4))
        different = count if random.random() < 0.55 else random.randint(1, count)
        chosen = random.sample(NAMES, different)
        chosen += [random.choice(chosen) for _ in range(count - different)]
        if any(held_out(a, b) for a, b in combinations(chosen, 2)) == hard:
            random.shuffle(chosen)
            return chosen


def _place(random: Random, kinds: list[str], aspects: dict[str, float]) -> list[Thing] | None:
    """Find room for each thing, touching others at most a little; None where there is no room."""
    things: list[Thing] = []
    for name in kinds:
        for _ in range(30):
            size = random.uniform(SMALLEST, LARGEST if len(kinds) < 3 else 0.8 * LARGEST)
            root = aspects[name] ** 0.5
            width, height = round(size * root), round(size / root)
            if max(width, height) > SIZE - 2:
                continue
            box = (random.randint(1, SIZE - 1 - width), random.randint(1, SIZE - 1 - height), width, height)
            if all(_overlap(box, other.box) <= 0.06 for other in things):
                things.append(Thing(name, box, random.random() < 0.5))
                break
        else:
            return None
    return things


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Share of the smaller box that the other one covers."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0) / min(a[2] * a[3], b[2] * b[3])
