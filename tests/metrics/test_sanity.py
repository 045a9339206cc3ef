import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity
from torch import nn

from mmcam import explain
from mmcam.errors import UserError
from mmcam.metrics.sanity import Randomised, cascade, independent, similarity, without
from tests.metrics.linear import captions, make, questions


def test_similarity_is_scipy_s_and_skimage_s():
    maps, others = torch.randn(2, 3, 16, 20, dtype=torch.float64).unbind()
    alike = similarity(maps, others, (16, 20))
    for i in range(3):
        a, b = maps[i].numpy(), others[i].numpy()
        assert alike.spearman[i].item() == pytest.approx(spearmanr(a.ravel(), b.ravel()).statistic)
        assert alike.absolute[i].item() == pytest.approx(spearmanr(abs(a).ravel(), abs(b).ravel()).statistic)
        # skimage leaves the border out, so it gets one to leave out.
        padded = [np.pad(x / abs(x).max(), 5, mode="reflect") for x in (a, b)]
        expected = structural_similarity(*padded, data_range=2, gaussian_weights=True, use_sample_covariance=False)
        assert alike.ssim[i].item() == pytest.approx(expected)


def test_what_similarity_does_not_see_and_what_it_does():
    maps = torch.randn(2, 5, 7, dtype=torch.float64)
    same = similarity(maps, 3 * maps)  # the scale says nothing
    assert same.spearman.tolist() == same.absolute.tolist() == [1, 1]
    assert same.ssim.tolist() == pytest.approx([1, 1])
    turned = similarity(maps, -maps)
    assert turned.spearman.tolist() == [-1, -1]
    assert turned.absolute.tolist() == [1, 1]
    assert (turned.ssim < 0.3).all()
    nothing = similarity(maps, 0 * maps)
    assert nothing.spearman.isnan().all()
    assert (nothing.ssim < 0.5).all()
    assert similarity(maps[:0], maps[:0]).ssim.shape == (0,)


@pytest.mark.parametrize("made", [captions, questions])
def test_a_cascade_ends_with_all_destroyed_and_nothing_happens_to_the_task(made):
    task, batch, targets = made()
    task.train()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    maps = [e.signed for e in explain(task, batch, targets)]
    state = torch.get_rng_state()
    steps = list(cascade(task, batch, targets))
    names = [name for name, _ in steps]
    assert names[-1].startswith("model.backbone.features.0")  # the input last
    assert "backbone" not in names[0]
    assert len(set(names)) == len(names)
    alike = steps[-1][1]
    assert alike.spearman.shape == (sum(map(len, targets.words)),)
    assert alike.spearman.abs().nanmean() < 0.95
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    assert all(module.training for module in task.modules())
    assert all(p.grad is None for p in task.parameters())
    for e, expected in zip(explain(task, batch, targets), maps, strict=True):
        assert torch.equal(e.signed, expected)


def test_independent_destroys_one_at_a_time():
    task, batch, targets = captions()
    unheard = nn.Linear(3, 3)  # the model does not use it
    task.model.unheard = unheard
    steps = dict(independent(task, batch, targets, names=["model.backbone.features", "model.see", "model.unheard"]))
    assert list(steps) == ["model.unheard", "model.see", "model.backbone.features"]
    assert steps["model.unheard"].spearman.tolist() == pytest.approx([1.0] * 8)
    assert steps["model.see"].spearman.abs().mean() < 0.95
    assert len(dict(cascade(task, batch, targets, names=["model.see"]))) == 1


def test_maps_of_a_model_that_hears_nothing_stay_without_words():
    task, batch, targets = captions()
    nn.init.zeros_(task.model.hear.weight)  # all words sound the same
    alike = without("words", task, batch, targets)
    first = torch.tensor([True, False, False, False, False, False, True, False])
    assert alike.spearman.isnan().tolist() == first.tolist()  # the first word has heard nothing
    assert alike.spearman[~first].tolist() == pytest.approx([1.0] * 6)


def test_other_words_other_maps():
    task, batch, targets = captions()
    assert without("words", task, batch, targets).spearman.nanmean() < 0.999
    task, batch, targets = questions()
    alike = without("words", task, batch, targets)
    assert alike.spearman.shape == (6,)
    assert alike.spearman.mean() < 0.999
    same = batch.take(torch.tensor([0, 2]))  # one question, of two pictures
    assert without("words", task, same, targets.take(torch.tensor([0, 2]))).ssim.isnan().all()


def test_vision_and_language():
    task, batch, targets = captions()
    seen, said = (without(half, task, batch, targets) for half in ("vision", "language"))
    assert seen.spearman.abs().mean() < 0.95
    assert said.spearman.abs().mean() < 0.95
    again = without("vision", task, batch, targets)
    assert torch.equal(seen.spearman, again.spearman)  # the seed decides
    assert not torch.equal(seen.spearman, without("vision", task, batch, targets, seed=1).spearman)
    with pytest.raises(UserError, match="unknown sanity check 'visions': did you mean 'vision'"):
        without("visions", task, batch, targets)


def test_a_map_that_knows_no_score_survives_the_language():
    task, batch, targets = captions()
    alike = without("language", task, batch, targets, "activation_norm")
    assert alike.spearman.tolist() == pytest.approx([1.0] * 8)
    assert (without("vision", task, batch, targets, "activation_norm").spearman < 0.999).all()


def test_what_has_no_language_is_left_out():
    task, batch, targets = make()  # a linear score of the pixels; its one parameter does not see
    alike = without("vision", task, batch, targets)
    assert alike.spearman.isnan().all()
    assert alike.ssim.shape == (5,)


def test_the_metric_keeps_a_value_a_word():
    task, batch, targets = captions()
    metric = Randomised("words")
    metric.update(task, batch, targets, torch.tensor([3, 4]))
    expected = without("words", task, batch, targets)
    values, units, _ = metric.kept()
    torch.testing.assert_close(values[:, 2], expected.ssim.float(), equal_nan=True)
    assert units.tolist() == [3] * 6 + [4] * 2
    figure = metric.compute()["ssim"]
    assert (figure.n, figure.excluded) == (6, 2)
