"""Every method by its name, for captions, answers and classes alike."""

import pytest
import torch

import mmcam
from mmcam.errors import UserError
from mmcam.methods.table import FROM_ATTENTION, names
from mmcam.pixels import guided_grad_cam, pixel_gradients
from mmcam.scenes.draw import draw
from mmcam.scenes.write import scenes
from mmcam.task import Sample

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
    for method, pixels in (
        ("gradient", pixel_gradients(task, batch, targets)),
        ("guided_grad_cam", guided_grad_cam(task, batch, targets)),
    ):
        (explanation,) = mmcam.explain(task, batch, targets, method)
        assert torch.allclose(explanation.signed, pixels[0].abs().amax(1), atol=1e-7)


def test_a_model_may_be_in_training_mode_and_stays_so(tasks):
    task = mmcam.load_task("classification/scenes", device="cpu").train()
    batch, targets = asked(task, "classification/scenes", 1)
    mmcam.explain(task, batch, targets, "guided_backprop")
    assert all(module.training for module in task.modules())
