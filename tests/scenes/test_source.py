import torch

from mmcam.scenes.draw import draw
from mmcam.scenes.source import Scenes


def test_things_are_the_drawn_ones():
    source = Scenes("test", 8, seed=3)
    for number in range(8):
        scene, things = source.scene(number), source.things(number)
        assert things.names == tuple(thing.kind for thing in scene.things)
        assert torch.equal(things.masks, torch.from_numpy(draw(scene)[1]))
        assert things.exact
        assert things.ignored is None


def test_a_kind_s_name_means_all_things_of_the_kind():
    source = Scenes("test", 30)
    number = next(i for i in range(30) if len({t.kind for t in source.scene(i).things}) < len(source.scene(i).things))
    kinds = [thing.kind for thing in source.scene(number).things]
    twice = next(kind for kind in kinds if kinds.count(kind) > 1)
    absent = next(kind for kind in ("zebra", "kite", "tv", "bed", "cup") if kind not in kinds)
    expected = tuple(i for i, kind in enumerate(kinds) if kind == twice)
    assert source.about(number, [twice, absent, "above"]) == [expected, (), None]
