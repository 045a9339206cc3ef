import math
from contextlib import contextmanager

import pytest
import timm
import torch
from torch import nn
from torchvision.models import get_model
from torchvision.models.vgg import VGG, cfgs, make_layers

from classification.scenes import SceneClassifier
from mmcam.checkpoint import save_model
from mmcam.errors import UserError
from mmcam.gradients import channel_weights, looped
from mmcam.networks.backbones import (
    PLACES,
    WAVES,
    CutCNN,
    SceneCNN,
    backbone,
    coordinates,
    gist,
    halves,
    load_backbone,
    place_code,
)
from mmcam.scenes.kinds import NAMES

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


def test_a_cnn_of_timm_comes_with_its_own_form_of_input():
    cut = backbone("timm/test_convnext")
    form = timm.create_model("test_convnext").pretrained_cfg
    assert form["mean"] != (0.485, 0.456, 0.406)
    assert (3, *cut.size) == form["input_size"]
    assert (cut.mean, cut.std) == (form["mean"], form["std"])


def test_backbones_by_name():
    cut = backbone("resnet18")
    assert (cut.channels, cut.dim, cut.size, cut.layer) == (512, 512, (224, 224), "lower")
    assert cut.mean == (0.485, 0.456, 0.406)
    scenes = backbone("scenes")
    assert (scenes.channels, scenes.dim, scenes.size, scenes.layer) == (96, 288, (96, 96), "features")
    for cnn in (cut, scenes):
        assert isinstance(cnn.get_submodule(cnn.layer), nn.Module)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("resnet19", None, "unknown backbone 'resnet19': did you mean 'resnet"),
        ("r3d_18", None, "unknown backbone 'r3d_18'"),  # of films
        ("timm/resnet19", None, "unknown backbone of timm 'resnet19': did you mean"),
        ("shufflenet_v2_x0_5", None, "cannot cut a ShuffleNetV2 into trunk and head; use a ResNet"),
        ("timm/test_vit", None, "cannot cut a VisionTransformer"),
        ("resnet18", "IMAGENET1K_V9", "cannot get the weights 'IMAGENET1K_V9' of resnet18; use DEFAULT"),
        ("timm/resnet18", "some/folder", "expected DEFAULT as the weights of timm/resnet18, got 'some/folder'"),
    ],
)
def test_a_backbone_that_cannot_be_had(name, weights, message):
    with pytest.raises(UserError, match=message):
        backbone(name, weights)


def test_the_embedded_cnn_sees_33_pixels_on_a_grid_of_24():
    cnn, seen, stride = SceneCNN(8), 1, 1
    for layer in cnn.features:
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            side, step = (v[0] if isinstance(v, tuple) else v for v in (layer.kernel_size, layer.stride))
            seen, stride = seen + (side - 1) * stride, stride * step
    assert (seen, stride) == (33, 4)
    activations, memo = cnn.trunk(torch.randn(2, 3, *cnn.size))
    assert activations.shape == (2, 8, 24, 24)
    assert memo == {}
    assert cnn(torch.randn(2, 3, 48, 80)).shape == (2, len(NAMES))  # other sizes too


def test_grad_cam_of_the_embedded_classifier_is_cam():
    """α is the class's row over Z, whatever the picture, for log-mean-exp pooling as for the mean."""
    cnn = SceneCNN(5, classes=3).double().eval()
    activations = 3 * torch.randn(2, 5, 4, 6, dtype=torch.float64)
    rows = torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    scores, weights = channel_weights(lambda x, index: cnn.classify(x), activations, rows, looped)
    row = cnn.classifier.weight.detach().flatten(1)
    torch.testing.assert_close(weights, row.expand(2, 3, 5) / 24, rtol=1e-12, atol=1e-14)
    cam = torch.einsum("ck,bkhw->bchw", row, activations) + cnn.classifier.bias.detach()[:, None, None]
    torch.testing.assert_close(scores, (3 * cam).exp().mean((2, 3)).log() / 3, rtol=1e-12, atol=1e-12)
    assert (scores >= cam.mean((2, 3))).all()
    assert (scores <= cam.amax((2, 3))).all()


def test_coordinates_and_moments_by_hand():
    activations = torch.tensor([[[[1.0, 2, 3], [4, 5, 6]]]], dtype=torch.float64)
    ones, x, y = coordinates(activations)
    assert ones.tolist() == [[1, 1, 1], [1, 1, 1]]
    assert x.tolist() == [[-1, 0, 1], [-1, 0, 1]]
    assert y.tolist() == [[-1, -1, -1], [1, 1, 1]]
    moments = SceneCNN(1).double().vector(activations, {})
    torch.testing.assert_close(moments, torch.tensor([[21, 4, 9]], dtype=torch.float64) / 6)


