"""The configurations for COCO and VQA v2, end to end: on scenes written in these formats, and on the tiny fixtures."""

import csv
import shutil
from pathlib import Path

import pytest
import torch

from mmcam.cli import main
from mmcam.config import instantiate, read_config
from mmcam.scenes.write import write
from mmcam.training import Recipe, train

CPU = torch.device("cpu")
FILES = Path(__file__).parents[1] / "data" / "annotations"
SMALL = {"epochs": 2, "batch_size": 2, "backbone": "scenes", "backbone_weights": "classification-scenes"}
SIZES = {
    "captioning/train_coco_show_and_tell": {"embedding": 4, "hidden": 5, "dropout": 0.5},
    "captioning/train_coco_attend": {"embedding": 4, "hidden": 5, "dropout": 0.5, "prototypes": 3},
    "vqa/train_vqa_v2_norm_product": {"embedding": 4, "hidden": 5, "common": 6, "dropout": 0.5},
    "vqa/train_vqa_v2_attention": {"hidden": 5, "dropout": 0.5},
}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: None)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write(folder, "train", 4, seed=7)
    return write(folder, "val", 3, seed=7)


def recipe_of(config, /, **changed):
    return instantiate(config, "train", Recipe, {f"train.init_args.{key}": value for key, value in changed.items()})


def last(folder):
    with (folder / "curves.csv").open() as file:
        return {key: float(value) for key, value in list(csv.DictReader(file))[-1].items()}


@pytest.mark.parametrize("name", SIZES)
def test_a_configuration_trains_on_scenes(world, tmp_path, name):
    changed = {**SMALL, "data": str(world), "options": SIZES[name], "train_split": "train", "val_split": "val"}
    if name.startswith("captioning"):
        recipe = recipe_of(name, **changed, karpathy="", trunk_from=2, least_count=1)
        measure = "cider_d"
    else:
        recipe = recipe_of(name, **changed, name="scenes", file_name="scenes_{split}_{{:012d}}.png")
        measure = "vqa_accuracy"
    folder = train(recipe, tmp_path, CPU, workers=1)
    row = last(folder)
    assert row["epoch"] == 2
    assert 0 <= row[measure] <= 10
    assert (folder / "best" / "model.safetensors").exists()
    # What was trained can be explained by the same file, which names the best epoch.
    task = read_config(name)["task"]["init_args"]["model"]
    assert Path(task).name == "best"


def test_karpathy_s_split_of_coco(tmp_path):
    folder = FILES / "karpathy"
    recipe = recipe_of(
        "captioning/train_coco_show_and_tell",
        **SMALL | {"batch_size": 1},
        data=str(folder / "images"),
        karpathy=str(folder / "dataset_coco.json"),
        train_split="restval",
        val_split="test",
        trunk_from=2,
        least_count=1,
        options=SIZES["captioning/train_coco_show_and_tell"],
    )
    assert "cat" in recipe.build().vocabulary
    assert last(train(recipe, tmp_path, CPU))["cider_d"] == 0  # of one picture's document frequencies


def test_coco_s_own_files(tmp_path):
    recipe = recipe_of(
        "captioning/train_coco_attend",
        **SMALL,
        data=str(FILES / "coco_captions"),
        karpathy="",
        train_split="val2014",
        val_split="val2014",
        trunk_from=2,
        least_count=1,
        options=SIZES["captioning/train_coco_attend"],
    )
    assert {"cat", "coffee"} <= set(recipe.build().vocabulary.words)
    assert 0 <= last(train(recipe, tmp_path, CPU))["cider_d"] <= 10


@pytest.mark.parametrize("layout", ["tools", "ours"])
def test_vqa_v2_s_own_files(tmp_path, layout):
    root = FILES / "vqa_v2"
    if layout == "ours":
        shutil.copytree(root / "Images" / "mscoco" / "val2014", tmp_path / "data" / "val2014")
        for part in ("Questions", "Annotations"):
            shutil.copytree(root / part, tmp_path / "data" / "annotations", dirs_exist_ok=True)
        root = tmp_path / "data"
    recipe = recipe_of(
        "vqa/train_vqa_v2_norm_product",
        **SMALL,
        data=str(root),
        train_split="val2014",
        val_split="val2014",
        options=SIZES["vqa/train_vqa_v2_norm_product"],
    )
    row = last(train(recipe, tmp_path / "out", CPU))
    assert 0 <= row["vqa_accuracy"] <= 1


