"""`mmcam layers`: the table of a network's layers, which one is explained, and why not the others."""

import pytest
import yaml

from mmcam.cli import main


def layers(capsys, *words):
    assert main(["layers", "--device", "cpu", *words]) == 0
    return capsys.readouterr().out


def rows(text):
    """Lines of the first table by layer, with single spaces."""
    lines = [line.split() for line in text.split("the others")[0].splitlines()[2:]]
    return {words[words[0] == "*"]: " ".join(words) for words in lines}


def test_a_classifier_by_name(capsys):
    text = layers(capsys, "--model", "resnet18", "--task.init_args.size=64")
    assert text.startswith("resnet18: ClassificationTask, layer layer4, input 64 x 64\n")
    found = rows(text)
    assert found["layer4"] == "* layer4 Sequential 512 x 2 x 2 maps 2 x 2"
    assert found["layer3.0.conv1"] == "layer3.0.conv1 Conv2d 256 x 4 x 4 maps 4 x 4"
    assert list(found)[-1] == "layer4"
    assert not {"fc", "avgpool", "layer1.0.relu"} & found.keys()
    assert "  8  runs 2 times in a forward       layer4.1.relu\n" in text
    assert "  1  is 1 x 1, after pooling         avgpool\n" in text


def test_every_layer_in_order_with_its_reason(capsys):
    text = layers(capsys, "--model", "timm/test_vit", "--all", "--task.init_args.size=32")
    found = rows(text)
    assert found["blocks.5.norm1"] == "* blocks.5.norm1 LayerNorm 5 x 64 tokens 2 x 2 + 1"
    assert found["blocks.5"] == "blocks.5 Block 5 x 64 the output does not depend on its places"
    qkv = "blocks.4.attn.qkv Linear 5 x 192 tokens 2 x 2 + 1 is a part of an attention"
    assert found["blocks.4.attn.qkv"] == qkv
    assert list(found).index("blocks.5") > list(found).index("blocks.5.norm1")
    assert "the others" not in text


def test_another_layer_than_the_one_that_is_found(capsys):
    text = layers(capsys, "--model", "resnet18", "--layer", "layer3", "--task.init_args.size=64")
    assert rows(text)["layer3"].startswith("*")
    assert text.endswith("found without a name would be 'layer4'\n")


def test_a_layer_that_cannot_be_explained(capsys):
    text = layers(capsys, "--model", "resnet18", "--layer", "layer1.0.relu", "--task.init_args.size=64")
    assert text.endswith("the layer 'layer1.0.relu': runs 2 times in a forward; better: 'layer4'\n")
    assert rows(text)["layer1.0.relu"].startswith("*")


@pytest.mark.parametrize("config", ["captioning/scenes", "vqa/scenes", "classification/scenes"])
def test_the_shipped_models(capsys, config):
    found = rows(layers(capsys, "--config", config))
    name = "features" if config.startswith("class") else "backbone.features"
    assert found[name] == f"* {name} Sequential 96 x 24 x 24 maps 24 x 24"
    assert found[f"{name}.0"] == f"{name}.0 Conv2d 32 x 48 x 48 maps 48 x 48"


def test_a_task_of_your_own(capsys, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({"task": {"class_path": "tests.tiny_task.TinyTask", "init_args": {"asks": True}}}))
    text = layers(capsys, "--config", str(path), "--question", "a dog?", "--layer", "conv1")
    assert "TinyTask, layer conv1, input 16 x 24\n" in text
    assert rows(text) == {
        "conv1": "* conv1 Conv2d 8 x 8 x 12 maps 8 x 12",
        "conv2": "conv2 Conv2d 8 x 4 x 6 maps 4 x 6",
    }
    assert "gives a vector, without places" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "resnet18", "--config", "vqa/scenes"], "expected --config or --model, got both; leave one out"),
        (
            ["--model", "resnet19"],
            "unknown model (torchvision's by name, timm's as timm/NAME) 'resnet19': did you mean",
        ),
        (["--model", " "], "--model: expected a text"),
        (["--model", "resnet18", "--layer", "layer5"], "unknown layer 'layer5': did you mean 'layer"),
    ],
)
def test_mistakes(capsys, words, message):
    assert main(["layers", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_configuration_can_be_printed(capsys):
    printed = yaml.safe_load(layers(capsys, "--model", "resnet18", "--layer", "layer3", "--print_config"))
    assert printed["task"]["init_args"]["model"] == "resnet18"
    assert printed["task"]["init_args"]["layer"] == "layer3"
