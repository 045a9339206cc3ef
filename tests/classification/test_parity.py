"""Golden parity: for one model, layer and class the peers' maps are ours, after their own treatment of our raw map."""

import pytest
import torch
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torchcam.methods import GradCAM as TorchCAM
from torchvision import models

from classification import ClassificationTask
from mmcam.engine import explain
from mmcam.task import Batch, Targets


def random_weights(make):
    """A model without its own slow initialisation, whose every parameter matters."""
    with torch.device("meta"):
        model = make()
    model.to_empty(device="cpu").eval()
    with torch.no_grad():
        for name, x in [*model.named_parameters(), *model.named_buffers()]:
            if x.ndim > 1:
                x.normal_(std=(2 / x[0].numel()) ** 0.5)
            elif x.is_floating_point():
                x.uniform_(-0.1, 0.1)
                x += float(name.endswith(("weight", "running_var")))
    return model


class Grid(nn.Module):
    """A norm of a vision transformer that shows its patch tokens as maps on the way: captum knows no tokens."""

    def __init__(self, norm):
        super().__init__()
        self.norm, self.maps = norm, nn.Identity()

    def forward(self, x):
        x = self.norm(x)
        maps = self.maps(tokens_to_maps(x))
        return torch.cat([x[:, :1], maps.flatten(2).transpose(1, 2)], 1)


def tokens_to_maps(x):
    side = int((x.shape[1] - 1) ** 0.5)
    return x[:, 1:].transpose(1, 2).unflatten(2, (side, side))


MODELS = {
    "resnet50": (lambda: models.resnet50(num_classes=10), "layer4"),
    "vgg16": (lambda: models.vgg16(num_classes=10, init_weights=False), "features.29"),
    "efficientnet_b0": (lambda: models.efficientnet_b0(num_classes=10), "features"),
    "vit_b_16": (lambda: models.vit_b_16(image_size=64, num_classes=10), "encoder.layers.encoder_layer_11.ln_1"),
}


@pytest.fixture(scope="module", params=MODELS)
def case(request):
    torch.manual_seed(0)
    make, layer = MODELS[request.param]
    model, images = random_weights(make), torch.randn(2, 3, 64, 64)
    task = ClassificationTask(model, layer)
    batch = Batch(images, ("a", "b"), ((64, 64),) * 2)
    explanations = explain(task, batch, Targets.of([range(10)] * 2, ["abcdefghij"] * 2))
    signed = torch.stack([explanation.signed for explanation in explanations])
    scores = torch.stack([explanation.scores for explanation in explanations])
    torch.testing.assert_close(scores, model(images).detach(), rtol=1e-5, atol=1e-6)
    classes = signed.amax((2, 3)).amin(0).topk(2).indices.tolist()  # maps of zeros would agree by themselves
    assert (signed[:, classes].amax((2, 3)) > 0).all()
    return model, layer, images, {number: signed[:, number] for number in classes}


def relative(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


def test_captum(case):
    model, layer, images, signed = case
    module = model.get_submodule(layer)
    if layer.endswith("ln_1"):
        parent = model.get_submodule(layer.removesuffix(".ln_1"))
        parent.ln_1 = Grid(module)
        attribution = LayerGradCam(model, parent.ln_1.maps)
    else:
        attribution = LayerGradCam(model, module)
    try:
        for number, ours in signed.items():
            theirs = attribution.attribute(images, target=number, relu_attributions=False)[:, 0].detach()
            assert relative(ours, theirs) < 1e-5
    finally:
        if layer.endswith("ln_1"):
            parent.ln_1 = module


def test_pytorch_grad_cam(case):
    model, layer, images, signed = case
    reshape = tokens_to_maps if layer.endswith("ln_1") else None
    with GradCAM(model, [model.get_submodule(layer)], reshape_transform=reshape) as cam:
        for number, ours in signed.items():
            theirs = torch.from_numpy(cam(images, [ClassifierOutputTarget(number)] * 2))
            scaled = scale_cam_image(scale_cam_image(ours.relu().numpy(), (64, 64)))
            assert relative(torch.from_numpy(scaled), theirs) < 1e-5
    model.zero_grad()


def test_torchcam(case):
    model, layer, images, signed = case
    reshape = tokens_to_maps if layer.endswith("ln_1") else None
    with TorchCAM(model, layer, reshape_transform=reshape) as cam:
        for number, ours in signed.items():
            (theirs,) = cam([number] * 2, model(images), normalized=False)
            assert relative(ours.relu(), theirs) < 1e-5
            (scaled,) = cam([number] * 2, model(images), normalized=True)
            assert relative(TorchCAM._normalize(ours.relu(), 2), scaled) < 1e-5
