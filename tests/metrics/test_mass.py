import itertools
import statistics

import pytest
import torch
import torch.nn.functional as F

from mmcam.metrics.mass import (
    EnergyInBox,
    InsideOutside,
    MassAccuracy,
    MedianInsideOutside,
    RankAccuracy,
    energy_in_boxes,
    inside_outside,
    mass_accuracy,
    rank_accuracy,
)
from tests.metrics import naive
from tests.metrics.cases import NAN, boxed, bump, ignored_places, make_case, odd_maps, odd_masks, same

FUNCTIONS = {"mass": mass_accuracy, "rank": rank_accuracy, "ratio": inside_outside}
LEFT = torch.tensor([[[True, True, False, False], [True, True, False, False]]])  # the left half of a 2 x 4 picture


@pytest.mark.parametrize("ignored", [None, ignored_places()])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_naive_loop(name, ignored):
    maps, masks = odd_maps(), odd_masks()
    blocked, loop = None if ignored is None else ignored.tolist(), getattr(naive, name)
    expected = [loop(*pair, blocked) for pair in zip(maps.tolist(), masks.tolist(), strict=True)]
    assert same(FUNCTIONS[name](maps, masks, ignored), expected, 1e-8)
    assert same(FUNCTIONS[name](maps.flip(0), masks.flip(0), ignored).flip(0), expected, 1e-8)


def test_by_hand():
    map = torch.tensor([[[4.0, 1, 0, 0], [0, 2, 3, 0]]], dtype=torch.float64)
    assert mass_accuracy(map, LEFT).item() == pytest.approx(7 / 10)
    assert rank_accuracy(map, LEFT).item() == pytest.approx(3 / 4)  # 4, 3, 2, 1 of which 3 lies outside
    assert inside_outside(map, LEFT).item() == pytest.approx(7 / 3)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_edges(name):
    function = FUNCTIONS[name]
    empty, full = torch.zeros_like(LEFT), torch.ones_like(LEFT)
    zero, constant = torch.zeros(1, 2, 4), torch.full((1, 2, 4), 0.3)
    bad = torch.tensor([[[1.0, torch.nan, 0, torch.inf], [-5, 0, 1, -torch.inf]]])
    share = {"mass": 0.5, "rank": 0.5, "ratio": 1.0}[name]
    assert function(constant, empty).isnan().item()
    assert function(zero, LEFT).item() == 0
    assert function(constant, LEFT).item() == pytest.approx(share)
    assert function(bad, LEFT).item() == pytest.approx({"mass": 0.5, "rank": 1 / 4 + 2 / 6 * 3 / 4, "ratio": 1}[name])
    assert function(constant, full).isnan().item() is (name == "ratio")
    assert function(constant[:0], LEFT[:0]).shape == (0,)


def test_rank_accuracy_is_the_mean_over_all_orders_of_equal_pixels():
    values, inside = [3, 1, 1, 1, 0, 1], [True, False, True, True, False, False]
    scores = []
    for order in itertools.permutations(range(6)):
        first = sorted(order, key=lambda i: -values[i])[:3]  # sorting is stable: the permutation decides ties
        scores.append(sum(inside[i] for i in first) / 3)
    map, mask = torch.tensor(values).double().view(1, 2, 3), torch.tensor(inside).view(1, 2, 3)
    assert rank_accuracy(map, mask).item() == pytest.approx(statistics.mean(scores))


