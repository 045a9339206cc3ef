"""Truth is judged here anew, from the masks of the picture and the words alone."""

import re
from collections import Counter
from itertools import pairwise

import pytest

from mmcam.scenes.language import PHRASES, Statement, captions, is_true, meant, statements
from mmcam.scenes.world import Scene, Thing
from mmcam.scenes.write import scenes
from mmcam.text import tokenise
from tests.scenes.seen import PLURALS, WAYS, Seen, stands

NUMBERS = {"two": 2, "three": 3, "four": 4}
RELATION = r"(?: to the| on the)? (left|right) of | (above|over|below|under) "


def meaning(part, seen):
    """The things that "a dog" or "two dogs" means; None if that is not what one sees."""
    word, noun = part.split(" ")
    kind, number = (noun, 1) if word in ("a", "an") else (PLURALS[noun], NUMBERS[word])
    if word in ("a", "an"):
        assert (word == "an") == (noun[0] in "aeiou"), part
    found = [i for i, thing in enumerate(seen) if thing.kind == kind]
    return found if len(found) == number else None


def test_every_caption_is_true_of_the_picture_and_says_which_things_it_means(worlds):
    forms = Counter()
    for scene, seen in worlds:
        for caption in captions(scene, 8):
            first, *joint = re.split(RELATION, caption.text, maxsplit=1)
            if joint:
                word, (second,) = joint[0] or joint[1], joint[2:]
                a, b = meaning(first, seen), meaning(second, seen)
                assert a
                assert b
                assert all(stands(seen[i], word, seen[j], clearly=True) for i in a for j in b), caption.text
                joints = len(caption.words) - 4
                about = [a, a, *[a + b] * joints, b, b]
                forms[word] += 1
            else:
                parts = re.split(" , | and ", caption.text)
                assert len({part.split()[1] for part in parts}) == len(parts)
                about = []
                for part in parts:
                    found = meaning(part, seen)
                    assert found, caption.text
                    about += [[], found, found] if about else [found, found]
                forms[len(parts)] += 1
            assert caption.about == tuple(map(tuple, about)), caption.text
    assert set(forms) == {*WAYS, 1, 2, 3}


def test_captions_are_read_back_by_the_tokeniser_and_the_grammar(worlds):
    for scene, _ in worlds:
        for caption in captions(scene, 3):
            assert tokenise(caption.text) == list(caption.words)
            found = meant(caption.words, scene)
            assert found == {s.word: caption.about[s.word] for s in statements(caption.words)}
            assert is_true(list(caption.words), scene)


def test_every_phrase_is_used():
    texts = " . ".join(c.text for scene in scenes(0, "train", 100) for c in captions(scene, 4))
    for phrases in PHRASES.values():
        for phrase in phrases:
            assert phrase in texts


def test_captions_differ_where_there_is_something_to_say():
    several = [scene for scene in scenes(0, "train", 200) if len({thing.kind for thing in scene.things}) > 2]
    assert sum(len({caption.text for caption in captions(scene, 5)}) for scene in several) / len(several) > 3


def test_the_first_captions_do_not_depend_on_how_many_are_asked_for():
    for scene in scenes(0, "train", 20):
        assert captions(scene, 2) == captions(scene, 5)[:2]


def row(*things):
    """A scene of things of 20 x 20 pixels, each given by kind, left and top."""
    return Scene("0/test/0", tuple(Thing(kind, (x, y, 20, 20), False) for kind, x, y in things))


SCENE = row(("dog", 2, 40), ("cat", 40, 42), ("dog", 70, 2), ("umbrella", 40, 74))


@pytest.mark.parametrize(
    ("text", "things"),
    [
        ("two dogs", {1: (0, 2)}),
        ("a cat", {1: (1,)}),
        ("a dog", {1: (0, 2)}),  # there is one: one of two is enough
        ("an umbrella and a cat", {1: (3,), 4: (1,)}),
        ("two dogs , a cat and an umbrella", {1: (0, 2), 4: (1,), 7: (3,)}),
        ("a dog left of a cat", {1: (0,), 5: (1,)}),
        ("a dog to the left of a cat", {1: (0,), 7: (1,)}),
        ("a cat on the right of a dog", {1: (1,), 7: (0,)}),
        ("a cat over an umbrella", {1: (1,), 4: (3,)}),
        ("an umbrella below a cat", {1: (3,), 4: (1,)}),
        ("an umbrella under two dogs", {1: (3,), 4: (0, 2)}),  # of a diagonal pair both may be said
        ("a dog left of a dog", {1: (0,), 5: (2,)}),
    ],
)
def test_a_true_caption_means_the_right_things(text, things):
    assert meant(text.split(), SCENE) == things
    assert is_true(tuple(text.split()), SCENE)


