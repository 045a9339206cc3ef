"""Hugging Face's models through the command line: a folder and a YAML file in; strips, JSON and HDF5 out."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from mmcam.cli import main
from mmcam.dumps.reader import MapReader
from tests.huggingface import tiny

pytest.importorskip("transformers")
pytestmark = [pytest.mark.filterwarnings(w) for w in tiny.UNAVOIDABLE]

CAPTION, ANSWER = "captioning.hf.HFCaptioningTask", "vqa.hf.HFVQATask"
SIZES = {"a": (40, 60), "b": (60, 40)}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of saved models, each made when it is first asked for."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name.replace(".", "-"))
            tiny.save(name, made[name])
        return made[name]

    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to stand in, with two pictures of several sizes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for seed, (name, size) in enumerate(SIZES.items()):
        noise = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{name}.png")
    return tmp_path


def written(folder, class_path, **more):
    arguments = {"model": str(folder), **more}
    content = {"task": {"class_path": class_path, "init_args": arguments}, "explain": {"method": "gradient_norm"}}
    Path("mine.yaml").write_text(yaml.safe_dump(content))
    return "mine.yaml"


@pytest.mark.parametrize("name", ["blip", "llava"])
def test_captions_of_a_folder_of_pictures(name, models, here, capsys):
    config = written(models(name), CAPTION, generation={"length": 5}, prompt="" if name == "blip" else "what is this?")
    assert main(["explain", "photos", "--config", config, "--hdf5", "--out", "out"]) == 0, capsys.readouterr().err
    names = {file.name for file in (here / "out").iterdir()}
    assert names == {*(f"{picture}.{kind}" for picture in "ab" for kind in ("png", "json", "npy")), "maps.h5"}
    with MapReader("out/maps.h5") as maps:
        assert maps.method == "gradient_norm"
        for number, (picture, size) in enumerate(SIZES.items()):
            told = json.loads((here / "out" / f"{picture}.json").read_text())
            e = maps[number]
            assert (e.id, e.size) == (picture, size)
            assert 1 <= len(e.words) <= 5
            assert told["words"] == list(e.words)


def test_a_caption_of_the_users_own_and_an_override(models, here, capsys):
    config = written(models("blip"), CAPTION, generation={"length": 5})
    words = ["explain", "photos/a.png", "--config", config, "--caption", "a red dogs on the table", "--out", "out"]
    assert main(words) == 0
    said = json.loads((here / "out" / "a.json").read_text())["words"]
    assert said == ["a", "red", "dogs", "on", "the", "table"]  # "do ##gs" is one word
    assert main([*words[:4], "--task.init_args.generation.length=2", "--out", "short"]) == 0
    assert len(json.loads((here / "short" / "a.json").read_text())["words"]) <= 2
    assert main([*words[:4], "--task.init_args.generation.lenght=1", "--out", "short"]) == 2
    assert "lenght" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["vilt", "qwen2.5-vl"])
def test_answers_to_questions(name, models, here):
    config = written(models(name), ANSWER, generation={"length": 4})
    questions = ["--question", "what is left of the dog?", "--question", "is there a cat?"]
    assert main(["explain", "photos/a.png", "--config", config, *questions, "--out", "out"]) == 0
    names = {file.name for file in (here / "out").iterdir()}
    assert names == {f"a-q{number}.{kind}" for number in (1, 2) for kind in ("png", "json", "npy")}


def test_a_dump_of_several_grids_names_the_way_out_and_the_way_works(models, here, capsys):
    """Qwen2.5-VL's maps have each picture's aspect; a file holds one size."""
    config = written(models("qwen2.5-vl"), CAPTION, generation={"length": 3}, prompt="what is this?")
    dump = ["dump", "--config", config, "--data", "photos", "--workers", "0", "--methods", "grad_cam"]
    assert main([*dump, "--out", "out"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "holds maps of" in line]
    assert "--task.init_args.grid='[24, 24]'" in line
    assert main([*dump, "--out", "again", "--task.init_args.grid=[6, 5]"]) == 0
    with MapReader("again/maps.h5") as maps:
        assert [maps[i].signed.shape[1:] for i in range(2)] == [(6, 5), (6, 5)]


def test_layers_of_a_classifier_from_a_folder(models, here, capsys):
    config = written(models("vit"), "classification.hf.HFClassificationTask", top_k=2)
    assert main(["explain", "photos", "--config", config, "--hdf5", "--out", "out"]) == 0
    assert main(["layers", "--config", config]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  *")]
    assert line.split()[1] == "vit.layers.1.layernorm_before"


@pytest.mark.parametrize(
    ("name", "layer", "message"),
    [
        ("llava", "model.vision_tower", "reads more of its tower than this layer"),
        ("llava", "model.vision_tower.encoder.layers.0", "cannot go on"),
        ("qwen2.5-vl", "model.visual.merger", "in an order of its own"),
        ("blip", "vision_model.encoder.layer.0", "did you mean 'vision_model.encoder.layers.0'"),
    ],
)
def test_a_layer_that_cannot_be_explained_is_one_line(name, layer, message, models, here, capsys):
    config = written(models(name), CAPTION, generation={"length": 2}, prompt="" if name == "blip" else "what is this?")
    capsys.readouterr()
    assert main(["explain", "photos/a.png", "--config", config, "--layer", layer]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mmcam explain")]
    assert message in line


def test_layers_of_a_language_model_cannot_be_listed(models, here, capsys):
    config = written(models("llava"), CAPTION, prompt="what is this?")
    assert main(["layers", "--config", config]) == 2
    assert "cannot be seen from outside" in capsys.readouterr().err


def test_the_doctor_finds_nothing_wrong(models, here, capsys):
    config = written(models("llava"), CAPTION, generation={"length": 2}, prompt="what is this?")
    assert main(["doctor", "--config", config]) == 0, capsys.readouterr().out