def test_a_map_that_is_constant_up_to_the_rounding_of_upsampling_is_constant():
    maps = F.interpolate(torch.full((1, 1, 7, 7), 0.1), (48, 65), mode="bilinear")[0]
    mask = torch.zeros(1, 48, 65, dtype=torch.bool)
    mask[:, 5:20, 7:60] = True
    assert maps.max() > maps.min()
    assert rank_accuracy(maps, mask).item() == pytest.approx(15 * 53 / (48 * 65), rel=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_scale_of_a_map_does_not_matter_even_near_the_ends_of_float32(name):
    maps, masks = torch.rand(5, 9, 13) + 0.01, odd_masks()[13:18]
    for factor in (1e38, 1e-36):
        assert torch.allclose(FUNCTIONS[name](maps * factor, masks), FUNCTIONS[name](maps, masks), rtol=1e-4)


def test_what_is_ignored_might_be_anything():
    maps, masks, ignored = odd_maps()[10:], odd_masks()[10:], ignored_places()
    other = torch.where(ignored, 7.0, maps)
    for function in FUNCTIONS.values():
        assert same(function(other, masks, ignored), function(maps, masks ^ ignored, ignored).tolist())


def test_nothing_outside_gives_a_ratio_that_is_large_and_finite():
    map = torch.tensor([[[1.0, 1, 0, 0], [1, 1, 0, 0]]])
    assert inside_outside(map, LEFT).item() == pytest.approx(1e6)
    assert inside_outside(map, LEFT, least=1e-2).item() == pytest.approx(100)


def test_energy_in_boxes_counts_overlaps_once_and_pixels_by_their_centres():
    map = torch.ones(1, 4, 10, dtype=torch.float64)
    map[0, 0, 0] = 1.5
    box = torch.tensor([[0.0, 0, 5, 2], [0, 0, 5, 2], [0, 0, 5.4, 2]])
    assert energy_in_boxes(map, [box]).item() == pytest.approx(10.5 / 40.5)
    assert energy_in_boxes(map, [torch.tensor([[0.0, 0, 5.6, 2]])]).item() == pytest.approx(12.5 / 40.5)
    assert energy_in_boxes(map, [torch.zeros(0, 4)]).isnan().item()
    assert energy_in_boxes(map, [torch.tensor([[3.0, 1, 3, 2]])]).isnan().item()


def test_energy_of_a_tall_box_in_a_wide_picture():
    assert energy_in_boxes(bump(5, 1), [torch.tensor([[0.0, 0, 2, 6]])]).item() == 1
    assert energy_in_boxes(bump(1, 5), [torch.tensor([[0.0, 0, 2, 6]])]).item() == 0


def test_the_metrics_leave_out_what_is_ignored():
    ignored = torch.zeros(6, 10, dtype=torch.bool)
    ignored[:, 8:] = True
    things = boxed((0, 0, 5, 6), (5, 0, 10, 6), ignored=ignored)
    map = 0.5 * bump(0, 0) + 2 * bump(0, 9) + 1.5 * bump(0, 7)
    case = make_case(map, ((0,),), things)
    for kind, value in ((MassAccuracy, 1 / 4), (EnergyInBox, 1 / 4), (InsideOutside, 0.5 / 30 / (1.5 / 18))):
        metric = kind()
        metric.update(case)
        assert metric.compute().value == pytest.approx(value)
    metric = RankAccuracy()
    metric.update(make_case(map, ((1,),), things))
    assert metric.compute().value == pytest.approx((1 + 16 * 17 / 46) / 18)  # 18 pixels; 46 of the 48 counted are zero


def test_the_median_is_that_of_the_statistics_module_and_resamples_pictures():
    things = boxed((0, 0, 5, 6))
    metric = MedianInsideOutside()
    for unit in range(7):
        maps = torch.rand(1 + unit % 3, 6, 10) + 0.1
        metric.update(make_case(maps, ((0,),) * len(maps), things, unit=unit))
    figure, values = metric.compute(), metric.kept()[0].tolist()
    assert figure.value == pytest.approx(statistics.median(values))
    assert figure.low <= figure.value <= figure.high
    assert figure.n == len(values) == 13


def test_quantus_is_right_on_ordinary_maps_and_wrong_on_zero_and_constant_ones():
    quantus = pytest.importorskip("quantus")
    mass = quantus.RelevanceMassAccuracy(disable_warnings=True)
    rank = quantus.RelevanceRankAccuracy(disable_warnings=True)
    maps, masks = torch.rand(20, 9, 13, dtype=torch.float64), odd_masks()[13:33]
    given = {"a_batch": maps.numpy(), "s_batch": masks.numpy()}
    assert same(mass_accuracy(maps, masks), mass.evaluate_batch(**given).tolist())
    assert same(rank_accuracy(maps, masks), rank.evaluate_batch(**given).tolist())
    top = torch.zeros(1, 9, 13, dtype=torch.bool)
    top[:, :3] = True
    constant = {"a_batch": torch.ones(1, 9, 13).numpy(), "s_batch": top.numpy()}
    assert rank_accuracy(torch.ones(1, 9, 13), top).item() == pytest.approx(1 / 3)
    assert rank.evaluate_batch(**constant).item() == 1  # the pixels that come first are the greatest to argsort
    with pytest.warns(RuntimeWarning):
        assert torch.tensor(mass.evaluate_batch(a_batch=torch.zeros(1, 9, 13).numpy(), s_batch=top.numpy())).isnan()
    assert mass_accuracy(torch.zeros(1, 9, 13), top).item() == 0
    assert same(mass_accuracy(maps[:1], top & False), [NAN])
