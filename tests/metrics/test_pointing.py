import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmcam.metrics.pointing import (
    Pointing,
    PointingElsewhere,
    PointingWithRejection,
    peaks,
    pointing,
    pointing_with_rejection,
)
from tests.metrics import naive
from tests.metrics.cases import NAN, boxed, bump, ignored_places, make_case, odd_maps, odd_masks, same
from tests.reference import devices


@pytest.mark.parametrize("ignored", [None, ignored_places()])
@pytest.mark.parametrize("tolerance", [0.0, 1.0, 1.5, 3.0])
def test_the_naive_loop(tolerance, ignored):
    maps, masks = odd_maps(), odd_masks()
    blocked = None if ignored is None else ignored.tolist()
    loop = [naive.pointing(*pair, tolerance, blocked) for pair in zip(maps.tolist(), masks.tolist(), strict=True)]
    assert same(pointing(maps, masks, tolerance, ignored), loop)
    assert {0.0, 1.0} <= set(loop)


def test_the_peak_is_the_first_maximum_in_reading_order_of_a_picture_that_is_not_square():
    maps = torch.zeros(3, 2, 5)
    maps[0, 1, 4] = maps[1, 0, 3] = maps[1, 1, 0] = 1
    assert peaks(maps).tolist() == [9, 3, -1]


def test_a_constant_map_is_no_hit_even_if_the_mask_is_everywhere():
    maps = torch.stack([torch.zeros(4, 6), torch.ones(4, 6), torch.full((4, 6), -2.0), torch.full((4, 6), torch.nan)])
    assert pointing(maps, torch.ones(4, 4, 6, dtype=torch.bool), tolerance=15.0).tolist() == [0, 0, 0, 0]


def test_a_constant_map_is_no_hit_after_upsampling():
    maps = F.interpolate(torch.full((1, 1, 7, 7), 0.1), (48, 65), mode="bilinear")[0]
    assert maps.max() > maps.min()  # or there is nothing to show
    assert pointing(maps, torch.ones(1, 48, 65, dtype=torch.bool)).tolist() == [0]


def test_an_empty_mask_is_undefined_and_not_finite_pixels_are_no_peak():
    maps = torch.zeros(3, 2, 3)
    maps[:, 0, 0], maps[1, 1, 1], maps[2, 1, 1] = 1, torch.nan, torch.inf
    masks = torch.zeros(3, 2, 3, dtype=torch.bool)
    masks[1:, 1, 1] = True
    assert same(pointing(maps, masks), [NAN, 0, 0])


def test_tolerance_by_hand_is_a_disc_with_an_open_edge():
    # A mask pixel 3 to the right and 4 below: distance 5.
    mask = torch.zeros(1, 6, 10, dtype=torch.bool)
    mask[0, 5, 4] = True
    map = bump(1, 1)
    assert [pointing(map, mask, t).item() for t in (0.0, 4.9, 5.0, 5.1)] == [0, 0, 0, 1]
    assert pointing(bump(5, 4), mask, 0.0).item() == 1


def test_tolerance_does_not_wrap_round_the_borders():
    mask = torch.zeros(1, 6, 10, dtype=torch.bool)
    mask[0, 2, 0] = True  # next to (1, 9) in memory
    assert pointing(bump(1, 9), mask, 3.0).item() == 0
    mask[0, 2, 0], mask[0, 5, 5] = False, True
    assert pointing(bump(0, 5), mask, 3.0).item() == 0
    assert pointing(bump(0, 0), mask, 100.0).item() == 1


def test_growing_the_mask_by_a_disc_is_the_same():
    from skimage.morphology import dilation

    maps, masks = odd_maps()[10:], odd_masks()[13:]
    maps = maps[: len(masks)]
    y, x = np.mgrid[-4:5, -4:5]
    disc = (y**2 + x**2 < 16).astype(bool)
    grown = torch.stack([torch.from_numpy(dilation(mask.numpy(), disc)) for mask in masks])
    assert torch.equal(pointing(maps, masks[: len(maps)], 4.0), pointing(maps, grown[: len(maps)]))


def test_a_peak_on_an_ignored_place_is_undefined():
    mask = torch.ones(1, 6, 10, dtype=torch.bool)
    ignored = torch.zeros(6, 10, dtype=torch.bool)
    ignored[2, 3] = True
    assert pointing(bump(2, 3), mask, 15.0, ignored).isnan().item()
    assert pointing(bump(3, 2), mask, 0.0, ignored).item() == 1  # rows and columns are not exchanged


