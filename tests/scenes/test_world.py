import hashlib
import json
from collections import Counter
from itertools import combinations, pairwise

import pytest

from mmcam.errors import UserError
from mmcam.scenes.kinds import NAMES
from mmcam.scenes.language import captions
from mmcam.scenes.questions import questions
from mmcam.scenes.world import (
    RELATIONS,
    SIZE,
    Scene,
    Thing,
    clear_relation,
    compose,
    held_out,
    holds,
    make_scene,
    offset,
)
from mmcam.scenes.write import SPLITS, scenes

SQUARE = dict.fromkeys(NAMES, 1.0)

# Of things, boxes, masks' areas, captions and questions of scenes 0 to 49 of seed 7. Another digest is another world:
# the shipped weights and every measured figure belong to this one.
DIGESTS = {
    "train": "5fa5f4a232bd4e72e0f845b293d6d848f37b5dd186ec9cc286e0800da397e2fb",
    "val": "88f5d5cf199db2b557420f3db8de5991788d6584e8c40eeffc758c72c53b3c3f",
    "test": "87370b7e6e8702b2f6290669297bc5d9435febee4bab3b819e6c659b249824e5",
    "hard": "34d911c894bb530d13d7b19dd2cc5c008a5c35a57624013a52f150dd81bf8c46",
}


