import csv
import math

import pytest
import torch
from huggingface_hub import PyTorchModelHubMixin
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import TensorDataset

from mmcam.errors import UserError
from mmcam.training import Recipe, _move, _set_rates, train

CPU = torch.device("cpu")


class Line(nn.Module, PyTorchModelHubMixin):
    """A line with dropout, so that a run depends on torch's random numbers in every step."""

    def __init__(self, inputs: int = 3):
        super().__init__()
        self.drop, self.linear, self.still = nn.Dropout(0.2), nn.Linear(inputs, 1), nn.Linear(1, 1)
        self.still.requires_grad_(False)

    def forward(self, x):
        return self.linear(self.drop(x))


class LineRecipe(Recipe):
    """Learn y = x·(1, 2, 3) + 4 out of 50 points."""

    def __init__(self, seed=0, epochs=4, rate=0.1, batch_size=8, options=None, spoil=None, points=50):
        self.seed, self.epochs, self.rate, self.batch_size = seed, epochs, rate, batch_size
        self.options, self.spoil, self.points = options or {}, spoil, points
        self.steps = []

    def build(self):
        return Line()

    def examples(self, model, device):
        torch.rand(7)  # what a recipe draws here must not matter
        x = torch.randn(self.points, 3, generator=torch.Generator().manual_seed(1))
        return TensorDataset(x, x @ torch.tensor([1.0, 2.0, 3.0]) + 4)

    def loss(self, model, batch):
        assert model.training
        self.steps.append(batch[0].clone())
        if self.spoil is not None and len(self.steps) > 3:
            return model(batch[0]).sum() * self.spoil
        return (model(batch[0])[:, 0] - batch[1]).square().mean()

    def measure(self, model, device):
        assert not model.training
        return {"slope": model.linear.weight[0, 0].item(), "count": 1.0}