def test_rejection_by_hand():
    maps = torch.cat([bump(1, 1, value=v) for v in (0.9, 0.1, 0.9, 0.1, 0.9, 0.1)])
    masks = torch.zeros(6, 6, 10, dtype=torch.bool)
    masks[:2, 1, 1] = True
    present = torch.tensor([True, True, False, False, True, True])
    # pointed at; rejected by mistake; not rejected; rejected rightly; nothing to point at, twice
    assert same(pointing_with_rejection(maps, masks, present, 0.5), [1, 0, 0, 1, NAN, NAN])
    assert same(pointing_with_rejection(maps, masks, present, 0.1), [1, 1, 0, 0, NAN, NAN])  # below, not at


def test_without_a_threshold_rejection_is_the_pointing_game():
    maps, masks = odd_maps(), odd_masks()
    present = torch.ones(len(maps), dtype=torch.bool)
    assert same(pointing_with_rejection(maps, masks, present, 0.0, 3.0), pointing(maps, masks, 3.0).tolist())


def test_no_maps():
    assert pointing(torch.zeros(0, 3, 4), torch.zeros(0, 3, 4, dtype=torch.bool), 15.0).shape == (0,)


@devices
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_types(device, dtype):
    maps, masks = bump(1, 2).to(device, dtype), torch.ones(1, 6, 10, dtype=torch.bool)
    assert pointing(maps, masks).device.type == device
    assert pointing(maps, masks).dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_the_metric_means_over_maps_or_over_classes():
    things = boxed((0, 0, 5, 6), (5, 0, 10, 6))
    maps = torch.cat([bump(1, 1), bump(1, 2), bump(1, 3), bump(1, 4)])  # all in the left half
    case = make_case(maps, ((0,), (0,), (0,), (1,)), things, classes=[7, 7, 7, 3])
    for per_class, mean in ((False, 3 / 4), (True, 1 / 2)):
        metric = Pointing(per_class=per_class)
        metric.update(case)
        assert metric.compute().value == mean
    metric = Pointing(tolerance=2.0)
    metric.update(case)
    assert metric.compute().value == 1  # (1, 4) is one pixel beside the right half


def test_elsewhere():
    things = boxed((0, 0, 5, 6), (4, 0, 8, 6), names=("a", "b"))
    maps = torch.cat([bump(1, 1), bump(1, 4), bump(1, 6), bump(1, 9)])
    metric = PointingElsewhere()
    metric.update(make_case(maps, ((0,),) * 4, things))
    assert metric.kept()[0].tolist() == [0, 0, 1, 0]  # the second lies on both
    alone = PointingElsewhere()
    alone.update(make_case(maps, ((0, 1),) * 4, things))
    assert alone.compute().n == 0
    assert alone.compute().excluded == 4


def test_the_metric_of_rejection_knows_who_is_absent():
    things = boxed((0, 0, 5, 6))
    metric = PointingWithRejection(0.5)
    metric.update(make_case(torch.cat([bump(1, 1), bump(1, 1), bump(1, 1, value=0.1)]), ((0,), (), ()), things))
    assert metric.kept()[0].tolist() == [1, 0, 1]


def test_quantus_is_right_on_ordinary_maps_and_wrong_on_empty_masks_and_constant_maps():
    quantus = pytest.importorskip("quantus")
    theirs = quantus.PointingGame(disable_warnings=True)
    maps, masks = torch.rand(20, 9, 13), odd_masks()[13:33]
    ours = pointing(maps, masks)
    assert same(ours, theirs.evaluate_batch(a_batch=maps.numpy(), s_batch=masks.numpy()).astype(float).tolist())
    empty, full = torch.zeros(1, 9, 13, dtype=torch.bool), torch.ones(1, 9, 13, dtype=torch.bool)
    constant = torch.ones(1, 9, 13)
    for map, mask, right in ((maps[:1], empty, NAN), (constant, full, 0.0), (constant, masks[:1], 0.0)):
        assert same(pointing(map, mask), [right])
        assert theirs.evaluate_batch(a_batch=map.numpy(), s_batch=mask.numpy()).tolist() == [True]
