"""Captioners, VQA models and classifiers at any layer of their CNN: the maps are those of plain autograd."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from captioning.models import AttendAndTell, ShowAndTell
from captioning.task import CaptioningTask
from mmcam import explain
from mmcam.cli import main
from mmcam.errors import UserError
from mmcam.networks.backbones import backbone
from mmcam.networks.cut import Trunk
from mmcam.task import Sample
from tests.reference import close
from vqa.models import NormProduct, StackedAttention
from vqa.task import VQATask

WORDS = ["a", "dog", "cat", "two"]


def task(kind, **options):
    torch.manual_seed(0)
    if kind in (NormProduct, StackedAttention):
        model, cls = kind(["what", "?"], ["cat", "dog"], hidden=5), VQATask
    else:
        model, cls = kind(WORDS, embedding=5, hidden=6), CaptioningTask
    model.backbone.size = (32, 48)
    return cls(model.double(), **options)


def collate(task):
    pictures = [Image.effect_noise((40 + i, 30), 80).convert("RGB") for i in range(2)]
    batch = task.collate([Sample(picture, f"p{i}", "what ?") for i, picture in enumerate(pictures)])
    batch = replace(batch, images=batch.images.double())
    return batch, task.given(["a dog", "two cat"] if isinstance(task, CaptioningTask) else ["cat, dog", "dog"], batch)


@pytest.mark.parametrize("layer", ["features.0", "features.6", "backbone.features.10"])
@pytest.mark.parametrize("kind", [AttendAndTell, ShowAndTell, StackedAttention, NormProduct])
def test_maps_of_an_early_layer_are_those_of_autograd(kind, layer):
    found = task(kind, layer=layer)
    assert found.layer == f"backbone.{layer.removeprefix('backbone.')}"
    batch, targets = collate(found)
    explanations = explain(found, batch, targets)

    plain, seen = task(kind), []
    hook = plain.model.get_submodule(found.layer).register_forward_hook(lambda module, x, y: seen.append(y))
    scores = plain.scores(plain.trunk(batch), batch, targets)
    hook.remove()
    for i, explanation in enumerate(explanations):
        assert explanation.layer == found.layer
        assert close(explanation.scores, scores[i, : len(explanation.words)].detach())
        for r, row in enumerate(explanation.signed):
            (gradient,) = torch.autograd.grad(scores[i, r], seen, retain_graph=True)
            expected = (gradient[i].mean((1, 2))[:, None, None] * seen[0][i]).sum(0)
            assert expected.any()
            assert close(row, expected.detach())


@pytest.mark.parametrize("name", ["features", "backbone.features", None])
def test_the_last_map_by_name_is_the_default(name):
    found = task(ShowAndTell, layer=name)
    assert found.layer == "backbone.features"
    batch, targets = collate(found)
    for ours, default in zip(explain(found, batch, targets), explain(task(ShowAndTell), batch, targets), strict=True):
        assert torch.equal(ours.signed, default.signed)


def test_what_is_said_does_not_depend_on_the_layer():
    for kind in (AttendAndTell, StackedAttention):
        batch, _ = collate(task(kind))
        early, late = (explain(task(kind, layer=layer), batch) for layer in ("features.3", None))
        assert [one.words for one in early] == [one.words for one in late]


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "timm/test_convnext"])
def test_layers_have_the_names_that_the_network_gives_them(name):
    cnn = backbone(name).eval()
    layer = {"resnet18": "layer3", "vgg11": "12", "timm/test_convnext": "stages.2"}[name]
    trunk = Trunk(cnn, layer)
    assert trunk.layer == f"backbone.lower.{layer}"
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        activations, memo = trunk.below(images)
        deep, _ = trunk.above(activations, memo)
        torch.testing.assert_close(deep, cnn.trunk(images)[0])
    assert activations.shape[2] > deep.shape[2]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("features.99", "unknown layer 'features.99': did you mean 'features"),
        ("backbone", "unknown layer 'backbone'"),
        ("classifier", "does not run when the model sees a picture.* such as 'backbone.features"),
    ],
)
def test_layers_that_cannot_be_explained(layer, message):
    with pytest.raises(UserError, match=message):
        Trunk(backbone("scenes"), layer).below(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("options", [(), ("--question", "what is above the dog?")])
def test_the_command_line_takes_a_layer(tmp_path, capsys, options):
    picture = tmp_path / "noise.png"
    Image.effect_noise((40, 30), 80).convert("RGB").save(picture)
    words = ["explain", str(picture), "--out", str(tmp_path / "out"), *options]
    assert main([*words, "--layer", "features.10"]) == 0
    assert '"layer": "backbone.features.10"' in (tmp_path / "out" / "noise.json").read_text(encoding="utf-8")
    assert main([*words, "--layer", "layer3"]) == 2
    assert "unknown layer 'layer3': known ones are 'features', 'features.0', 'features.1'" in capsys.readouterr().err