def curves(folder):
    with (folder / "curves.csv").open() as file:
        return [{k: float(v) for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupts."""
    return train(LineRecipe(), tmp_path_factory.mktemp("whole"), CPU)


def test_the_loss_falls_on_a_tiny_problem(tmp_path):
    folder = train(LineRecipe(epochs=5, points=400), tmp_path, CPU)  # few epochs: each one draws the curves
    losses = [row["loss"] for row in curves(folder)]
    assert losses[-1] < losses[0] / 4
    line = load_file(folder / "model.safetensors")
    assert (line["linear.weight"] - torch.tensor([[1.0, 2.0, 3.0]])).abs().max() < 1


def test_a_run_leaves_weights_and_curves_and_no_checkpoint(whole):
    names = {path.name for path in whole.iterdir()}
    assert names >= {"config.json", "model.safetensors", "curves.csv", "curves.png"}
    assert not {name for name in names if name.startswith("checkpoint")}
    assert [row["epoch"] for row in curves(whole)] == [1, 2, 3, 4]
    assert curves(whole)[0].keys() == {"epoch", "loss", "slope", "count"}
    with Image.open(whole / "curves.png") as picture:
        assert picture.width > 200


@pytest.mark.parametrize("stops", [[1], [2], [3], [1, 1, 1], [4]])
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one_bit_for_bit(whole, tmp_path, stops):
    for stop in stops:
        torch.rand(stop)  # other random numbers before each start
        train(LineRecipe(), tmp_path, CPU, stop_after=stop)
        assert (tmp_path / "checkpoint.pt").exists() or stop == 4
    if stops != [4]:
        train(LineRecipe(), tmp_path, CPU)
    assert weights(tmp_path) == weights(whole)
    assert curves(tmp_path) == curves(whole)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_kill_within_an_epoch_costs_that_epoch_only(whole, tmp_path):
    train(LineRecipe(), tmp_path, CPU, stop_after=2)
    killed = LineRecipe()
    killed.loss = lambda model, batch: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        train(killed, tmp_path, CPU)
    resumed = LineRecipe()
    train(resumed, tmp_path, CPU)
    assert len(resumed.steps) == 2 * 6
    assert weights(tmp_path) == weights(whole)


def test_a_kill_after_the_last_epoch_still_gives_the_model(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("mmcam.training.save_model", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train(LineRecipe(), tmp_path, CPU)
    monkeypatch.undo()
    train(LineRecipe(), tmp_path, CPU)
    assert weights(tmp_path) == weights(whole)


def test_a_seed_gives_the_same_run_and_another_seed_another(whole, tmp_path):
    torch.manual_seed(99)
    assert weights(train(LineRecipe(), tmp_path / "same", CPU)) == weights(whole)
    assert weights(train(LineRecipe(seed=1), tmp_path / "other", CPU)) != weights(whole)


def test_every_epoch_has_an_order_of_its_own(tmp_path):
    recipe = LineRecipe(epochs=2)
    train(recipe, tmp_path, CPU)
    first, second = torch.cat(recipe.steps[:6]), torch.cat(recipe.steps[6:])
    assert len(recipe.steps) == 12  # 50 points make 6 batches of 8
    assert not torch.equal(first, second)
    assert len(torch.unique(first, dim=0)) == 48


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 0.2}, "rate: 0.1 → 0.2"),
        ({"seed": 1}, "seed: 0 → 1"),
        ({"epochs": 5}, "epochs: 4 → 5"),
        ({"options": {"hidden": 3}}, r"options: \{\} → \{'hidden': 3\}"),
    ],
)
def test_another_recipe_does_not_go_on_in_the_same_folder(tmp_path, change, message):
    train(LineRecipe(), tmp_path, CPU, stop_after=1)
    with pytest.raises(
        UserError, match=rf"checkpoint.pt is of another recipe \({message}\); train into another folder"
    ):
        train(LineRecipe(**change), tmp_path, CPU)


@pytest.mark.parametrize("spoil", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_run(tmp_path, spoil):
    with pytest.raises(UserError, match=r"the loss became -?(nan|inf) in epoch 1; lower `rate`"):
        train(LineRecipe(spoil=spoil), tmp_path, CPU)


def test_fewer_examples_than_a_batch_are_refused(tmp_path):
    with pytest.raises(UserError, match="expected a batch of 8 examples at least, got fewer; lower `batch_size`"):
        train(LineRecipe(points=7), tmp_path, CPU)


def test_frozen_parameters_stay_and_are_not_decayed(whole):
    torch.manual_seed(0)
    fresh = Line()
    assert torch.equal(load_file(whole / "model.safetensors")["still.weight"], fresh.still.weight)


def test_bfloat16_trains_too(tmp_path, whole):
    folder = train(LineRecipe(), tmp_path, CPU, amp=True)
    assert weights(folder) != weights(whole)
    assert curves(folder)[-1]["loss"] == pytest.approx(curves(whole)[-1]["loss"], rel=0.1)


def test_rates_warm_up_and_fall_along_a_cosine():
    optimiser = torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": 1.0, "peak": 2.0}])
    rates = []
    for done in (0.0, 0.025, 0.05, 0.525, 1.0):
        _set_rates(optimiser, done)
        rates.append(optimiser.param_groups[0]["lr"])
    assert rates == pytest.approx([0.002, 1.0, 2.0, 1.0, 0.002])
    _set_rates(optimiser, 0.2)
    assert optimiser.param_groups[0]["lr"] == pytest.approx(1 + math.cos(math.pi * 0.15 / 0.95))


def test_a_nested_batch_is_moved_whole():
    batch = {"a": torch.zeros(2), "b": [torch.ones(1), ("x", torch.ones(1))], "c": 3}
    moved = _move(batch, torch.device("meta"))
    assert moved["a"].is_meta
    assert moved["b"][0].is_meta
    assert moved["b"][1][0] == "x"
    assert moved["b"][1][1].is_meta
    assert moved["c"] == 3


def test_a_damaged_checkpoint_is_one_line(tmp_path):
    for content in (b"", b"PK nothing", b"not a checkpoint"):
        (tmp_path / "checkpoint.pt").write_bytes(content)
        with pytest.raises(UserError, match=r"checkpoint.pt is no checkpoint of mmcam .*delete it") as caught:
            train(LineRecipe(), tmp_path, CPU)
        assert "\n" not in str(caught.value)
    torch.save({"weights": 3}, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match="is no checkpoint of mmcam"):
        train(LineRecipe(), tmp_path, CPU)


def test_a_checkpoint_of_a_machine_with_another_device_is_resumed(tmp_path, whole, monkeypatch):
    train(LineRecipe(), tmp_path, CPU, stop_after=2)
    load = torch.load
    asked = []
    monkeypatch.setattr(
        torch, "load", lambda *a, **options: asked.append(options["map_location"]) or load(*a, **options)
    )
    train(LineRecipe(), tmp_path, CPU)
    assert asked == ["cpu"]
    assert weights(tmp_path) == weights(whole)
