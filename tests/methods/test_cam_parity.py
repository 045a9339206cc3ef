"""Golden parity with the peers that are right, and what the others do instead, against formulas in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerAttribution, LayerFeatureAblation, LayerGradCam, LayerGradientXActivation
from pytorch_grad_cam import (
    AblationCAM,
    EigenCAM,
    EigenGradCAM,
    GradCAMElementWise,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    ScoreCAM,
    XGradCAM,
)
from pytorch_grad_cam import GradCAM as TheirGradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torchcam import methods as torchcam
from torchvision import models

from classification import ClassificationTask
from mmcam.cam import grad_cam, grad_cam_plus_plus
from mmcam.engine import explain
from mmcam.methods import conventions
from mmcam.methods import table as methods
from mmcam.methods.conventions import present
from mmcam.methods.eigen import first_component
from mmcam.methods.finer import explain_finer, nearest
from mmcam.methods.masking import score_cam
from mmcam.task import Batch, Targets

SIZE = (64, 64)
PGC = {
    "grad_cam": TheirGradCAM,
    "hires_cam": HiResCAM,
    "elementwise_grad_cam": GradCAMElementWise,
    "layer_cam": LayerCAM,
    "xgrad_cam": XGradCAM,
    "grad_cam_plus_plus": GradCAMPlusPlus,
}
TORCHCAM = {
    "grad_cam": torchcam.GradCAM,
    "xgrad_cam": torchcam.XGradCAM,
    "layer_cam": torchcam.LayerCAM,
}


class SmallVGG(nn.Sequential):
    """Convolutions and ReLUs, then fully connected layers: gradients differ from place to place, and so do methods."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(4),
            nn.Conv2d(8, 12, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(768, 32),
            nn.ReLU(inplace=True),
            nn.Linear(32, 7),
        )


NETS = {
    "vgg": (SmallVGG, "4"),
    "resnet18": (lambda: models.resnet18(num_classes=7), "layer3"),
}


@pytest.fixture(params=NETS)
def case(request):
    torch.manual_seed(0)
    make, layer = NETS[request.param]
    model = make().eval()
    with torch.no_grad():
        model[-1].weight.mul_(20) if request.param == "vgg" else model.fc.weight.mul_(20)
    return Case(model, layer)


class Case:
    def __init__(self, model, layer):
        self.model, self.layer = model, layer
        self.images = torch.randn(2, 3, *SIZE)
        self.task = ClassificationTask(model, layer)
        self.batch = Batch(self.images, ("a", "b"), (SIZE,) * 2)
        self.targets = Targets.of([range(7)] * 2, ["abcdefg"] * 2)

    @property
    def module(self):
        return self.model.get_submodule(self.layer)

    def ours(self, method):
        return explain(self.task, self.batch, self.targets, method)

    def shown(self, method, convention):
        return torch.stack([present(explanation, convention, SIZE) for explanation in self.ours(method)])

    def pgc(self, kind, number):
        with kind(self.model, [self.module]) as cam:
            found = torch.from_numpy(cam(self.images, [ClassifierOutputTarget(number)] * 2))
        self.model.zero_grad()
        return found

    def activations_and_gradients(self, number):
        kept = []
        handle = self.module.register_forward_hook(
            lambda module, inputs, output: kept.append(output.clone()) or kept[0]
        )
        y = self.model(self.images)[:, number].sum()
        handle.remove()
        return kept[0].detach().double(), torch.autograd.grad(y, kept[0])[0].double()


def relative(found, expected):
    assert float(expected.abs().max()) > 0
    return float((found.double() - expected.double()).abs().max() / expected.abs().max())


# pytorch-grad-cam


@pytest.mark.parametrize("method", PGC)
def test_pytorch_grad_cam(case, method):
    if method == "grad_cam_plus_plus":  # gradients so large that their 1e-6 beside g² is nothing
        with torch.no_grad():
            list(case.model.modules())[-1].weight.mul_(1000)
    shown = case.shown(method, "pytorch-grad-cam")
    for number in (1, 4):
        assert relative(shown[:, number], case.pgc(PGC[method], number)) < 1e-5


def test_methods_differ_so_that_parity_means_something(case):
    shown = [case.shown(method, "pytorch-grad-cam")[:, 1] for method in PGC]
    for i in range(len(shown)):
        for j in range(i):
            same = {list(PGC)[i], list(PGC)[j]} == {"layer_cam", "elementwise_grad_cam"}  # A is never negative
            assert (relative(shown[i], shown[j]) < 1e-5) == same


