import numpy as np
import pytest
import torch
from PIL import Image

import mmcam
from mmcam.errors import UserError
from mmcam.load import choose_device, default_config, explain_image, load_task, weights_sha256
from tests.tiny_task import TinyTask

CONFIG = {"task": {"class_path": "tests.tiny_task.TinyTask"}}


@pytest.fixture
def picture():
    return Image.fromarray(np.random.RandomState(0).randint(0, 256, (30, 40, 3)).astype(np.uint8))


def test_load_task_is_public_and_gives_a_task_ready_to_explain():
    task = mmcam.load_task(CONFIG, layer="conv1", device="cpu")
    assert type(task) is TinyTask
    assert task.layer == "conv1"
    assert not any(module.training for module in task.modules())
    assert task.device == torch.device("cpu")


@pytest.mark.parametrize(("layer", "message"), [("conv3", "unknown layer 'conv3': did you mean 'conv2', 'conv1'")])
def test_what_a_constructor_refuses_is_said_in_its_words(layer, message):
    with pytest.raises(UserError, match=message):
        load_task(CONFIG, layer=layer)


@pytest.mark.parametrize("name", ["readout.weight", "conv1.bias"])
def test_weights_that_are_not_finite(name):
    with pytest.raises(UserError, match=f"expected finite weights, got NaN or infinity in {name}"):
        load_task(CONFIG, spoil=name)


def test_masks_may_be_infinite_and_nothing_may_be_nan():
    child = torch.nn.Module()
    child.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
    load_task(CONFIG, child=child)
    child.register_buffer("mean", torch.tensor([float("nan")]))
    with pytest.raises(UserError, match=r"child.mean"):
        load_task(CONFIG, child=child)


def test_devices(monkeypatch):
    assert choose_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(
        UserError, match="device 'cuda': expected a CUDA device, but there are 0 here; use 'cpu' or 'auto'"
    ):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match="device 'cuda:2': expected a CUDA device, but there are 2"):
        choose_device("cuda:2")


@pytest.mark.parametrize("name", ["cdua", "", "meta", "cuda:x"])
def test_devices_that_are_none(name):
    with pytest.raises(UserError, match="unknown device"):
        choose_device(name)


def test_a_device_is_refused_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="CUDA"):
        load_task({"task": {"class_path": "tests.nowhere.Task"}}, device="cuda")


def test_explain_image_takes_a_path_or_a_picture(tmp_path, picture):
    path = tmp_path / "dog.png"
    picture.save(path)
    one, other = mmcam.explain_image(path, CONFIG), explain_image(picture, CONFIG)
    assert (one.id, other.id) == ("dog", "picture")
    assert one.words == other.words
    assert len(one.words) == 3
    assert one.size == (30, 40)
    assert torch.equal(one.maps, other.maps)


@pytest.mark.parametrize("name", ["caption", "classes", "answer"])
def test_explain_image_of_what_is_given(picture, name):
    explanation = explain_image(picture, CONFIG, **{name: "red dog"})
    assert explanation.words == ("red", "dog")
    assert explanation.prompt == ("red dog" if name == "caption" else "")


def test_explain_image_hands_on_what_it_does_not_know(picture):
    explanation = explain_image(picture, CONFIG, layer="conv1", device="cpu", method="hires_cam", length=1)
    assert (explanation.layer, explanation.method, len(explanation.words)) == ("conv1", "hires_cam", 1)


def test_explain_image_asks(picture):
    explanation = explain_image(picture, CONFIG, question="red dog?", asks=True)
    assert explanation.prompt == "red dog?"
    with pytest.raises(UserError, match="TinyTask takes no question, got 'red dog"):
        explain_image(picture, CONFIG, question="red dog?")
    with pytest.raises(UserError, match="expected a question"):
        explain_image(picture, CONFIG, asks=True)


def test_explain_image_of_two_things_at_once(picture):
    with pytest.raises(UserError, match="expected one of caption, classes and answer, got 2"):
        explain_image(picture, CONFIG, caption="a dog", answer="yes")


def test_the_shipped_configuration_that_fits():
    assert default_config() == "captioning/scenes"
    assert default_config("what?") == "vqa/scenes"
    assert default_config(classes="dog") == "classification/scenes"


def test_the_hash_is_of_names_shapes_and_values():
    task = TinyTask()
    digest = weights_sha256(task)
    assert digest == weights_sha256(TinyTask())
    assert digest != weights_sha256(TinyTask(seed=1))
    assert digest != weights_sha256(TinyTask().to(torch.bfloat16))
    with torch.no_grad():
        task.conv1.bias[0] += 1
    assert digest != weights_sha256(task)


def test_the_configuration_names_the_method(tmp_path):
    from mmcam import Sample, explain
    from tests.dumps.conftest import picture

    config = {"task": {"class_path": "tests.tiny_task.TinyTask"}, "explain": {"method": "layer_cam"}}
    task = load_task(config, device="cpu")
    batch = task.collate([Sample(picture(0), "a")])
    assert explain(task, batch)[0].method == "layer_cam"
    assert explain(task, batch, method="grad_cam")[0].method == "grad_cam"
    other = load_task(config, device="cpu", **{"explain.method": "hires_cam"})
    assert explain(other, batch)[0].method == "hires_cam"
    assert load_task(config, device="cpu", explain__method="hires_cam").method == "hires_cam"
    with pytest.raises(UserError, match="layer_cam"):
        load_task({**config, "explain": {"method": "layer_cm"}}, device="cpu")
    with pytest.raises(UserError, match="method"):
        load_task({**config, "explain": {"metod": "layer_cam"}}, device="cpu")
