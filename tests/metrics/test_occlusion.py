import pytest
import torch
from scipy.stats import spearmanr

from mmcam.errors import UserError
from mmcam.metrics.occlusion import OcclusionCorrelation, at_patches, occlusion_correlation, occlusion_maps
from mmcam.task import Targets
from tests.metrics.linear import Linear, ask, captions, make, of, questions


def test_by_hand():
    task = Linear(torch.tensor([[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]]))
    batch, targets = of(torch.ones(1, 1, 2, 3)), Targets.of([[0]], [["all"]])
    assert occlusion_maps(task, batch, targets, 2, 1).tolist() == [[[[12, 16]]]]
    assert occlusion_maps(task, batch, targets, 1, 2).tolist() == [[[[1, 3]]]]
    assert occlusion_maps(task, batch, targets, 1, 1, fill=3.0).tolist() == [[[[-2, -4, -6], [-8, -10, -12]]]]
    assert at_patches(task.weight.detach()[None, 0], batch, 2, 1).tolist() == [[[[3, 4]]]]


@pytest.mark.parametrize(("made", "patch", "stride"), [(make, 2, 1), (captions, 9, 7), (questions, 11, 10)])
def test_a_loop_over_places_and_words_says_the_same(made, patch, stride):
    task, batch, targets = made()
    maps = occlusion_maps(task, batch, targets, patch, stride, fill=0.2)
    height, width = batch.images.shape[2:]
    for i, words in enumerate(targets.words):
        for r in range(len(words)):
            whole = ask(task, batch, targets, i, r, batch.images[i])[0]
            for u, top in enumerate(range(0, height - patch + 1, stride)):
                for v, left in enumerate(range(0, width - patch + 1, stride)):
                    picture = batch.images[i].clone()
                    picture[:, top : top + patch, left : left + patch] = 0.2
                    drop = whole - ask(task, batch, targets, i, r, picture)[0]
                    assert maps[i, r, u, v].item() == pytest.approx(drop, rel=1e-6, abs=1e-9)
    assert maps.shape[2:] == (u + 1, v + 1)
    assert maps[1, len(targets.words[1]) :].isnan().all()


def test_a_hidden_patch_is_asked_about_once_for_all_words():
    task, batch, targets = make()
    occlusion_maps(task, batch, targets, 2, 2)
    assert sum(task.calls) == 2 + 2 * 2 * 3


def test_the_exact_attribution_correlates_exactly_and_its_negative_the_other_way():
    task, batch, targets = make()
    exact = task.attributions(batch, targets)
    metric = OcclusionCorrelation(patch=2, stride=1)
    metric.update(task, batch, targets, exact, torch.arange(2))
    assert metric.kept()[0][:, 0].tolist() == [1] * 5
    metric.reset()
    metric.update(task, batch, targets, -exact, torch.arange(2))
    assert metric.compute()["spearman"].value == -1


def test_correlation_is_scipy_s_and_constants_are_told_apart():
    occluded, explained = torch.rand(2, 1, 4, 3, 3, dtype=torch.float64)
    explained[0, 1] = 0.5
    occluded[0, 2] = 0.0
    occluded[0, 3] = torch.nan
    values = occlusion_correlation(occluded, explained)[0]
    expected = spearmanr(occluded[0, 0].flatten().numpy(), explained[0, 0].flatten().numpy()).statistic
    assert values[0].item() == pytest.approx(expected)
    assert values[1] == 0  # a constant map ranks nothing
    assert values[2:].isnan().all()  # no patch matters; padding


def test_a_constant_map_is_judged_not_left_out():
    task, batch, targets = make(size=(37, 23))
    metric = OcclusionCorrelation()
    metric.update(task, batch, targets, torch.full((2, 3, 7, 5), 0.1), torch.arange(2))
    assert metric.kept()[0].tolist() == [[0]] * 5


def test_the_usual_patch_is_a_fifth_of_the_picture():
    task, batch, targets = make(size=(20, 31))
    maps = torch.rand(2, 3, 5, 5)
    usual = OcclusionCorrelation().measure(task, batch, targets, maps)
    torch.testing.assert_close(usual, OcclusionCorrelation(4, 2).measure(task, batch, targets, maps), equal_nan=True)


@pytest.mark.parametrize(("patch", "stride"), [(0, 1), (5, 1), (2, 0)])
def test_a_patch_fits(patch, stride):
    task, batch, targets = make()
    with pytest.raises(UserError, match=f"1 to 4 pixels and a stride of at least 1, got {patch} and {stride}"):
        occlusion_maps(task, batch, targets, patch, stride)