def test_moments_stay_together_channel_by_channel():
    activations = torch.rand(2, 3, 4, 5)
    moments = SceneCNN(3).vector(activations, {}).unflatten(1, (3, 3))
    torch.testing.assert_close(moments[..., 0], activations.mean((2, 3)))
    torch.testing.assert_close(moments[:, 1, 1], (activations[:, 1] * torch.linspace(-1, 1, 5)).mean((1, 2)))


def test_first_moments_add_nothing_to_the_channel_weights():
    """A linear head on the moments has the α of one on the mean: x and y have mean zero."""
    cnn, head = SceneCNN(4).double(), nn.Linear(12, 3).double()
    activations = torch.randn(2, 4, 5, 7, dtype=torch.float64)
    rows = torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    _, weights = channel_weights(lambda a, index: head(cnn.vector(a, {})), activations, rows, looped)
    expected = head.weight.detach().unflatten(1, (4, 3))[..., 0] / 35
    torch.testing.assert_close(weights, expected.expand(2, 3, 4), rtol=1e-12, atol=1e-14)


def test_gist_by_hand():
    activations = torch.tensor([[[[1.0, 2], [3, 4]]]], dtype=torch.float64)
    found = gist(activations).unflatten(1, (1, WAVES))[0, 0]
    # Waves are (u, v) = (0, 1), (0, 2) … (3, 3); the factor is 32 / 4, and cos(π/4) = 1/√2.
    assert found[0].item() == pytest.approx(8 * (1 + 3 - 2 - 4) / math.sqrt(2))
    assert found[3].item() == pytest.approx(8 * (1 + 2 - 3 - 4) / math.sqrt(2))  # (1, 0)
    assert found[4].item() == pytest.approx(8 * (1 + 4 - 2 - 3) / 2, abs=1e-12)  # (1, 1)


def test_the_gist_knows_no_mean_so_it_adds_nothing_to_the_channel_weights():
    activations = torch.randn(2, 3, 6, 5, dtype=torch.float64)
    shifted = activations + torch.randn(2, 3, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(gist(shifted), gist(activations), rtol=0, atol=1e-12)
    head = nn.Sequential(nn.Linear(3 * WAVES, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    rows = torch.eye(2, dtype=torch.float64).expand(2, 2, 2)
    _, weights = channel_weights(lambda a, index: head(gist(a)), activations, rows, looped)
    assert weights.abs().max() < 1e-14
    assert (gist(activations) - gist(activations.flip(3))).abs().max() > 0.1  # but what is where


def test_a_place_code_names_every_place_row_by_row():
    code = place_code(torch.zeros(1, 1, 3, 5))
    assert code.shape == (PLACES, 15)
    assert code.abs().max() <= 1
    assert code[0].tolist() == [-1, -0.5, 0, 0.5, 1] * 3
    assert code[1].tolist() == [-1] * 5 + [0] * 5 + [1] * 5
    half = code[2:6]  # sine of x and y, then cosine, of half a turn from edge to edge
    torch.testing.assert_close(half[:, 1], torch.tensor([-math.sqrt(0.5), -1, math.sqrt(0.5), 0]))
    assert len(torch.unique(code, dim=1).T) == 15


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(5)
    model = SceneClassifier()
    return save_model(model, tmp_path_factory.mktemp("weights") / "classifier"), model


def test_the_trunk_takes_the_classifier_s_weights(saved):
    folder, model = saved
    cnn = backbone("scenes")
    load_backbone(cnn, str(folder))
    images = torch.randn(1, 3, 96, 96)
    assert (cnn.eval()(images) == model.eval()(images)).all()


def test_no_weights_leave_the_backbone_as_it_is():
    cnn = SceneCNN(4)
    before = cnn.classifier.weight.clone()
    load_backbone(cnn, None)
    assert (cnn.classifier.weight == before).all()


def test_weights_of_another_backbone_are_refused(saved, tmp_path):
    folder, _ = saved
    with pytest.raises(UserError, match=r"expected weights of SceneCNN, got .*classifier: .*size mismatch"):
        load_backbone(SceneCNN(8), str(folder))
    with pytest.raises(UserError, match="unknown weights folder or name"):
        load_backbone(SceneCNN(), str(tmp_path / "nothing"))
    with pytest.raises(UserError, match=r"expected weights of CutCNN, got .*, which lacks \['lower"):
        load_backbone(CutCNN(timm.create_model("test_efficientnet"), (64, 64)), str(folder))
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("config.json", "model.safetensors"):
        (broken / name).write_bytes((folder / name).read_bytes()[:1000])
    with pytest.raises(UserError, match="expected weights of SceneCNN"):
        load_backbone(SceneCNN(), str(broken))