def test_pytorch_grad_cams_ablation_cam_where_activations_are_not_negative(case):
    # It divides by the score, so its maps are ours where that is positive, and the wrong way round where it is not.
    found, scores = case.ours("ablation_cam"), case.model(case.images).detach()
    number = int((scores > 0.2).all(0).int().argmax())
    assert (scores[:, number] > 0).all()
    theirs = case.pgc(AblationCAM, number)
    ours = torch.stack([present(explanation, "pytorch-grad-cam", SIZE)[number] for explanation in found])
    assert relative(ours, theirs) < 1e-4  # their weights are differences of scores in float32, read one by one
    number = int((scores < -0.2).all(0).int().argmax())
    assert (scores[:, number] < 0).all()
    theirs = case.pgc(AblationCAM, number)
    turned = torch.stack([conventions.pytorch_grad_cam(-e.signed[[number]], SIZE)[0] for e in found])
    assert relative(turned, theirs) < 1e-4


def test_pytorch_grad_cams_eigen_maps_are_components_of_centred_channels_of_either_sign(case):
    a, g = case.activations_and_gradients(3)
    for kind, maps in ((EigenCAM, a), (EigenGradCAM, a * g)):
        component = first_component(maps - maps.mean((2, 3), keepdim=True)).float()
        theirs = case.pgc(kind, 3)
        for one, expected in zip(component, theirs, strict=True):
            both = [conventions.pytorch_grad_cam(sign * one[None], SIZE)[0] for sign in (1, -1)]
            assert min(relative(found, expected) for found in both) < 1e-4
    for ours, one in zip(case.ours("eigen_grad_cam"), component, strict=True):
        assert min(relative(sign * ours.signed[3], one) for sign in (1, -1)) < 1e-4


def test_pytorch_grad_cam_pp_loses_small_gradients_and_ours_does_not(case):
    # 1e-6 beside g² is much where g is 1e-4: their weights fall with g² and no longer with g.
    a, g = case.activations_and_gradients(2)
    g = g / g.abs().max() * 1e-4
    weights = np.zeros((2, a.shape[1]))
    for i in range(2):
        for k in range(a.shape[1]):
            first, total = g[i, k].numpy(), float(a[i, k].sum())
            with np.errstate(invalid="ignore", divide="ignore"):
                alpha = np.where(first == 0, 0, first**2 / (2 * first**2 + total * first**3))
            weights[i, k] = (alpha * np.maximum(first, 0)).sum()
    exact = grad_cam(torch.from_numpy(weights)[:, None], a)
    assert relative(grad_cam_plus_plus(g[:, None], a), exact) < 1e-10
    theirs = GradCAMPlusPlus.get_cam_weights(None, None, None, None, a.numpy(), g.numpy())
    assert relative(grad_cam(torch.from_numpy(theirs)[:, None], a), exact) > 0.5


# torch-cam


@pytest.mark.parametrize("method", TORCHCAM)
def test_torchcam(case, method):
    found, shown = case.ours(method), case.shown(method, "torchcam")
    raw = torch.stack([explanation.maps for explanation in found])
    with TORCHCAM[method](case.model, case.layer) as cam:
        for number in (1, 4):
            (theirs,) = cam([number] * 2, case.model(case.images), normalized=False)
            assert relative(raw[:, number], theirs) < 1e-5
            (theirs,) = cam([number] * 2, case.model(case.images))
            assert relative(shown[:, number], theirs) < 1e-5


def test_torchcams_cam():
    torch.manual_seed(0)
    case = Case(models.resnet18(num_classes=7).eval(), "layer4")
    raw = torch.stack([explanation.signed for explanation in case.ours("cam")])
    with torchcam.CAM(case.model, "layer4", "fc") as cam, torch.no_grad():
        for number in (1, 4):
            case.model(case.images)
            (theirs,) = cam([number] * 2, normalized=False)
            assert relative(raw[:, number], theirs) < 1e-5


