import pytest
import timm
import torch
from torch import nn

from classification.scenes import SceneClassifier
from mmcam.checkpoint import save_model
from mmcam.errors import UserError
from mmcam.networks.backbones import backbone, load_backbone
from mmcam.networks.halves import CutCNN
from mmcam.networks.scene_cnn import SceneCNN


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
