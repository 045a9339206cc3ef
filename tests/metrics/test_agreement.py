from math import isnan

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import pearsonr, rankdata, spearmanr

from mmcam.metrics.agreement import HumanAgreement, human_agreement, pearson, ranks, spearman, to_grid
from mmcam.metrics.base import Case
from mmcam.truth import Things


def test_ranks_by_hand():
    assert ranks(torch.tensor([[30.0, 10.0, 20.0], [5.0, 5.0, 1.0], [2.0, 2.0, 2.0]])).tolist() == [
        [3, 1, 2],
        [2.5, 2.5, 1],
        [2, 2, 2],
    ]


def test_argsort_is_not_rank():
    values = torch.tensor([[30.0, 10.0, 20.0]])
    other = values.argsort(1).float()  # 1, 2, 0: an independent reproduction of the paper correlated these
    assert spearman(values, values**3).tolist() == [1]
    assert spearman(values, other).item() == pytest.approx(-0.5)  # ranks 3, 1, 2 and 2, 3, 1


@pytest.mark.parametrize("change", [torch.exp, lambda x: x**3, lambda x: 2 * x - 7, torch.atan])
def test_what_rises_together_correlates_exactly(change):
    values = torch.randn(4, 196, dtype=torch.float64)
    assert spearman(values, change(values)).tolist() == [1] * 4
    assert spearman(values, -change(values)).tolist() == [-1] * 4


def test_scipy_says_the_same_also_of_ties():
    a, b = torch.randint(0, 5, (2, 20, 50)).float()
    a[7:] += torch.randn(13, 50)
    for i in range(20):
        assert ranks(a)[i].tolist() == rankdata(a[i].numpy()).tolist()
        assert spearman(a, b)[i].item() == pytest.approx(spearmanr(a[i].numpy(), b[i].numpy()).statistic)
        assert pearson(a, b)[i].item() == pytest.approx(pearsonr(a[i].double().numpy(), b[i].numpy()).statistic)


def test_a_constant_has_no_correlation():
    a, b = torch.randn(3, 10), torch.randn(3, 10)
    a[0], b[1] = 0.1, torch.nan
    for correlation in (spearman, pearson):
        assert correlation(a, b.nan_to_num(nan=0.3)).isnan().tolist() == [True, True, False]
    assert spearman(a, b).isnan().tolist() == [True, True, False]
    a[2, 0], b[2, 0] = torch.inf, torch.nan
    assert not spearman(a, b)[2].isnan()


def test_the_grid_of_vqa_hat():
    blocks = torch.arange(196.0).view(14, 14)
    large = blocks.repeat_interleave(32, 0).repeat_interleave(32, 1)
    torch.testing.assert_close(to_grid(large[None])[0], blocks)  # 448 pixels already
    picture = np.random.default_rng(0).random((301, 517), dtype=np.float32)
    resized = np.asarray(Image.fromarray(picture).resize((448, 448), Image.Resampling.BILINEAR))
    expected = resized.reshape(14, 32, 14, 32).mean((1, 3))
    np.testing.assert_allclose(to_grid(torch.from_numpy(picture)[None])[0].numpy(), expected, atol=2e-4)
    assert to_grid(torch.full((1, 300, 200), 0.1)).unique().numel() == 1
    assert to_grid(torch.zeros(0, 5, 5)).shape == (0, 14, 14)


def grids(*names):
    """Maps of 448 x 448 that are 14 x 14 patterns."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(14, 14, generator=generator)
    known = {"noise": noise, "flipped": -noise, "zero": torch.zeros(14, 14), "ramp": torch.arange(196.0).view(14, 14)}
    return torch.stack([known[name].repeat_interleave(32, 0).repeat_interleave(32, 1) for name in names])


def test_agreement_is_the_mean_over_people_and_empty_maps_are_left_out():
    maps = grids("noise", "ramp", "zero")
    alone = spearmanr(*(x[::32, ::32].flatten().numpy() for x in grids("ramp", "noise"))).statistic
    agreed = human_agreement(maps, grids("noise", "ramp", "zero"))
    assert agreed.tolist() == pytest.approx([(1 + alone) / 2, (1 + alone) / 2, 0], abs=1e-6)
    assert human_agreement(maps, grids("noise", "flipped"))[0].item() == pytest.approx(0, abs=1e-6)
    assert human_agreement(maps, grids("zero")).isnan().all()
    assert human_agreement(maps[:0], grids("noise")).shape == (0,)


def case(maps, human):
    n, height, width = maps.shape
    things = Things.of_masks([], torch.zeros(0, height, width, dtype=torch.bool))
    masks = torch.zeros(n, height, width, dtype=torch.bool)
    classes = torch.zeros(n, dtype=torch.long)
    return Case(("w",) * n, maps, maps[:, ::32, ::32], masks, ((),) * n, things, classes, 3, human)


def test_the_metric_leaves_out_what_nobody_was_asked():
    metric = HumanAgreement()
    metric.update(case(grids("noise", "zero"), grids("noise")))
    metric.update(case(grids("noise"), None))
    figure = metric.compute()
    assert (figure.n, figure.excluded) == (2, 1)
    assert figure.value == pytest.approx(0.5)
    assert isnan(metric.kept()[0][2])