@pytest.mark.parametrize(
    "text",
    [
        "three dogs",
        "two cats",
        "two umbrellas and a cat",
        "a cow",
        "a dog and a cow",
        "a dog right of an umbrella above a cat",  # no chains
        "a cat left of a dog left of a cat",
        "a cat above a dog left of an umbrella",
        "a cat left of an umbrella",
        "an umbrella above a cat",
        "two dogs left of a cat",  # one of them is not
        "a cat left of two dogs",
        "two dogs above two dogs",
    ],
)
def test_a_false_caption_is_refused(text):
    assert meant(text.split(), SCENE) is None
    assert not is_true(text.split(), SCENE)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dog",
        "a",
        "the dog",
        "a dogs",
        "two dog",
        "one dog",
        "zero cows",
        "five dogs",
        "an dog",
        "a umbrella",
        "a dog and",
        "and a dog",
        "a dog a cat",
        "a dog , a cat",
        "a dog and a cat and an umbrella",
        "a dog and a cat , an umbrella",
        "two dogs and a dog",
        "a dog left a cat",
        "a dog to left of a cat",
        "a dog left of",
        "a unicorn",
        "a <unk>",
        "a dog .",
    ],
)
def test_what_is_no_sentence_is_no_statement(text):
    assert statements(text.split()) is None
    assert meant(text.split(), SCENE) is None


def test_statements_are_read_by_position():
    text = "three sheep on the left of an apple"
    assert statements(text.split()) == [Statement("sheep", 3, 1, "left"), Statement("apple", 1, 7)]
    text = "a sheep , a tv and two buses"
    assert statements(text.split()) == [Statement("sheep", 1, 1), Statement("tv", 1, 4), Statement("bus", 2, 7)]


def test_the_two_ways_of_reading_agree_on_captions_of_other_pictures():
    """A caption of another scene is mostly false: the grammar's judge and the one of this file say so alike."""
    every = list(scenes(0, "test", 100))
    verdicts = Counter()
    for scene, other in pairwise(every):
        seen = [Seen(thing.kind, *thing.centre) for thing in scene.things]
        for caption in [*captions(other, 4), *shaken(captions(scene, 4))]:
            mine = judge(caption if isinstance(caption, str) else caption.text, seen)
            assert is_true((caption if isinstance(caption, str) else caption.text).split(), scene) == mine, caption
            verdicts[mine] += 1
    assert min(verdicts.values()) > 40


def shaken(some):
    """Captions with the relation turned round: what was true is false."""
    turned = {" left of ": " right of ", " above ": " below ", " under ": " over "}
    return [text.replace(a, b) for text in (c.text for c in some) for a, b in turned.items() if a in text] + [
        caption.text for caption in some
    ]


def judge(text, seen):
    """Whether a caption is true: "a" means at least one, and what may be said of a diagonal pair is true."""
    first, *joint = re.split(RELATION, text, maxsplit=1)
    parts = [first, joint[2]] if joint else re.split(" , | and ", text)
    found = []
    for part in parts:
        word, noun = part.split(" ")
        kind = noun if word in ("a", "an") else PLURALS[noun]
        things = [thing for thing in seen if thing.kind == kind]
        if not things or (word in NUMBERS and len(things) != NUMBERS[word]):
            return False
        found.append((word in NUMBERS, things))
    if not joint:
        return True
    dx, dy = WAYS[joint[0] or joint[1]]

    def may(a, b):
        along, across = (a.x - b.x) * dx + (a.y - b.y) * dy, abs((a.x - b.x) * dy) + abs((a.y - b.y) * dx)
        return along > 0 and along >= across * 2 / 3

    (every_a, first_things), (every_b, second_things) = found
    some = [any(may(a, b) for b in second_things) for a in first_things]
    others = [any(may(a, b) for a in first_things) for b in second_things]
    return any(some) and (all(some) or not every_a) and (all(others) or not every_b)
