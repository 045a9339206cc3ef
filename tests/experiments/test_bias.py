"""The linear layer against its optimum's equations, pooled Grad-CAM against CAM, and what biased scenes do to both."""

import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from classification.data import ClassifiedScenes
from classification.scenes import SceneTask
from mmcam import explain
from mmcam.errors import UserError
from mmcam.experiments.bias import Bias
from mmcam.experiments.pooled import PooledTask, fit
from mmcam.scenes.draw import draw
from mmcam.scenes.write import scenes
from mmcam.task import Sample
from tests.tiny_task import TinyTask


def test_the_linear_layer_is_where_the_gradient_of_its_loss_is_zero():
    features, labels = torch.randn(30, 4, dtype=torch.float64), torch.arange(30) % 3
    weight, bias = fit(features, labels, 0.05)
    p = (features @ weight.T + bias).softmax(1)
    gradient = (p - one_hot(labels, 3)).T @ features / 30 + 2 * 0.05 * weight  # of softmax regression, by hand
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-5, rtol=0)
    torch.testing.assert_close((p - one_hot(labels, 3)).mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-5, rtol=0)
    assert not weight.requires_grad


def test_training_does_not_mind_the_callers_mode():
    features, labels = torch.randn(10, 3), torch.arange(10) % 2
    with torch.no_grad():
        weight, bias = fit(features, labels, 0.1)
    assert cross_entropy(features @ weight.T + bias, labels) < cross_entropy(torch.zeros(10, 2), labels)


def test_grad_cam_of_the_pooled_model_is_cam():
    trunk = TinyTask()
    weight, bias = torch.randn(2, 8), torch.randn(2)
    model = PooledTask(trunk, weight, bias, ("dog", "cat"))
    picture = draw(next(scenes(7, "test", 1)))[0]
    batch = model.collate([Sample(picture, "a")])
    (found,) = explain(model, batch)
    activations = trunk.trunk(batch).detach()[0]
    best = int((activations.mean((1, 2)) @ weight.T + bias).argmax())
    assert found.words == (("dog", "cat")[best],)
    cam = torch.einsum("k,khw->hw", weight[best], activations) / activations[0].numel()  # CAM over Z
    torch.testing.assert_close(found.signed[0], cam)


def test_what_cannot_be_biased_is_refused():
    for values in ({"companions": ("dog", "clock")}, {"labels": ("cat", "cat")}, {"count": 3}):
        with pytest.raises(UserError, match="expected four kinds and 4 pictures at least"):
            Bias(**values)


@pytest.fixture(scope="module")
def tables():
    return Bias(count=24).run(SceneTask().eval(), ClassifiedScenes(count=1), limit=16, seed=0)


def test_maps_on_biased_pictures_tell_what_accuracy_on_them_does_not(tables):
    biased, balanced = tables[0].rows["biased"], tables[0].rows["balanced"]
    assert biased["validation accuracy"].value == 1
    assert biased["mass on companion"].value > 2 * balanced["mass on companion"].value
    assert biased["pointing at companion"].value > 0.5
    assert balanced["pointing at companion"].value < 0.3
    assert balanced["pointing at label"].value > biased["pointing at label"].value
    assert balanced["mass on label"].value > tables[0].rows["uniform"]["mass on label"].value


def test_the_test_set_says_later_that_the_maps_were_right(tables):
    biased, balanced = tables[0].rows["biased"], tables[0].rows["balanced"]
    assert biased["with its companion"].value == 1
    assert biased["with the other one"].value < balanced["with the other one"].value
    assert balanced["test accuracy"].value > biased["test accuracy"].value
    assert biased["with its companion"].n + biased["with the other one"].n == biased["test accuracy"].n == 16


def test_balancing_moves_the_maps_in_every_pairing(tables):
    changes = tables[1].rows["balanced less biased"]
    assert changes["mass on companion"].high < 0
    assert changes["mass on label"].low > 0
    assert changes["p(mass on companion)"] < 0.01
