"""A trunk that is frozen, learns, or does both in turn: with both recipes, on scenes in COCO's and VQA's formats."""

import pytest
import torch
from safetensors.torch import load_file

from captioning.recipe import CaptionRecipe
from classification.scenes import SceneClassifier
from mmcam.checkpoint import save_model
from mmcam.errors import UserError
from mmcam.scenes.write import write
from mmcam.training import Steps, train
from vqa.recipe import VQARecipe

CPU = torch.device("cpu")
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: None)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write(folder, "train", 4, seed=7, captions_each=2, questions_each=3)
    return write(folder, "val", 2, seed=7, captions_each=2, questions_each=3)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    torch.manual_seed(1)
    model = SceneClassifier()
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.02, 0.05)  # so that something comes through
    return save_model(model, tmp_path_factory.mktemp("classifier"))


def caption(world, classifier, **more):
    options = {"epochs": 3, "batch_size": 2, "captions_each": 2, "options": {"embedding": 4, "hidden": 5}}
    return CaptionRecipe("ShowAndTell", str(world), backbone_weights=str(classifier), **{**options, **more})


def vqa(world, classifier, **more):
    sizes = {"embedding": 4, "hidden": 5, "common": 6}
    options = {"epochs": 3, "batch_size": 2, "questions_each": 2, "options": sizes}
    return VQARecipe("NormProduct", str(world), backbone_weights=str(classifier), **{**options, **more})


def trunk(weights):
    return {name.removeprefix("backbone."): v for name, v in weights.items() if name.startswith("backbone.features")}


def saved(folder):
    return trunk(torch.load(folder / "checkpoint.pt", weights_only=True)["model"])


def same(one, other):
    """Which of the trunk's weights, and which of its batch statistics, are the same."""
    statistics = [torch.equal(v, other[name]) for name, v in one.items() if name.endswith(STATISTICS)]
    weights = [torch.equal(v, other[name]) for name, v in one.items() if not name.endswith(STATISTICS)]
    return weights, statistics


@pytest.mark.parametrize("recipe", [caption, vqa])
def test_a_trunk_is_frozen_first_and_learns_then(world, classifier, tmp_path, recipe):
    """Weight decay is on: it must not reach what is frozen. Batch statistics never move."""
    phases = {"trunk_rate": 0.01, "trunk_from": 3, "steps": Steps(decay=0.5)}
    before = load_file(classifier / "model.safetensors")
    train(recipe(world, classifier, **phases), tmp_path, CPU, stop_after=2)
    weights, statistics = same(saved(tmp_path), before)
    assert all(weights)
    assert all(statistics)
    after = trunk(load_file(train(recipe(world, classifier, **phases), tmp_path, CPU) / "model.safetensors"))
    weights, statistics = same(after, before)
    assert not any(weights)
    assert all(statistics)


@pytest.mark.parametrize("recipe", [caption, vqa])
def test_a_kill_in_either_phase_changes_nothing(world, classifier, tmp_path, recipe):
    phases = {"trunk_rate": 0.01, "trunk_from": 2}
    whole = train(recipe(world, classifier, **phases), tmp_path / "whole", CPU)
    for _ in range(3):
        train(recipe(world, classifier, **phases), tmp_path / "killed", CPU, stop_after=1)
    killed = train(recipe(world, classifier, **phases), tmp_path / "killed", CPU)
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.parametrize("recipe", [caption, vqa])
def test_from_pixels_a_frozen_trunk_gives_what_its_kept_activations_give(world, classifier, tmp_path, recipe):
    """The kept ones are computed in bfloat16 and kept in float16."""
    more = {"epochs": 1, "captions_each": 2} if recipe is caption else {"epochs": 1, "questions_each": 3}
    options = {"embedding": 4, "hidden": 5, "dropout": 0.0} | ({} if recipe is caption else {"common": 6})
    kept, read = (
        load_file(
            train(recipe(world, classifier, in_memory=m, options=options, **more), tmp_path / str(m), CPU)
            / "model.safetensors"
        )
        for m in (True, False)
    )
    for weights in (kept, read):
        assert all(all(part) for part in same(trunk(weights), load_file(classifier / "model.safetensors")))
    for name, value in kept.items():
        torch.testing.assert_close(read[name], value, rtol=0.05, atol=2e-3, msg=name)


def test_a_trunk_that_learns_from_the_first_epoch_moves_its_statistics_unless_an_epoch_is_given(
    world, classifier, tmp_path
):
    before = load_file(classifier / "model.safetensors")
    for number, start in enumerate((None, 1)):
        recipe = caption(world, classifier, trunk_rate=0.01, trunk_from=start, epochs=1)
        after = trunk(load_file(train(recipe, tmp_path / str(number), CPU) / "model.safetensors"))
        weights, statistics = same(after, before)
        assert not any(weights)
        assert all(statistics) == (start == 1)


def test_the_trunk_s_parameters_come_in_the_same_order_every_time(world, classifier):
    """Or a checkpoint would give one parameter's moments to another."""
    recipe = caption(world, classifier, trunk_rate=0.01)
    model = recipe.build()
    groups = recipe.rates(model)
    assert [id(p) for p in groups[1]["params"]] == [id(p) for p in model.backbone.parameters()]


def test_phases_that_contradict_themselves(world, classifier):
    with pytest.raises(UserError, match="trunk_from: expected 1 at least, the first epoch, got 0"):
        caption(world, classifier, trunk_rate=0.1, trunk_from=0)
    with pytest.raises(UserError, match="trunk_from: expected a trunk_rate above 0 with it"):
        vqa(world, classifier, trunk_from=3)
