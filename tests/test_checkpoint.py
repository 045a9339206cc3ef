import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from captioning.peers import ImageFirst
from classification.scenes import SceneClassifier
from mmcam import checkpoint
from mmcam.checkpoint import load_model, save_model
from mmcam.errors import UserError


class OtherClassifier(SceneClassifier):
    """Another architecture by name."""


@pytest.fixture
def model():
    model = SceneClassifier(4)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    return model


@pytest.fixture
def folder(model, tmp_path):
    return save_model(model, tmp_path / "weights")


def load(folder):
    return load_model(str(folder), (SceneClassifier,))


def test_what_is_saved_is_loaded(folder, model):
    loaded = load(folder)
    assert type(loaded) is SceneClassifier
    assert not loaded.training
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_a_folder_holds_two_files_and_says_what_it_is(folder):
    assert {path.name for path in folder.iterdir()} >= {"config.json", "model.safetensors"}
    assert not [path for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pkl")]
    config = json.loads((folder / "config.json").read_text())
    assert config == {"architecture": "SceneClassifier", "channels": 4}


def test_saving_again_writes_the_same(folder, model, tmp_path):
    again = save_model(model, tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (folder / name).read_bytes() == (again / name).read_bytes()


def test_a_folder_whose_path_looks_like_a_hub_id_is_a_folder(folder, monkeypatch):
    monkeypatch.chdir(folder.parent.parent)
    monkeypatch.setattr(checkpoint, "hf_hub_download", lambda *_: pytest.fail("asked the hub"))
    assert isinstance(load(f"{folder.parent.name}/{folder.name}"), SceneClassifier)


def test_a_hub_id_is_downloaded(folder, monkeypatch):
    asked = []

    def download(name, file):
        asked.append((name, file))
        return str(folder / file)

    monkeypatch.setattr(checkpoint, "hf_hub_download", download)
    assert isinstance(load("owner/model"), SceneClassifier)
    assert asked == [("owner/model", "config.json"), ("owner/model", "model.safetensors")]


@pytest.mark.parametrize("error", [OSError("no\nnetwork"), ValueError("no such name")])
def test_what_the_hub_does_not_give_is_said_in_one_line(error, monkeypatch):
    def download(name, file):
        raise error

    monkeypatch.setattr(checkpoint, "hf_hub_download", download)
    with pytest.raises(UserError, match="'owner/model' is no folder here, and the hub does not give it: no ") as caught:
        load("owner/model")
    assert "\n" not in str(caught.value)


def test_another_architecture_is_refused_by_name(folder):
    with pytest.raises(UserError, match=r"unknown architecture in .*'SceneClassifier'.*'OtherClassifier'"):
        load_model(str(folder), (OtherClassifier,))


def test_a_config_without_architecture_is_refused(folder):
    (folder / "config.json").write_text('{"channels": 4}')
    with pytest.raises(UserError, match=r"unknown architecture in .*config.json ''"):
        load(folder)


@pytest.mark.parametrize("text", ["", '{"architecture": "Scene', "not JSON"])
def test_a_broken_config_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config.json is not whole JSON"):
        load(folder)


def test_an_argument_that_the_model_does_not_take_is_refused(folder):
    (folder / "config.json").write_text('{"architecture": "SceneClassifier", "depth": 3}')
    with pytest.raises(UserError, match=r"config.json does not fit SceneClassifier: .*depth"):
        load(folder)


def test_weights_of_another_size_are_refused(folder):
    (folder / "config.json").write_text('{"architecture": "SceneClassifier", "channels": 5}')
    with pytest.raises(UserError, match=r"model.safetensors does not hold the weights of a SceneClassifier"):
        load(folder)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_truncated_weights_are_refused(folder, keep):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"model.safetensors does not hold the weights of a SceneClassifier"):
        load(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(folder, value):
    weights = load_file(folder / "model.safetensors")
    weights["density.bias"][3] = value
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"model.safetensors holds NaN or infinity"):
        load(folder)


def test_a_missing_folder_and_a_folder_without_weights_are_told_apart(folder):
    with pytest.raises(UserError, match="unknown weights folder or name"):
        load(folder / "nothing")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"holds config.json and model.safetensors"):
        load(folder)


def test_a_run_that_is_not_there_is_not_sought_on_the_hub(tmp_path, monkeypatch):
    """Without a network that took half a minute of attempts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoint, "hf_hub_download", lambda *_: pytest.fail("asked the hub"))
    with pytest.raises(UserError, match="unknown weights folder or name 'runs/show-and-tell'"):
        load_model("runs/show-and-tell", ())


def test_a_configuration_that_is_no_object(folder):
    (folder / "config.json").write_text("[3]")
    with pytest.raises(UserError, match="expected an object with the key 'architecture', got list"):
        load_model(str(folder), ())


@pytest.mark.parametrize("channels", [10**13, 0, -1, "many", [3], 2.5])
def test_a_configuration_that_asks_for_a_large_model_or_none_is_compared_first(folder, channels):
    """10 ** 13 channels are 5 PB; nothing of that is allocated."""
    (folder / "config.json").write_text(json.dumps({"architecture": "SceneClassifier", "channels": channels}))
    with pytest.raises(UserError, match=r"does not (hold the weights of a|fit) SceneClassifier") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_a_configuration_of_more_layers_than_a_file_can_hold(tmp_path):
    model = ImageFirst(["cat"], {"blocks": [1] * 4, "widths": [2] * 4, "outs": [2] * 4}, 4, 4)
    folder = save_model(model, tmp_path / "weights")
    config = json.loads((folder / "config.json").read_text())
    for change in ({"layers": 10**9}, {"trunk": {**config["trunk"], "blocks": [10**9, 1, 1, 1]}}):
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(UserError, match="expected a model of 50000 parts at most, got more"):
            load_model(str(folder), (ImageFirst,))


def test_tensors_that_are_left_over_or_missing_are_named(folder):
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "more": torch.ones(2)}, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"expected 'more' of shape nothing, got \(2,\)"):
        load(folder)
    save_file({n: x for n, x in weights.items() if n != "density.bias"}, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"expected 'density.bias' of shape \(48,\), got nothing"):
        load(folder)
