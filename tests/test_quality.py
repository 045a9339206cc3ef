import math

import numpy as np
import pytest
import torch
from PIL import Image

from mmcam import explain
from mmcam.explanation import Explanation
from mmcam.quality import Pointing, PointingTable, pictured, with_baselines
from mmcam.scenes.draw import draw
from mmcam.scenes.write import scenes
from mmcam.task import Sample, Targets
from tests.tiny_task import TinyTask

# Two things of 2 x 2 pixels in a picture of 4 x 4, top left and bottom right.
MASKS = np.zeros((2, 4, 4), dtype=bool)
MASKS[0, :2, :2] = MASKS[1, 2:, 2:] = True


def explanation(*maps):
    signed = torch.tensor(maps, dtype=torch.float32)
    words = tuple(f"word {i}" for i in range(len(signed)))
    size, window = (4, 4), (0.0, 0.0, 4.0, 4.0)
    return Explanation("a", "", words, torch.zeros(len(signed)), signed, size, window, "grad_cam", "layer")


def spots(**values):
    """A map that is zero but for some places, such as p01=3."""
    grid = np.zeros((4, 4))
    for place, value in values.items():
        grid[int(place[1]), int(place[2])] = value
    return grid.tolist()


def test_a_peak_in_the_right_thing_hits():
    table = PointingTable("noun", seed=0)
    table.add({"": explanation(spots(p01=3, p33=2))}, 0, MASKS, (0,))
    figures = table.figures()
    assert figures["noun_n"] == 1
    assert figures["noun"] == 1
    assert figures["noun_other"] == 0
    assert figures["noun_heavier"] == 1  # 3 against 2


def test_a_peak_in_another_thing_is_a_miss_and_counted_as_such():
    table = PointingTable("noun", seed=0)
    table.add({"": explanation(spots(p01=3, p33=4))}, 0, MASKS, (0,))
    figures = table.figures()
    assert (figures["noun"], figures["noun_other"], figures["noun_heavier"]) == (0, 1, 0)


def test_a_peak_beside_all_things_is_a_miss_of_neither():
    table = PointingTable("noun", seed=0)
    table.add({"": explanation(spots(p03=9, p00=2, p10=2, p33=3))}, 0, MASKS, (0,))
    figures = table.figures()
    assert (figures["noun"], figures["noun_other"], figures["noun_heavier"]) == (0, 0, 1)  # mass 4 against 3


def test_shares_are_over_all_words_and_rows_are_told_apart():
    table = PointingTable("noun", seed=0)
    maps = {"": explanation(spots(p01=1), spots(p33=1)), "norm": explanation(spots(p33=1), spots(p33=1))}
    table.add(maps, 0, MASKS, (0,))
    table.add(maps, 1, MASKS, (1,))
    figures = table.figures()
    assert (figures["noun_n"], figures["noun"], figures["noun_norm"], figures["noun_norm_other"]) == (2, 1, 0.5, 0.5)


def test_a_word_about_several_things_hits_any_of_them():
    table = PointingTable("noun", seed=0)
    table.add({"": explanation(spots(p33=1))}, 0, MASKS, (0, 1))
    figures = table.figures()
    assert (figures["noun"], figures["noun_other"]) == (1, 0)
    assert "noun_heavier" not in figures  # there is no other thing


def test_a_word_that_means_nothing_is_a_miss_of_the_method_only():
    table = PointingTable("noun", seed=0)
    table.add({"": explanation(spots(p01=1)), "norm": explanation(spots(p01=1))}, 0, MASKS, (0,))
    table.miss()
    figures = table.figures()
    assert (figures["noun_n"], figures["noun"], figures["noun_norm"]) == (2, 0.5, 1)


def test_a_map_of_nothing_points_nowhere_and_weighs_nothing():
    table = PointingTable("noun", seed=0)
    for about in (0, 1):  # also where the thing lies in the corner, which is no peak
        table.add({"": explanation(spots(p33=-1))}, 0, MASKS, (about,))  # negative: zero after ReLU
    figures = table.figures()
    assert (figures["noun"], figures["noun_other"], figures["noun_heavier"]) == (0, 0, 0)
    table.add({"": explanation(spots(p33=float("nan"), p22=1))}, 0, MASKS, (1,))
    assert table.figures()["noun"] == pytest.approx(1 / 3, abs=1e-4)


def test_the_rows_that_know_nothing():
    table = PointingTable("noun", seed=0)
    everywhere, nowhere = np.ones((1, 4, 4), dtype=bool), np.zeros((1, 4, 4), dtype=bool)
    for masks in (everywhere, nowhere, MASKS, MASKS):
        table.add({"": explanation(spots())}, 0, masks, (0,))
    figures = table.figures()
    assert figures["noun_centre"] == 0.25  # pixel (2, 2) is the other thing's
    assert figures["noun_centre_other"] == 0.5
    assert 0.25 <= figures["noun_random"] <= 0.75
    assert "noun_centre_heavier" not in figures


def test_the_random_row_is_random_and_the_same_for_a_seed():
    def row(seed):
        table = PointingTable("noun", seed)
        for _ in range(100):
            table.add({"": explanation(spots())}, 0, MASKS, (0,))
        return table.rows["random"].hits

    assert row(3) == row(3)
    assert row(3) != row(4)
    assert abs(sum(row(3)) / 100 - 0.25) < 0.15  # 4 of 16 pixels


def test_nothing_counted_is_no_number():
    figures = PointingTable("noun", seed=0).figures()
    assert figures["noun_n"] == 0
    assert math.isnan(figures["noun"])
    assert Pointing().figures("x").keys() == {"x", "x_other"}


def test_pictures_come_some_at_a_time():
    batches = list(pictured(7, 5, "val", batch_size=2))
    assert [len(some) for some in batches] == [2, 2, 1]
    every = [entry for some in batches for entry in some]
    assert [scene for scene, _, _ in every] == list(scenes(7, "val", 5))
    picture, masks = draw(every[4][0])
    assert every[4][1].tobytes() == picture.tobytes()
    assert (every[4][2] == masks).all()


@pytest.mark.parametrize("targets", [None, Targets.of([[1], [2, 3]], [["dog"], ["cat", "pizza"]])])
def test_baselines_come_from_one_trunk_pass(targets):
    task = TinyTask(colours=None).eval()
    batch = task.collate([Sample(Image.new("RGB", (24, 16), colour), colour) for colour in ("red", "blue")])
    calls, trunk = [], task.trunk
    task.trunk = lambda batch: calls.append(1) or trunk(batch)
    found = with_baselines(task, batch, targets)
    assert len(calls) == 1
    expected = explain(task, batch, targets)
    norms = explain(task, batch, targets, method="activation_norm")
    for rows, ours, norm in zip(found, expected, norms, strict=True):
        assert list(rows) == ["", "activation_norm", "flipped"]
        assert rows[""].words == rows["flipped"].words == ours.words
        assert torch.equal(rows[""].signed, ours.signed)
        assert torch.equal(rows["flipped"].signed, -ours.signed)
        assert torch.equal(rows["activation_norm"].signed, norm.signed)
