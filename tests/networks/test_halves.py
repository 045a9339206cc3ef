"""Classifiers of torchvision and timm in two halves: the second gives what their last linear layer would see."""

from contextlib import contextmanager

import pytest
import timm
import torch
from torch import nn
from torchvision.models import get_model
from torchvision.models.vgg import VGG, cfgs, make_layers

from mmcam.networks.halves import CutCNN, halves

TORCHVISION = (
    "resnet18",
    "vgg11",
    "densenet121",
    "efficientnet_b0",
    "mobilenet_v3_small",
    "mobilenet_v2",
    "convnext_tiny",
    "regnet_y_400mf",
)


TIMM = ("resnet18", "convnext_atto", "mobilenetv3_small_050", "test_efficientnet", "test_vit")


@contextmanager
def input_of(layer):
    """Catch what a layer is given."""
    caught = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0].detach().clone()))
    yield caught
    handle.remove()


def lively(model):
    """Make random weights matter: fresh layer scales are nearly zero."""
    for name, value in model.named_parameters():
        if name.endswith(("layer_scale", "gamma")):
            nn.init.constant_(value, 0.5)
    return model.eval()


def make(name):
    if name.startswith("timm/"):
        return lively(timm.create_model(name.removeprefix("timm/")))
    return lively(get_model(name, weights=None))


@pytest.mark.parametrize("name", [*TORCHVISION, *[f"timm/{name}" for name in TIMM[:3]]])
@torch.no_grad()
def test_the_vector_is_what_the_last_linear_layer_would_see(name):
    model, images = make(name), torch.randn(2, 3, 64, 64)
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    with input_of(last) as caught:
        model(images)
    cut = CutCNN(model, (64, 64))
    activations, memo = cut.trunk(images)
    before = activations.clone()
    vector = cut.vector(activations, memo)
    torch.testing.assert_close(vector, caught[0], rtol=1e-5, atol=1e-6)
    assert vector.std() > 0
    assert activations.shape[:2] == (2, cut.channels)
    assert activations.shape[2] * activations.shape[3] > 1
    assert vector.shape == (2, cut.dim)
    assert (activations == before).all()  # no layer behind the cut writes into A


@torch.no_grad()
def test_vgg_is_cut_before_its_last_pooling():
    # A VGG-11 without the hundred million weights of its classifier.
    model = VGG(make_layers(cfgs["A"], batch_norm=False), num_classes=3, init_weights=False)
    model.classifier = nn.Sequential(nn.Linear(512 * 49, 4), nn.ReLU(), nn.Linear(4, 3))
    lower, upper = halves(model)
    assert isinstance(lower[-1], nn.ReLU)  # relu5_3 of the paper
    assert isinstance(upper[0], nn.MaxPool2d)
    assert lower(torch.randn(1, 3, 64, 64)).shape == (1, 512, 4, 4)


@torch.no_grad()
def test_densenet_s_maps_are_rectified():
    lower, _ = halves(make("densenet121"))
    assert lower(torch.randn(1, 3, 64, 64)).min() == 0