def test_torchcam_pp_never_divides(case):
    # It means Σ A g³ for (Σ A) g³, which is not the paper's Eq. 19, and divides a copy that is thrown away:
    # what is left of α is g².
    a, g = case.activations_and_gradients(2)
    with torchcam.GradCAMpp(case.model, case.layer) as cam:
        (theirs,) = cam([2] * 2, case.model(case.images), normalized=False)
    paper = torch.where(g == 0, 0, g**2 / (2 * g**2 + a.sum((2, 3), keepdim=True) * g**3))
    maps = [((alpha * g.relu()).sum((2, 3))[..., None, None] * a).sum(1).relu() for alpha in (paper, g**2)]
    ours = torch.stack([explanation.maps[2] for explanation in case.ours("grad_cam_plus_plus")])
    assert relative(ours, maps[0]) < 1e-5
    assert relative(theirs, maps[1]) < 1e-5
    assert relative(conventions.min_max(theirs, 1e-8), conventions.min_max(maps[0], 1e-8)) > 0.05


@pytest.mark.parametrize("base", ["grad_cam", "layer_cam"])
def test_torchcams_finer_cam(case, base):
    scores = case.model(case.images).detach()
    references = nearest(scores, case.targets.ids, 3)
    found = explain_finer(case.task, case.batch, case.targets, references, gamma=0.6, method=base)
    with torchcam.FinerCAM(case.model, case.layer, base_method=TORCHCAM[base], gamma=0.6, num_references=3) as cam:
        for number in (1, 4):
            (theirs,) = cam([number] * 2, case.model(case.images), normalized=False)
            assert relative(torch.stack([explanation.maps[number] for explanation in found]), theirs) < 1e-5


# Score-CAM: the peers' own masks


@pytest.fixture
def small():
    torch.manual_seed(0)
    return Case(SmallVGG().eval(), "4")


def with_masks(masks):
    return lambda subject: score_cam(subject, masks)


def test_score_cam_with_torchcams_masks(small, monkeypatch):
    monkeypatch.setitem(methods.FROM_MODEL, "theirs", with_masks(conventions.score_cam_masks_of_torchcam))
    ours = torch.stack([explanation.maps for explanation in small.ours("theirs")])
    with torchcam.ScoreCAM(small.model, "4") as cam:
        for number in (1, 4):
            with torch.no_grad():
                small.model(small.images)
            (theirs,) = cam([number] * 2, normalized=False)
            assert relative(ours[:, number], theirs) < 1e-5


def test_score_cam_with_pytorch_grad_cams_masks(small, monkeypatch):
    monkeypatch.setitem(methods.FROM_MODEL, "theirs", with_masks(conventions.score_cam_masks_of_pytorch_grad_cam))
    shown = small.shown("theirs", "pytorch-grad-cam")
    for number in (1, 4):
        assert relative(shown[:, number], small.pgc(ScoreCAM, number)) < 1e-5


# captum


def test_captum(case):
    shown = case.shown("grad_cam", "captum")
    attribution = LayerGradCam(case.model, case.module)
    for number in (1, 4):
        theirs = attribution.attribute(case.images, target=number)
        assert relative(shown[:, number], LayerAttribution.interpolate(theirs, SIZE)[:, 0].detach()) < 1e-5


def test_captums_gradient_times_activation_is_hires_cam(case):
    found = case.ours("hires_cam")
    attribution = LayerGradientXActivation(case.model, case.module)
    for number in (1, 4):
        theirs = attribution.attribute(case.images, target=number).sum(1).detach()
        assert relative(torch.stack([explanation.signed[number] for explanation in found]), theirs) < 1e-5


def test_captums_feature_ablation_gives_the_weights_of_ablation_cam(small):
    found = small.ours("ablation_cam")
    channels = torch.arange(12)[None, :, None, None].expand(1, -1, 16, 16)
    attribution = LayerFeatureAblation(small.model, small.module)
    a, _ = small.activations_and_gradients(1)
    for number in (1, 4):
        theirs = attribution.attribute(small.images, target=number, layer_mask=channels)[:, :, 0, 0].detach().double()
        maps = grad_cam(theirs[:, None], a)[:, 0]
        assert relative(torch.stack([explanation.signed[number] for explanation in found]), maps) < 1e-5


# The paper


def test_the_papers_convention_is_relu_and_bilinear(small):
    for explanation, shown in zip(small.ours("grad_cam"), small.shown("grad_cam", "paper"), strict=True):
        large = F.interpolate(explanation.signed.clamp(min=0)[None], SIZE, mode="bilinear")[0]
        assert relative(shown, large) < 1e-6
