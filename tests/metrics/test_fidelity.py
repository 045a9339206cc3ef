import numpy as np
import pytest
import torch
from scipy.stats import pearsonr

from mmcam.errors import UserError
from mmcam.metrics.fidelity import Fidelity, infidelity, mu_fidelity, subset_effects
from mmcam.metrics.perturb import on_input
from mmcam.task import Targets
from tests.metrics.linear import ask, captions, make, questions


def test_the_exact_attribution_of_a_linear_score_is_faithful():
    task, batch, targets = make(size=(9, 12))
    exact = task.attributions(batch, targets)
    sums, falls = subset_effects(task, batch, targets, exact, subsets=20, grid=3, share=0.4)
    torch.testing.assert_close(sums, falls, equal_nan=True)
    metric = Fidelity(subsets=20, grid=3, share=0.4)
    metric.update(task, batch, targets, 5 * exact, torch.arange(2))  # but for its scale
    assert metric.compute()["mu_fidelity"].value == pytest.approx(1)
    assert metric.compute()["infidelity"].value == pytest.approx(0, abs=1e-9)
    metric.reset()
    metric.update(task, batch, targets, -exact, torch.arange(2))
    assert metric.compute()["mu_fidelity"].value == pytest.approx(-1)


@pytest.mark.parametrize(("made", "grid"), [(make, 3), (captions, 4), (questions, 5)])
def test_a_loop_over_subsets_and_words_says_the_same(made, grid):
    task, batch, targets = made()
    maps = torch.randn(*targets.rows.shape[:2], 3, 4, dtype=torch.float64)
    sums, falls = subset_effects(task, batch, targets, maps, subsets=6, grid=grid, share=0.3, fill=0.1, seed=5)
    large = on_input(maps, batch)
    height, width = batch.images.shape[2:]
    order = torch.rand(6, grid**2, generator=torch.Generator().manual_seed(5)).argsort(1)
    for n in range(6):
        cells = set(order[n, : round(0.3 * grid**2)].tolist())
        hidden = [
            (y, x)
            for y in range(height)
            for x in range(width)
            if y * grid // height * grid + x * grid // width in cells
        ]
        for i, words in enumerate(targets.words):
            picture = batch.images[i].clone()
            for y, x in hidden:
                picture[:, y, x] = 0.1
            for r in range(len(words)):
                fall = ask(task, batch, targets, i, r, batch.images[i])[0] - ask(task, batch, targets, i, r, picture)[0]
                assert falls[i, r, n].item() == pytest.approx(fall, rel=1e-6, abs=1e-9)
                assert sums[i, r, n].item() == pytest.approx(sum(large[i, r, y, x].item() for y, x in hidden))


def test_correlation_and_rest_by_numpy():
    sums, falls = torch.randn(2, 1, 2, 30, dtype=torch.float64)
    for r in range(2):
        a, d = sums[0, r].numpy(), falls[0, r].numpy()
        assert mu_fidelity(sums, falls)[0, r].item() == pytest.approx(pearsonr(a, d).statistic)
        best = min(np.mean((beta * a - d) ** 2) for beta in np.linspace(-2, 2, 40001))
        assert infidelity(sums, falls)[0, r].item() == pytest.approx(best / np.mean(d**2), rel=1e-6)


def test_maps_that_say_nothing_are_judged_and_dead_scores_left_out():
    task, batch, targets = make()
    maps = torch.rand(2, 3, 2, 3)
    maps[0, 0], maps[0, 1] = 0, 0.1
    metric = Fidelity(subsets=10, grid=3)
    metric.update(task, batch, targets, maps, torch.arange(2))
    values = metric.kept()[0]
    assert values[:2, 0].tolist() == [0, 0]
    assert values[0, 1] == 1
    task.weight.data.zero_()
    metric.reset()
    metric.update(task, batch, targets, maps, torch.arange(2))
    assert metric.kept()[0].isnan().all()
    assert metric.compute()["mu_fidelity"].excluded == 5


def test_subsets_are_asked_about_once_for_all_words_and_seeded():
    task, batch, targets = make()
    maps = torch.rand(2, 3, 2, 3)
    state = torch.get_rng_state()
    one = subset_effects(task, batch, targets, maps, 7, 3)[1]
    assert sum(task.calls) == 2 + 2 * 7
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(subset_effects(task, batch, targets, maps, 7, 3)[1], one, equal_nan=True)
    assert not torch.equal(subset_effects(task, batch, targets, maps, 7, 3, seed=1)[1][0], one[0])
    assert subset_effects(task, batch, Targets.of([[], []], [[], []]), maps[:, :0], 7, 3)[1].shape == (2, 0, 7)


@pytest.mark.parametrize(("grid", "share"), [(5, 0.2), (1, 0.2), (3, 0.01), (3, 1.0)])
def test_there_are_subsets_to_choose(grid, share):
    task, batch, targets = make()
    with pytest.raises(UserError, match="a grid of 2 to 4 cells a side"):
        subset_effects(task, batch, targets, torch.rand(2, 3, 2, 2), grid=grid, share=share)