def test_answers_are_judged_by_what_ten_people_said(tmp_path):
    """A model that always says one thing."""
    from vqa.accuracy import vqa_accuracy
    from vqa.data import AskedPictures

    root = str(FILES / "vqa_v2")
    recipe = recipe_of(
        "vqa/train_vqa_v2_norm_product",
        **SMALL,
        data=root,
        train_split="val2014",
        val_split="val2014",
        options=SIZES["vqa/train_vqa_v2_norm_product"],
    )
    model = recipe.build().eval()
    said = model.answers[0]
    with torch.no_grad():
        model.readout[1].bias[0] += 1000
    asked = AskedPictures(root, "val2014").asked
    figures = recipe.measure(model, CPU)
    assert figures["vqa_accuracy"] == pytest.approx(sum(vqa_accuracy(said, q.answers) for q in asked) / len(asked))
    assert figures["val_accuracy"] == pytest.approx(sum(q.answer == said for q in asked) / len(asked))
    assert figures["vqa_accuracy"] > 0


def test_captions_are_judged_against_all_of_people_s(world, monkeypatch):
    """The captions are the model's own greedy ones, in the pictures' order."""
    from captioning.data import CocoCaptions, judge_captions
    from captioning.task import CaptioningTask
    from mmcam.image import read_image
    from mmcam.task import Sample

    recipe = recipe_of(
        "captioning/train_coco_show_and_tell",
        **SMALL,
        data=str(world),
        karpathy="",
        train_split="train",
        val_split="val",
        trunk_from=2,
        least_count=1,
        options=SIZES["captioning/train_coco_show_and_tell"],
    )
    model = recipe.build().eval()
    with torch.no_grad():  # says something
        model.readout.bias[model.vocabulary.encode(["a", "dog", "and"])] += 3
    data = CocoCaptions(world / "val", world / "annotations" / "captions_val.json")
    task = CaptioningTask(model)
    batch = task.collate([Sample(read_image(path), path.stem) for path in data.paths])
    targets = task.predict(task.trunk(batch), batch)
    expected = judge_captions(dict(enumerate(targets.words)), data.captions)["cider_d"].mean().item()
    assert recipe.measure(model, CPU)["cider_d"] == pytest.approx(expected, rel=1e-5)


def test_the_verb_has_all_that_a_large_run_needs(world, tmp_path, capsys):
    words = ["train", "--config", "captioning/train_coco_show_and_tell", "--out", str(tmp_path), "--device", "cpu"]
    changed = {**SMALL, "epochs": 1, "batch_size": 4, "data": str(world), "karpathy": "", "train_split": "train"}
    changed |= {"val_split": "val", "trunk_from": 1, "least_count": 1}
    changed |= {f"options.{key}": value for key, value in SIZES["captioning/train_coco_show_and_tell"].items()}
    words += [f"--train.init_args.{key}={value}" for key, value in changed.items()]
    assert main([*words, "--workers", "1", "--accumulate", "2", "--amp"]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path)]
    assert (tmp_path / "best" / "config.json").exists()
    assert main([*words, "--accumulate", "3"]) == 2
    assert "batch_size: expected a multiple of 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("captioning/train_coco_attend", {"best_by": "cider"}, "unknown measure in best_by 'cider'"),
        ("captioning/train_coco_attend", {"judged": 0}, "unknown measure in best_by 'cider_d'"),
        ("captioning/train_coco_attend", {"judged": -1}, "judged: expected 0 at least, got -1"),
        ("vqa/train_vqa_v2_attention", {"judged": 0}, "unknown measure in best_by 'vqa_accuracy'"),
        ("vqa/train_vqa_v2_attention", {"trunk_from": 2}, "trunk_from: expected a trunk_rate above 0"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_read(name, change, message):
    with pytest.raises(ValueError, match=message):
        recipe_of(name, **change)
