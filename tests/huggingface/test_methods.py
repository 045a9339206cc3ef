"""Every method by name on Hugging Face's models: maps, or one line that says why there are none."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from captioning.hf import HFCaptioningTask
from mmcam import UserError, explain
from mmcam.huggingface.task import Generation
from mmcam.methods.augment import explain_views
from mmcam.methods.table import FROM_ATTENTION, FROM_PIXELS, names
from mmcam.metrics.curves import Deletion
from mmcam.pixels import pixel_gradients
from mmcam.task import Sample
from tests.huggingface import tiny
from vqa.hf import HFVQATask

pytestmark = [pytest.mark.filterwarnings(w) for w in tiny.UNAVOIDABLE]

REFUSED = {
    "llava": {"cam", *FROM_ATTENTION},
    "vilt": {"cam", *FROM_ATTENTION},
    "qwen2.5-vl": {"cam", "score_cam", "smooth_grad_cam_plus_plus", *FROM_ATTENTION, *FROM_PIXELS},
}


def asked(name):
    built = tiny.build(name)
    kind = HFVQATask if name == "vilt" else HFCaptioningTask
    task = kind(built.model, built.processor, generation=Generation(length=2))
    noise = np.random.RandomState(0).randint(0, 255, (*built.size, 3), np.uint8)
    batch = task.collate([Sample(Image.fromarray(noise), "a", "" if built.kind == "caption" else "what is that?")])
    targets = None if name == "vilt" else task.given(["a red dog"], batch)
    return task, batch, targets


@pytest.mark.parametrize("name", REFUSED)
def test_every_method_gives_maps_or_says_why_not(name):
    task, batch, targets = asked(name)
    refused = set()
    for method in names():
        try:
            (e,) = explain(task, batch, targets, method)
        except UserError:
            refused.add(method)
        else:
            assert e.signed.any(), method
            assert torch.isfinite(e.signed).all(), method
    assert refused == REFUSED[name]


@pytest.mark.parametrize("name", ["qwen2.5-vl", "llava-next"])
def test_pictures_that_are_tiles_or_patches_are_not_changed(name):
    task, batch, targets = asked(name)
    targets = task.given(["a red dog"], batch)
    with pytest.raises(UserError, match="tiles or patches"):
        explain_views(task, batch, targets)  # would be the mean of a map and its mirror image
    with pytest.raises(UserError, match="tiles or patches"):
        Deletion().update(task, batch, targets, torch.ones(1, len(targets.words[0]), 4, 6), torch.tensor([0]))


@pytest.mark.parametrize("name", ["blip", "llava"])
def test_gradients_at_pixels_are_finite_differences(name):
    built = tiny.build(name)
    model = built.model.double()
    task = HFCaptioningTask(model, built.processor)
    _, batch, _ = asked(name)
    batch = task.collate([Sample(Image.new("RGB", built.size[::-1], (200, 30, 90)), "a", batch.texts[0])])
    images = batch.images.double()
    targets = task.given(["a red dog"], batch)

    def y(x):
        some = replace(batch, images=x, memo={})
        with torch.no_grad():
            return task.scores(task.trunk(some), some, targets).sum()

    found = pixel_gradients(task, replace(batch, images=images), targets.sentence())[0, 0]
    step = torch.randn(images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1e-3
    difference = y(images + step) - y(images - step)
    torch.testing.assert_close(
        (found * 2 * step[0]).sum(), difference, rtol=2e-2, atol=0
    )  # rotary and norms are float32
