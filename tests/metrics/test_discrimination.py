import pytest
import torch

from mmcam.metrics.discrimination import (
    Discrimination,
    MassDiscrimination,
    discrimination_by_mass,
    discrimination_by_mean,
)
from tests.metrics import naive
from tests.metrics.cases import NAN, boxed, ignored_places, make_case, odd_maps, odd_masks, same


@pytest.mark.parametrize("ignored", [None, ignored_places()])
@pytest.mark.parametrize("function", [discrimination_by_mean, discrimination_by_mass])
def test_the_naive_loop(function, ignored):
    maps, things = odd_maps(), odd_masks()[8:20]
    about = [(i % 12,) if i % 3 else (i % 12, (i + 5) % 12) for i in range(40)]
    masks = torch.stack([things[list(group)].any(0) for group in about])
    blocked = None if ignored is None else ignored.tolist()
    loop = []
    for map, mask, group in zip(maps.tolist(), masks.tolist(), about, strict=True):
        others = [things[k].tolist() for k in range(12) if k not in group]
        loop.append(naive.discrimination(map, mask, others, function is discrimination_by_mean, blocked))
    assert same(function(maps, masks, things, about, ignored), loop)


def test_by_hand():
    things = torch.zeros(4, 2, 6, dtype=torch.bool)
    things[0, 0, :2] = things[1, 1, :1] = things[2, :, 2:4] = things[3, :, 4:] = True
    map = torch.tensor([[[2.0, 2, 1, 1, 2, 2], [2, 0, 3, 0, 4, 0]]])
    # Means: 2 against 2, 1.25, 2; masses: 4 against 2, 5, 8
    assert discrimination_by_mean(map, things[:1], things, [(0,)]).item() == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert discrimination_by_mass(map, things[:1], things, [(0,)]).item() == pytest.approx(1 / 3)


def test_edges():
    things = torch.zeros(3, 2, 6, dtype=torch.bool)
    things[0, 0], things[1, :, :2] = True, True  # they overlap; the third is empty
    maps = torch.stack(
        [torch.zeros(2, 6), torch.full((2, 6), 0.1), torch.rand(2, 6), torch.rand(2, 6), torch.rand(2, 6)]
    )
    about = [(0,), (0,), (2,), (0, 1), ()]
    masks = torch.stack([things[list(group)].any(0) for group in about])
    assert same(discrimination_by_mean(maps, masks, things, about), [0, 0.5, NAN, NAN, NAN])


def test_complementary_words_share_one():
    # Of two things one is preferred: the two words of one map get 1 together.
    things = odd_masks()[17:19]
    maps = torch.rand(1, 9, 13).repeat(2, 1, 1)
    apart = things.clone()
    apart[1] &= ~apart[0]
    assert discrimination_by_mean(maps, apart, apart, [(0,), (1,)]).sum().item() == 1


def test_chance_is_one_half():
    things = boxed((0, 0, 5, 3), (5, 0, 10, 3), (0, 3, 5, 6))
    metric = Discrimination(), MassDiscrimination()
    for unit in range(100):
        case = make_case(torch.rand(2, 6, 10), ((0,), (1,)), things, unit=unit)
        for one in metric:
            one.update(case)
    for one in metric:
        figure = one.compute()
        assert figure.low < 0.5 < figure.high
        assert abs(figure.value - 0.5) < 0.1
