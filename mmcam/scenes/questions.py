"""What can be asked about a scene, with the answer and the things that it is about."""

from collections import Counter
from dataclasses import dataclass
from random import Random

from mmcam.scenes.kinds import BY_NAME, GROUPS, KINDS, NAMES
from mmcam.scenes.language import PHRASES
from mmcam.scenes.world import SIZE, Scene, clear_relation, holds

_SIDES = {"left": "left of", "right": "right of", "above": "above", "below": "below"}

ANSWERS: tuple[str, ...] = (*NAMES, *GROUPS, "yes", "no", "0", "1", "2", "3", "4", "left", "right", "top", "bottom")
"""Every answer there is: 67."""


@dataclass(frozen=True)
class Question:
    """A question, its answer and the indices of the things that the answer is about ("no" may be about none).

    Attributes:
        form: "what", "exists", "count", "group", "where" or "relation".
    """

    text: str
    answer: str
    about: tuple[int, ...]
    form: str


def questions(scene: Scene, count: int) -> list[Question]:
    """Ask about a scene, each form about equally often, with answers that the question does not give away.

    For every form the *answer* is drawn first and then a question that has it ("yes" as often as "no", each number as
    often as the scenes allow), so that knowing the question alone helps little.

    Args:
        scene: The layout.
        count: How many questions; fewer come back where a scene allows fewer different ones.

    Returns:
        Different questions, the same for the same scene.
    """
    random = Random(f"{scene.key}/questions")
    asked: dict[str, Question] = {}
    for i in range(count * 3 // 2):  # no more tries: to insist would favour the answers with many questions ("no", "0")
        if len(asked) == count:
            break
        question = (_what, _exists, _count, _group, _where, _relation)[i % 6](scene, random)
        if question is not None:
            asked.setdefault(question.text, question)
    return list(asked.values())


def _single(scene: Scene, random: Random) -> str | None:
    """A kind of which there is exactly one thing."""
    once = [kind for kind, n in Counter(thing.kind for thing in scene.things).items() if n == 1]
    return random.choice(once) if once else None


def _target(scene: Scene, random: Random) -> tuple[str, str, int] | None:
    """A relation and a kind such that exactly one thing stands so to it, and clearly: (relation, kind, the thing)."""
    anchor = _single(scene, random)
    if anchor is None:
        return None
    base = scene.things[scene.of_kind(anchor)[0]]
    others = [i for i, thing in enumerate(scene.things) if thing is not base]
    fitting = []
    for relation in PHRASES:
        clear = [i for i in others if clear_relation(scene.things[i], base) == relation]
        mild = [i for i in others if holds(relation, scene.things[i], base)]
        if len(clear) == 1 and mild == clear:
            fitting.append((relation, anchor, clear[0]))
    return random.choice(fitting) if fitting else None


def _what(scene: Scene, random: Random) -> Question | None:
    if (target := _target(scene, random)) is None:
        return None
    relation, anchor, thing = target
    return Question(f"what is {_SIDES[relation]} the {anchor} ?", scene.things[thing].kind, (thing,), "what")


def _group(scene: Scene, random: Random) -> Question | None:
    if (target := _target(scene, random)) is None:
        return None
    relation, anchor, thing = target
    group = BY_NAME[scene.things[thing].kind].group
    return Question(f"what kind of thing is {_SIDES[relation]} the {anchor} ?", group, (thing,), "group")


def _exists(scene: Scene, random: Random) -> Question:
    if random.random() < 0.5:
        kind = random.choice(sorted({thing.kind for thing in scene.things}))
    else:
        kind = random.choice([name for name in NAMES if not scene.of_kind(name)])
    found = tuple(scene.of_kind(kind))
    article = "an" if kind[0] in "aeiou" else "a"
    return Question(f"is there {article} {kind} ?", "yes" if found else "no", found, "exists")


def _count(scene: Scene, random: Random) -> Question:
    if random.random() < 0.3:
        return Question("how many things are there ?", str(len(scene.things)), tuple(range(len(scene.things))), "count")
    options: dict[int, list[tuple[str, tuple[int, ...]]]] = {}
    for kind in KINDS:
        found = tuple(scene.of_kind(kind.name))
        options.setdefault(len(found), []).append((kind.plural, found))
    for group in GROUPS[:3]:
        found = tuple(i for i, thing in enumerate(scene.things) if BY_NAME[thing.kind].group == group)
        options.setdefault(len(found), []).append((f"{group}s" if group != "food" else "pieces of food", found))
    numbers = sorted(options)
    number = random.choices(numbers, [1 if n == 0 else 1 + n for n in numbers])[0]
    name, found = random.choice(options[number])
    return Question(f"how many {name} are there ?", str(number), found, "count")


def _where(scene: Scene, random: Random) -> Question | None:
    kind = _single(scene, random)
    if kind is None:
        return None
    thing = scene.of_kind(kind)[0]
    x, y = (value - SIZE / 2 for value in scene.things[thing].centre)
    if max(abs(x), abs(y)) < 10 or max(abs(x), abs(y)) < 1.5 * min(abs(x), abs(y)):
        return None
    answer = ("left" if x < 0 else "right") if abs(x) > abs(y) else ("top" if y < 0 else "bottom")
    return Question(f"where is the {kind} ?", answer, (thing,), "where")


def _relation(scene: Scene, random: Random) -> Question | None:
    a, b = _single(scene, random), _single(scene, random)
    if a is None or b is None or a == b:
        return None
    i, j = scene.of_kind(a)[0], scene.of_kind(b)[0]
    true = clear_relation(scene.things[i], scene.things[j])
    if true is None:
        return None
    yes = random.random() < 0.5
    # The false relation is the opposite one or one of the other axis, each as clearly false as the true one is true.
    asked = (
        true
        if yes
        else random.choice([r for r in PHRASES if r != true and not holds(r, scene.things[i], scene.things[j])])
    )
    return Question(f"is the {a} {_SIDES[asked]} the {b} ?", "yes" if yes else "no", (i, j), "relation")
