"""Every method by its name, for captions, answers and classes alike."""

import pytest
import torch

import mmcam
from mmcam import pixels
from mmcam.errors import UserError
from mmcam.methods.table import FROM_ATTENTION, names
from mmcam.pixels import guided_grad_cam, pixel_gradients
from mmcam.scenes.draw import draw
from mmcam.scenes.write import scenes
from mmcam.task import Sample
from tests.reference import TASKS, make, pictures, ragged

TEXTS = {
    "captioning/scenes": ("", "a dog left of a cat"),
    "vqa/scenes": ("how many dogs are there ?", "2, dog"),
    "classification/scenes": ("", "dog, cat, pizza"),
}


@pytest.fixture(scope="module")
def tasks():
    return {name: mmcam.load_task(name, device="cpu") for name in TEXTS}


def asked(task, config, count=2):
    question, text = TEXTS[config]
    samples = [Sample(draw(scene)[0], scene.key, question) for scene in scenes(5, "test", count)]
    batch = task.collate(samples)
    return batch, task.given([text] * count, batch)


@pytest.mark.parametrize("method", names())
@pytest.mark.parametrize("config", TEXTS)
def test_every_method_explains_every_task(tasks, config, method):
    task = tasks[config]
    batch, targets = asked(task, config)
    if method == "cam":  # its head would have to be one linear layer on means; ours take the soft maximum
        with pytest.raises(UserError, match="linear"):
            mmcam.explain(task, batch, targets, method)
        return
    if method in FROM_ATTENTION:
        with pytest.raises(UserError, match="expected a model with attention"):
            mmcam.explain(task, batch, targets, method)
        return
    explanations = mmcam.explain(task, batch, targets, method)
    for explanation in explanations:
        assert explanation.method == method
        assert explanation.words == targets.words[0]
        assert bool(torch.isfinite(explanation.signed).all())
        assert explanation.upsample().shape == (len(explanation.words), 96, 96)
    # Of answers and classes that are wrong nothing may speak for them; of a whole caption something always does.
    assert config != "captioning/scenes" or all("" in explanation.flags for explanation in explanations)
    assert all(parameter.grad is None for parameter in task.parameters())


@pytest.mark.parametrize("method", ["guided_backprop", "guided_grad_cam", "occlusion"])
def test_methods_of_pixels_have_the_resolution_of_the_input(tasks, method):
    batch, targets = asked(tasks["vqa/scenes"], "vqa/scenes", 1)
    (explanation,) = mmcam.explain(tasks["vqa/scenes"], batch, targets, method)
    assert explanation.signed.shape[1:] == batch.images.shape[2:]


def test_maps_of_pixels_are_the_largest_magnitude_over_the_colours(tasks):
    task = tasks["classification/scenes"]
    batch, targets = asked(task, "classification/scenes", 1)
    for method, found in (
        ("gradient", pixel_gradients(task, batch, targets)),
        ("guided_grad_cam", guided_grad_cam(task, batch, targets)),
    ):
        (explanation,) = mmcam.explain(task, batch, targets, method)
        assert torch.allclose(explanation.signed, found[0].abs().amax(1), atol=1e-7)


def test_a_model_may_be_in_training_mode_and_stays_so(tasks):
    task = mmcam.load_task("classification/scenes", device="cpu").train()
    batch, targets = asked(task, "classification/scenes", 1)
    mmcam.explain(task, batch, targets, "guided_backprop")
    assert all(module.training for module in task.modules())


@pytest.mark.parametrize(
    ("method", "passes"),
    [("grad_cam", 1), ("gradient", 1), ("guided_backprop", 1), ("deconv_grad_cam", 1), ("occlusion", 2)],
)
def test_the_trunk_runs_no_more_often_than_the_method_needs(monkeypatch, method, passes):
    monkeypatch.setattr(pixels, "room", lambda *_: 1000)  # all windows at once, after the whole pictures
    task = make(next(iter(TASKS)))
    assert trunk_passes(task, method, ragged()) == passes
    # Predictions take a pass, from which only methods of the activations profit.
    assert trunk_passes(task, method, None) == passes + (method != "grad_cam")


def trunk_passes(task, method, targets):
    before = task.calls["trunk"]
    mmcam.explain(task, pictures(), targets, method)
    return task.calls["trunk"] - before


@pytest.mark.parametrize("method", ["gradient", "guided_grad_cam", "occlusion", "integrated_gradients"])
def test_scores_are_those_of_grad_cam(method):
    task, batch = make(next(iter(TASKS))), pictures()
    expected = mmcam.explain(task, batch, ragged())
    for ours, theirs in zip(mmcam.explain(task, batch, ragged(), method), expected, strict=True):
        assert torch.allclose(ours.scores, theirs.scores, rtol=0, atol=1e-6)
