"""Finer-CAM and test-time augmentation, for every kind of head."""

from dataclasses import replace

import pytest
import torch

from mmcam.engine import explain
from mmcam.errors import UserError
from mmcam.methods.augment import FLIPPED, PLAIN, SIX, explain_views
from mmcam.methods.conventions import present
from mmcam.methods.finer import explain_finer, nearest
from tests.reference import TASKS, WAYS, close, make, pictures, ragged, same_maps, untouched


def others(targets, count=2):
    return torch.stack([(targets.ids + step) % 11 for step in range(1, count + 1)], 2)


@pytest.mark.parametrize("name", TASKS)
def test_it_is_the_maps_of_the_contrasts_where_the_method_is_linear(name):
    # y - γ/2 (y₁ + y₂) = (1 - γ) y + γ/2 ((y - y₁) + (y - y₂)), and so the maps.
    task, batch, targets = make(name), pictures(), ragged()
    references = others(targets)
    plain = explain(task, batch, targets)
    foils = [explain(task, batch, targets.rather_than(references[..., d])) for d in range(2)]
    for i, found in enumerate(explain_finer(task, batch, targets, references, gamma=0.6)):
        mean = (foils[0][i].signed + foils[1][i].signed) / 2
        assert close(found.signed, 0.4 * plain[i].signed + 0.6 * mean)
        assert close(found.scores, 0.4 * plain[i].scores + 0.3 * (foils[0][i].scores + foils[1][i].scores))


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("method", ["layer_cam", "ablation_cam", "score_cam"])
def test_the_ends_of_gamma_are_what_is_known(method, how):
    task, batch, targets = make("convolved", how=how), pictures(2), ragged((2, 3))
    references = others(targets, 1)
    found = explain_finer(task, batch, targets, references, gamma=0.0, method=method)
    assert same_maps(found, explain(task, batch, targets, method), rtol=1e-9)
    found = explain_finer(task, batch, targets, references, gamma=1.0, method=method)
    assert same_maps(found, explain(task, batch, targets.rather_than(references[..., 0]), method), rtol=1e-9)


def test_the_task_is_left_as_found():
    task, batch, targets = make("attention").train(), pictures(2), ragged((2, 3))
    list(task.modules())[3].eval()
    with untouched(task):
        explain_finer(task, batch, targets, others(targets))
    assert set(batch.inputs) == {"question", "lengths"}


def test_the_nearest_by_hand():
    scores = torch.tensor([[1.0, 5.0, 4.0, 5.5, -9.0], [0.0, 1.0, 2.0, 3.0, 4.0]])
    ids = torch.tensor([[1, 4], [0, 3]])
    assert nearest(scores, ids, 2).tolist()[0] == [[3, 2], [0, 2]]
    assert nearest(scores, ids, 9).shape == (2, 2, 4)
    per_word = torch.stack([scores, scores.flip(1)], 1)  # (b, t, v)
    assert nearest(per_word, ids, 1).tolist()[0] == [[3], [2]]  # 5.5 is next to 5; of -9, 5.5, 4, 5, 1 it is 4 to 1


def test_references_that_do_not_belong():
    task, batch, targets = make("classifier"), pictures(), ragged()
    with pytest.raises(UserError, match=r"\(b, t\) = \(4, 4\)"):
        explain_finer(task, batch, targets, others(targets)[:, :2])
    with pytest.raises(UserError, match="plain targets"):
        explain_finer(task, batch, targets.rather_than(targets.ids), others(targets))


# Views


@pytest.mark.parametrize("method", ["grad_cam", "layer_cam"])
def test_the_mean_of_a_picture_and_its_mirror(method):
    task, batch, targets = make("attention"), pictures(2), ragged((2, 1))
    mirrored = explain(task, replace(batch, images=batch.images.flip(-1)), targets, method)
    for found, a, b in zip(
        explain_views(task, batch, targets, method), explain(task, batch, targets, method), mirrored, strict=True
    ):
        assert close(found.signed, (a.signed + b.signed.flip(-1)) / 2)
        assert torch.equal(found.scores, a.scores)


def test_a_symmetric_task_sees_the_same_in_the_mirror():
    task, batch, targets = make("classifier"), pictures(2), ragged((2, 1))
    batch = replace(batch, images=batch.images + batch.images.flip(-1))
    symmetric = task.cnn
    with torch.no_grad():
        for layer in (symmetric[0], symmetric[3]):
            layer.weight.add_(layer.weight.flip(-1))
    batch = replace(batch, images=batch.images[..., :13])  # odd, so that a stride of two is symmetric too
    batch = replace(batch, images=batch.images + batch.images.flip(-1))
    assert same_maps(explain_views(task, batch, targets), explain(task, batch, targets))


def test_a_plain_view_changes_nothing_and_six_are_six():
    task, batch, targets = make("convolved"), pictures(2), ragged((2, 1))
    assert same_maps(explain_views(task, batch, targets, views=[PLAIN]), explain(task, batch, targets))
    explain_views(task, batch, targets, views=SIX)
    assert task.calls["trunk"] == 1 + 1 + 6
    x = torch.arange(6.0).view(1, 1, 2, 3)
    assert FLIPPED.back(FLIPPED.see(x)).equal(x)
    assert close(SIX[5].see(x), x.flip(-1) * 1.1, rtol=1e-6)


def test_an_unknown_convention():
    (found,) = explain(make("classifier"), pictures(1), ragged((1,)))
    with pytest.raises(UserError, match="unknown convention 'pytorch_grad_cam': did you mean 'pytorch-grad-cam'"):
        present(found, "pytorch_grad_cam", (10, 14))