def thing(x, y, side=20):
    """A dog whose centre is at x, y."""
    return Thing("dog", (x - side // 2, y - side // 2, side, side), mirrored=False)


@pytest.mark.parametrize("split", SPLITS)
def test_the_world_is_the_same_everywhere(drawn, split):
    record = [
        [
            scene.key,
            [[thing.kind, thing.box, thing.mirrored] for thing in scene.things],
            [int(mask.sum()) for mask in masks],
            [[caption.words, caption.about] for caption in captions(scene, 5)],
            [[question.text, question.answer, question.about, question.form] for question in questions(scene, 6)],
        ]
        for scene, _, masks in drawn[split]
    ]
    assert hashlib.sha256(json.dumps(record).encode()).hexdigest() == DIGESTS[split]


def test_the_scene_of_an_index_does_not_depend_on_the_others():
    assert list(scenes(7, "val", 3, start=5)) == list(scenes(7, "val", 8))[5:]


def test_another_seed_is_another_world():
    pairs = zip(scenes(0, "test", 50), scenes(1, "test", 50), strict=True)
    assert all(a.things != b.things for a, b in pairs)


def test_splits_are_disjoint():
    layouts = [scene.things for split in SPLITS for scene in scenes(0, split, 300)]
    assert len(set(layouts)) == len(layouts)


@pytest.mark.parametrize("split", SPLITS)
def test_only_the_hard_split_shows_held_out_pairs_and_always_does(split):
    for scene in scenes(0, split, 300):
        kinds = {thing.kind for thing in scene.things}
        assert any(held_out(a, b) for a, b in combinations(kinds, 2)) == (split == "hard")


def test_a_tenth_of_all_pairs_is_held_out():
    pairs = [(a, b) for a, b in combinations(NAMES, 2) if held_out(a, b)]
    assert 0.07 < len(pairs) / (48 * 47 / 2) < 0.13
    assert len({name for pair in pairs for name in pair}) > 45
    assert all(held_out(b, a) for a, b in pairs)
    assert not any(held_out(name, name) for name in NAMES)


def test_scenes_hold_one_to_four_things_inside_the_picture():
    counts = Counter()
    for scene in scenes(0, "train", 300):
        counts[len(scene.things)] += 1
        for left, top, width, height in (thing.box for thing in scene.things):
            assert 1 <= left < left + width <= SIZE - 1
            assert 1 <= top < top + height <= SIZE - 1
    assert sorted(counts) == [1, 2, 3, 4]
    assert min(counts.values()) > 25


def test_every_kind_occurs_and_sizes_differ_by_a_factor_of_two_and_a_half():
    things = [thing for scene in scenes(0, "train", 1000) for thing in scene.things]
    assert {thing.kind for thing in things} == set(NAMES)
    sizes = [(thing.box[2] * thing.box[3]) ** 0.5 for thing in things]
    assert 19 < min(sizes) < 20.5
    assert 49 < max(sizes) < 51
    assert {thing.mirrored for thing in things} == {True, False}


def test_boxes_overlap_a_little_at_most():
    for scene in scenes(0, "train", 300):
        for a, b in combinations([thing.box for thing in scene.things], 2):
            width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
            height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
            assert max(width, 0) * max(height, 0) <= 0.06 * min(a[2] * a[3], b[2] * b[3])


def test_two_of_a_kind_are_common_enough_to_count():
    repeated = [scene for scene in scenes(0, "train", 300) if len({t.kind for t in scene.things}) < len(scene.things)]
    assert 0.15 < len(repeated) / 300 < 0.5


def test_a_scene_knows_its_things_by_kind():
    scene = Scene("0/test/0", tuple(Thing(kind, (1, 1, 20, 20), False) for kind in ("dog", "cat", "dog")))
    assert scene.of_kind("dog") == [0, 2]
    assert scene.of_kind("cow") == []


def test_offset_points_right_and_down():
    assert offset(thing(40, 20), thing(30, 50)) == (10, -30)
    assert Thing("dog", (10, 20, 5, 8), False).centre == (12.5, 24)


@pytest.mark.parametrize(
    ("way", "mild", "clear"),
    [
        ((-30, 0), {"left"}, "left"),
        ((30, 0), {"right"}, "right"),
        ((0, -30), {"above"}, "above"),  # y goes downwards
        ((0, 30), {"below"}, "below"),
        ((-30, 20), {"left", "below"}, "left"),  # 30 = 1.5 x 20
        ((-30, 21), {"left", "below"}, None),
        ((-30, 19), {"left"}, "left"),  # 19 < 2/3 x 30
        ((-30, -30), {"left", "above"}, None),
        ((-9, 0), {"left"}, None),  # nobody would dispute 10 pixels
        ((-10, 0), {"left"}, "left"),
        ((0, 0), set(), None),
    ],
)
def test_relations(way, mild, clear):
    a, b = thing(50 + way[0], 50 + way[1]), thing(50, 50)
    assert {relation for relation in RELATIONS if holds(relation, a, b)} == mild
    assert clear_relation(a, b) == clear


def test_what_is_clear_may_be_said_and_its_opposite_may_not():
    opposite = {"left": "right", "right": "left", "above": "below", "below": "above"}
    for scene in scenes(0, "train", 300):
        for a, b in pairwise(scene.things):
            relation = clear_relation(a, b)
            assert clear_relation(b, a) == (relation and opposite[relation])
            if relation:
                assert holds(relation, a, b)
                assert not holds(opposite[relation], a, b)


def test_only_shapes_are_taken_from_the_drawings():
    wide = make_scene(0, "train", 0, dict.fromkeys(NAMES, 4.0))
    for _, _, width, height in (thing.box for thing in wide.things):
        assert width / height == pytest.approx(4, rel=0.1)
    assert make_scene(0, "train", 0, SQUARE) == make_scene(0, "train", 0, dict(SQUARE))


def test_composed_scenes_hold_what_was_asked_for_in_that_order():
    for key in map(str, range(20)):
        scene = compose(key, ("dog", "clock", "dog"), SQUARE)
        assert [thing.kind for thing in scene.things] == ["dog", "clock", "dog"]
        assert scene == compose(key, ("dog", "clock", "dog"), SQUARE)
    assert compose("a", ("dog",), SQUARE).things != compose("b", ("dog",), SQUARE).things


def test_what_cannot_be_composed_is_refused():
    with pytest.raises(UserError, match="unknown kind of things 'dgo': did you mean 'dog'"):
        compose("a", ("dgo",), SQUARE)
    for kinds in ((), ("dog",) * 5):
        with pytest.raises(UserError, match=f"expected 1 to 4 kinds in a scene, got {len(kinds)}"):
            compose("a", kinds, SQUARE)
