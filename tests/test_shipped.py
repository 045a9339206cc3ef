"""What is shipped: configurations of which every section is right, and trained weights that do what they are for."""

from pathlib import Path

import pytest

from mmcam.config import instantiate, read_config, resolve
from mmcam.load import load_task
from mmcam.quality import Quality
from mmcam.resources import shipped_configs, shipped_weights
from mmcam.task import Task
from mmcam.training import Recipe

CONFIGS = shipped_configs()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_section_of_a_configuration_is_known(name):
    """Nothing is made: the weights of most tasks are trained by the user, or fetched."""
    content = read_config(name)
    for section, base in (("task", Task), ("quality", Quality), ("train", Recipe)):
        if section in content:
            resolve(name, section, base)


@pytest.mark.parametrize("name", [name for name in CONFIGS if "train" in read_config(name)])
def test_every_recipe_can_be_made(name):
    instantiate(name, "train", Recipe)


def test_the_weights_are_small_and_have_a_card():
    folders = shipped_weights()
    assert set(folders) >= {"classification-scenes", "captioning-scenes", "vqa-scenes", "vqa-scenes-blind"}
    assert sum(file.stat().st_size for folder in folders.values() for file in folder.iterdir()) <= 15e6
    card = (Path(__file__).parents[1] / "docs" / "models.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in card for name in folders)


@pytest.mark.parametrize(
    ("task", "floors", "pointing"),
    [
        ("captioning", {"true_captions": 0.6}, "noun_pointing"),
        ("vqa", {"accuracy": 0.85}, "answer_pointing_what"),
        ("classification", {"top_class_right": 0.9}, "class_pointing"),
    ],
)
def test_shipped_models_know_fresh_scenes_and_point_at_the_very_things(task, floors, pointing):
    """Floors that only broken weights fall through; `make quality` measures, on many more scenes."""
    name = f"{task}/scenes"
    figures = instantiate(name, "quality", Quality).measure(load_task(name, device="cpu"), seed=11, limit=16)
    assert all(figures[key] >= floor for key, floor in floors.items()), figures
    assert figures[f"{pointing}_n"] >= 5
    assert figures[pointing] >= 0.7, figures
    for row in ("activation_norm", "flipped", "centre", "random"):
        assert figures[f"{pointing}_{row}"] < figures[pointing] - 0.2, figures
    if task == "vqa":
        assert figures["accuracy_question_only"] < 0.6
