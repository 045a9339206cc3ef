import json

import pytest
import torch
from PIL import Image
from torch.nn.functional import softplus

from classification.scenes import Instances, SceneClassifier, SceneClassifierRecipe, SceneTask
from mmcam import explain
from mmcam.checkpoint import load_model, save_model
from mmcam.errors import UserError
from mmcam.networks.scene_cnn import SceneCNN
from mmcam.scenes.kinds import NAMES
from mmcam.scenes.write import scenes, write
from mmcam.task import Sample
from mmcam.training import train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write(folder, "train", 6, seed=7)
    return write(folder, "val", 3, seed=7)


def instances(world, limit=None):
    return Instances(world / "train", world / "annotations" / "instances_train.json", SceneCNN(4), limit)


def test_every_picture_comes_with_the_counts_of_its_things(world):
    data = instances(world)
    assert data.names == NAMES
    assert len(data) == 6
    for i, scene in enumerate(scenes(7, "train", 6)):
        picture, counts = data[i]
        assert picture.shape == (3, 96, 96)
        assert counts.tolist() == [len(scene.of_kind(name)) for name in NAMES]


def test_a_limit_counts_pictures(world):
    few, data = instances(world, 2), instances(world)
    assert len(few) == 2
    assert torch.equal(few[1][1], data[1][1])


def test_a_file_of_another_kind_is_refused(world):
    with pytest.raises(UserError, match=r"captions_train.json lacks \['categories'\]"):
        Instances(world / "train", world / "annotations" / "captions_train.json", SceneCNN(4))
    with pytest.raises(UserError, match=r"instances_none.json is missing"):
        Instances(world / "train", world / "annotations" / "instances_none.json", SceneCNN(4))


def test_entries_that_are_not_whole_are_said_in_one_line(world, tmp_path):
    content = json.loads((world / "annotations" / "instances_train.json").read_text())
    content["annotations"][0]["category_id"] = 99
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"a.json: expected COCO's instances, .*; got an entry that is not whole: 99"):
        Instances(world / "train", tmp_path / "a.json", SceneCNN(4))


def test_other_categories_than_the_classifier_has_are_refused(tmp_path):
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content))
    recipe = SceneClassifierRecipe(str(tmp_path), channels=4)
    with pytest.raises(UserError, match=r"instances_train.json: expected 48 categories, one a logit; got 1"):
        recipe.examples(recipe.build(), CPU)


@pytest.mark.parametrize("name", ["batch_size", "channels", "limit"])
def test_numbers_that_are_none(name):
    with pytest.raises(UserError, match=f"{name}: expected 1 at least, got 0"):
        SceneClassifierRecipe("data", **{name: 0})


def test_counts_are_sums_of_densities():
    model = SceneClassifier(3).double()
    activations = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    density = torch.einsum("ck,bkhw->bchw", model.density.weight.flatten(1), activations)
    expected = softplus(density + model.density.bias[:, None, None] - 5).sum((2, 3))
    torch.testing.assert_close(model.counts(activations), expected, rtol=1e-5, atol=1e-6)
    assert model.counts(torch.zeros(1, 3, 24, 24).double()).max() < 10  # nearly nothing anywhere at first


def test_training_gives_a_classifier_that_is_loaded(world, tmp_path):
    recipe = SceneClassifierRecipe(str(world), epochs=2, batch_size=3, channels=4)
    folder = train(recipe, tmp_path, CPU)
    model = load_model(str(folder), (SceneClassifier,))
    assert model.channels == 4
    assert not model.training
    figures = recipe.measure(model, CPU)
    assert figures.keys() == {"kinds_right", "counts_right"}
    assert "kinds_right" in (folder / "curves.csv").read_text()


def test_it_learns_what_is_in_the_pictures(world):
    """Two steps forth on the same pictures make the loss fall."""
    recipe = SceneClassifierRecipe(str(world), channels=8)
    model = recipe.build().train()
    data = recipe.examples(model, CPU)
    batch = [torch.stack(part) for part in zip(*(data[i] for i in range(6)), strict=True)]
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    losses = []
    for _ in range(12):
        loss = recipe.loss(model, batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_measure_counts_whole_pictures_that_are_right(world):
    """A model that says the truth of the first picture for all is right once."""
    recipe = SceneClassifierRecipe(str(world), channels=4)
    model = SceneClassifier(4).eval()
    truth = torch.tensor([len(next(iter(scenes(7, "val", 1))).of_kind(name)) for name in NAMES]).float()
    model.classify = lambda activations: torch.where(truth > 0, 1.0, -1.0).expand(len(activations), -1)
    model.counts = lambda activations: (truth + 0.3).expand(len(activations), -1)
    assert recipe.measure(model, CPU) == {"kinds_right": pytest.approx(1 / 3), "counts_right": pytest.approx(1 / 3)}


def test_a_saved_classifier_keeps_both_heads(tmp_path):
    model = SceneClassifier(4).eval()
    loaded = load_model(str(save_model(model, tmp_path)), (SceneClassifier,))
    images = torch.randn(1, 3, 48, 48)
    assert torch.equal(loaded(images), model(images))
    assert torch.equal(loaded.counts(loaded.features(images)), model.counts(model.features(images)))


def test_the_task_explains_every_kind_by_its_row(tmp_path):
    """Grad-CAM of the embedded classifier is CAM: each kind's map is its row of the classifier over Z, before ReLU."""
    model = SceneClassifier(6).eval()
    task = SceneTask(str(save_model(model, tmp_path)), top_k=3)
    batch = task.collate([Sample(Image.effect_noise((50, 40), 90).convert("RGB"), "noise")])
    (explanation,) = explain(task, batch, task.given(["dog, frisbee"], batch))
    assert explanation.words == ("dog", "frisbee")
    rows = model.classifier.weight.detach().flatten(1)[[NAMES.index("dog"), NAMES.index("frisbee")]]
    with torch.no_grad():
        activations = model.features(batch.images)
        logits = model(batch.images)[0]
    cam = torch.einsum("rk,khw->rhw", rows, activations[0]) / activations[0, 0].numel()
    torch.testing.assert_close(explanation.signed, cam, rtol=1e-4, atol=1e-7)
    (best,) = explain(task, batch)
    assert best.words == tuple(NAMES[i] for i in logits.argsort(descending=True)[:3])
    torch.testing.assert_close(best.scores, logits.sort(descending=True).values[:3], rtol=1e-4, atol=1e-6)
