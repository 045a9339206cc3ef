from pathlib import Path

import pytest

from mmcam import resources
from mmcam.errors import UserError
from mmcam.resources import config_path, shipped_configs, shipped_weights, weights_path


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An empty package folder inside an empty checkout, which is also where the user stands."""
    folder = tmp_path / "mmcam"
    folder.mkdir()
    monkeypatch.setattr(resources, "_PACKAGE", folder)
    monkeypatch.chdir(tmp_path)
    return folder


def write(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{}")
    return file


def write_weights(folder: Path):
    write(folder / "config.json")
    write(folder / "model.safetensors")


@pytest.mark.parametrize(
    "name",
    ["captioning/scenes", "captioning/scenes.yaml", "configs/captioning/scenes", "./configs/captioning/scenes.yaml"],
)
@pytest.mark.parametrize("place", ["configs", "mmcam/configs"])
def test_shipped_config_by_any_of_its_names(package, monkeypatch, name, place):
    file = write(package.parent / place / "captioning" / "scenes.yaml")
    elsewhere = package.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert config_path(name) == file
    assert config_path(Path(name)) == file


def test_configs_inside_the_package_hide_those_beside_it(package):
    write(package.parent / "configs" / "stranger.yaml")
    inside = write(package / "configs" / "vqa" / "scenes.yaml")
    assert shipped_configs() == {"vqa/scenes": inside}


def test_own_config_wins(package):
    write(package / "configs" / "vqa" / "scenes.yaml")
    write(package.parent / "configs" / "vqa" / "scenes.yaml")
    assert config_path("configs/vqa/scenes.yaml") == Path("configs/vqa/scenes.yaml")


@pytest.mark.parametrize("name", ["captioning/scnes", "configs/captioning/scnes.yaml"])
def test_unknown_config_names_the_nearest(package, name):
    write(package / "configs" / "captioning" / "scenes.yaml")
    with pytest.raises(UserError, match=r"'captioning/scnes': did you mean 'captioning/scenes'\?"):
        config_path(name)


def test_a_folder_is_no_config(package):
    write(package.parent / "configs" / "captioning" / "scenes.yaml")
    with pytest.raises(UserError, match="unknown config"):
        config_path("configs/captioning")


def test_shipped_and_own_weights(package):
    write_weights(package / "weights" / "captioning-scenes")
    assert weights_path("captioning-scenes") == package / "weights" / "captioning-scenes"
    write_weights(package.parent / "captioning-scenes")
    assert weights_path("captioning-scenes") == Path("captioning-scenes")


def test_unknown_weights_name_the_nearest(package):
    write_weights(package / "weights" / "captioning-scenes")
    with pytest.raises(UserError, match=r"did you mean 'captioning-scenes'\?"):
        weights_path("captoning-scenes")


def test_half_a_weights_folder(package):
    write(package / "weights" / "half" / "model.safetensors")
    write_weights(package / "weights" / "whole")
    write(package.parent / "mine" / "config.json")
    assert list(shipped_weights()) == ["whole"]
    with pytest.raises(UserError, match=r"mine lacks one of them.*\(whole\)"):
        weights_path("mine")
