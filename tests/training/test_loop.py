import csv
import math
import sys
from types import ModuleType

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import Dataset

from mmcam.errors import UserError
from mmcam.training import Steps, train
from mmcam.training.loop import _move, precision
from mmcam.training.saved import best_epoch, write
from tests.line import Line, LineRecipe

CPU = torch.device("cpu")


def curves(folder):
    with (folder / "curves.csv").open() as file:
        return [{k: float(v) for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Drawing takes most of the time of a tiny run; the run `whole` has its picture."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: None)


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
    assert len(resumed.batches) == 2 * 6
    assert weights(tmp_path) == weights(whole)


def test_a_kill_after_the_last_epoch_still_gives_the_model(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("mmcam.training.loop.save_model", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train(LineRecipe(), tmp_path, CPU)
    monkeypatch.undo()
    train(LineRecipe(), tmp_path, CPU)
    assert weights(tmp_path) == weights(whole)


def test_a_kill_right_after_the_last_checkpoint_loses_no_row_of_the_curves(whole, tmp_path, monkeypatch):
    def killed(checkpoint, content, recipe):
        write(checkpoint, content, recipe)
        if len(content["curves"]) == recipe.epochs:
            raise KeyboardInterrupt

    monkeypatch.setattr("mmcam.training.loop.write", killed)
    with pytest.raises(KeyboardInterrupt):
        train(LineRecipe(), tmp_path, CPU)
    monkeypatch.undo()
    train(LineRecipe(), tmp_path, CPU)
    assert curves(tmp_path) == curves(whole)
    assert weights(tmp_path) == weights(whole)


def test_a_rank_without_other_processes_is_the_first(tmp_path, monkeypatch):
    """Some schedulers set RANK for jobs of one process too; the run would write nothing."""
    monkeypatch.setenv("RANK", "3")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    train(LineRecipe(epochs=1), tmp_path, CPU)
    assert (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(("name", "best"), [("score", 1), ("val_loss", 2)])
def test_nan_is_never_the_best(name, best):
    assert best_epoch([{name: math.nan}, {name: 2.0}, {name: 1.0}, {name: math.nan}], name) == best


def test_a_seed_gives_the_same_run_and_another_seed_another(whole, tmp_path):
    torch.manual_seed(99)
    assert weights(train(LineRecipe(), tmp_path / "same", CPU)) == weights(whole)
    assert weights(train(LineRecipe(seed=1), tmp_path / "other", CPU)) != weights(whole)


def test_every_epoch_has_an_order_of_its_own(tmp_path):
    recipe = LineRecipe(epochs=2)
    train(recipe, tmp_path, CPU)
    first, second = torch.cat(recipe.batches[:6]), torch.cat(recipe.batches[6:])
    assert len(recipe.batches) == 12  # 50 points make 6 batches of 8
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


class Scored(LineRecipe):
    """As if the epochs measured so."""

    def __init__(self, scores, name="score", **more):
        super().__init__(epochs=len(scores), **more)
        self.scores, self.name = scores, name

    def begin(self, model, epoch):
        self._epoch = epoch

    def measure(self, model, device):
        return {self.name: self.scores[self._epoch - 1]}


def weights_after(tmp_path, epochs, of):
    """The weights of a run that is stopped after some epochs."""
    folder = tmp_path / f"after_{epochs}"
    train(of, folder, CPU, stop_after=epochs)
    return torch.load(folder / "checkpoint.pt", weights_only=True)["model"]["linear.weight"]


@pytest.mark.parametrize(
    ("scores", "name", "best"),
    [([0.1, 0.4, 0.4, 0.2], "score", 2), ([3.0, 1.0, 2.0], "val_loss", 2), ([0.1, 0.2, 0.3], "score", 3)],
)
def test_the_best_epoch_s_weights_are_kept_beside_the_last(tmp_path, scores, name, best):
    folder = train(Scored(scores, name, best_by=name), tmp_path / "run", CPU)
    kept = load_file(folder / "best" / "model.safetensors")["linear.weight"]
    last = load_file(folder / "model.safetensors")["linear.weight"]
    assert torch.equal(kept, last) == (best == len(scores))
    if best < len(scores):
        assert torch.equal(kept, weights_after(tmp_path, best, Scored(scores, name, best_by=name)))
    assert {path.name for path in (folder / "best").iterdir()} >= {"config.json", "model.safetensors"}
    assert not (folder / "best.tmp").exists()


def test_the_best_is_remembered_over_a_kill_also_between_its_two_files(tmp_path, monkeypatch):
    scores = [0.1, 0.9, 0.3]
    whole = train(Scored(scores, best_by="score"), tmp_path / "whole", CPU)
    monkeypatch.setattr("mmcam.training.loop.write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):  # best/ is written, the checkpoint is not
        train(Scored(scores, best_by="score"), tmp_path / "run", CPU)
    monkeypatch.undo()
    train(Scored(scores, best_by="score"), tmp_path / "run", CPU, stop_after=2)
    train(Scored(scores, best_by="score"), tmp_path / "run", CPU)
    assert weights(tmp_path / "run" / "best") == weights(whole / "best")
    assert weights(tmp_path / "run") == weights(whole)


def test_training_ends_when_nothing_becomes_better(tmp_path):
    scores = [0.1, 0.5, 0.4, 0.3, 0.9, 0.9]
    folder = train(Scored(scores, best_by="score", patience=2), tmp_path / "a", CPU)
    assert [row["score"] for row in curves(folder)] == [0.1, 0.5, 0.4, 0.3]
    train(Scored(scores, best_by="score", patience=2), tmp_path / "b", CPU, stop_after=4)
    assert (tmp_path / "b" / "checkpoint.pt").exists()
    train(Scored(scores, best_by="score", patience=2), tmp_path / "b", CPU)
    assert weights(tmp_path / "b") == weights(folder)
    patient = train(Scored(scores, best_by="score", patience=3), tmp_path / "c", CPU)
    assert len(curves(patient)) == 6


def test_what_is_best_must_be_measured(tmp_path):
    with pytest.raises(UserError, match=r"unknown measure in best_by 'slop': did you mean 'slope'"):
        train(LineRecipe(best_by="slop"), tmp_path, CPU)
    with pytest.raises(UserError, match="patience: expected best_by with it"):
        train(LineRecipe(patience=2), tmp_path, CPU)


def test_a_step_in_parts_is_the_whole_step(tmp_path):
    whole = LineRecipe(dropout=0.0)
    parts = LineRecipe(dropout=0.0)
    first = load_file(train(whole, tmp_path / "whole", CPU) / "model.safetensors")
    second = load_file(train(parts, tmp_path / "parts", CPU, accumulate=4) / "model.safetensors")
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-5, atol=1e-6)
    assert [len(batch) for batch in parts.batches] == [2] * (4 * len(whole.batches))
    assert torch.equal(torch.cat(parts.batches[:4]), whole.batches[0])
    assert curves(tmp_path / "parts")[-1]["loss"] == pytest.approx(curves(tmp_path / "whole")[-1]["loss"], rel=1e-5)


class Ragged(LineRecipe):
    """Points of which some count ten times, more of them in one half of a batch than in the other."""

    def counts(self, batch):
        return 1 + 9 * (batch[0][:, 0] > 0)

    def loss(self, model, batch):
        counts = self.counts(batch)
        return (counts * (model(batch[0])[:, 0] - batch[1]).square()).sum() / counts.sum()

    def weight(self, batch):
        return float(self.counts(batch).sum())


def test_parts_count_by_what_their_losses_are_means_over(tmp_path):
    first = load_file(train(Ragged(dropout=0.0), tmp_path / "whole", CPU) / "model.safetensors")
    second = load_file(train(Ragged(dropout=0.0), tmp_path / "parts", CPU, accumulate=2) / "model.safetensors")
    torch.testing.assert_close(second["linear.weight"], first["linear.weight"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("more", "number"), [({"accumulate": 3}, 3), ({"accumulate": 16}, 16)])
def test_a_batch_that_cannot_be_parted_evenly_is_refused(tmp_path, more, number):
    with pytest.raises(
        UserError, match=rf"batch_size: expected a multiple of {number} \(1 processes, {number} parts\)"
    ):
        train(LineRecipe(), tmp_path, CPU, **more)
    with pytest.raises(UserError, match="expected 0 workers and 1 part at least, got -1 and 1"):
        train(LineRecipe(), tmp_path, CPU, workers=-1)


class Drawn(Dataset):
    """Examples that draw."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        if index == 9:
            raise UserError("a.jpg: expected a picture")
        return torch.rand(3), torch.rand(())


class DrawnRecipe(LineRecipe):
    def examples(self, model, device):
        return Drawn()


def test_the_number_of_workers_changes_nothing(tmp_path):
    one = train(DrawnRecipe(epochs=1, batch_size=4), tmp_path / "one", CPU, workers=1)
    two = train(DrawnRecipe(epochs=1, batch_size=4), tmp_path / "two", CPU, workers=2)
    assert weights(one) == weights(two)


class Torn(Drawn):
    def __getitem__(self, index):
        raise UserError("a.jpg: expected a picture")


def test_what_a_worker_cannot_read_is_said_in_one_line(tmp_path):
    recipe = LineRecipe(epochs=1, batch_size=4)
    recipe.examples = lambda model, device: Torn()
    with pytest.raises(UserError, match=r"^a.jpg: expected a picture$"):
        train(recipe, tmp_path, CPU, workers=1)


class Scaled(LineRecipe):
    """In float32 inside: CPUs' float16 is not what is tested. In the third step the gradient overflows."""

    def loss(self, model, batch):
        with torch.autocast("cpu", enabled=False):
            loss = super().loss(model, batch)
        if len(self.batches) == 3:
            loss.register_hook(lambda gradient: gradient * math.inf)
        return loss


def test_float16_scales_losses_and_resumes_with_the_same_scale(tmp_path, monkeypatch):
    monkeypatch.setattr("mmcam.training.loop.precision", lambda device: torch.float16)
    train(Scaled(), tmp_path / "whole", CPU, amp=True, stop_after=3)
    scaler = torch.load(tmp_path / "whole" / "checkpoint.pt", weights_only=True)["scaler"]
    assert (scaler["scale"], scaler["_growth_tracker"]) == (2.0**15, 3 + 12)  # halved once; good steps since then
    train(Scaled(), tmp_path / "run", CPU, amp=True, stop_after=1)
    resumed = Scaled()
    resumed.batches = [None] * 6  # it has overflown already
    train(resumed, tmp_path / "run", CPU, amp=True, stop_after=2)
    again = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert again["scaler"] == scaler
    expected = torch.load(tmp_path / "whole" / "checkpoint.pt", weights_only=True)["model"]
    assert all(torch.equal(again["model"][name], value) for name, value in expected.items())


def test_float16_is_for_gpus_that_only_emulate_bfloat16(monkeypatch):
    assert precision(CPU) is torch.bfloat16
    for able, expected in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, able=able: able)
        assert precision(torch.device("cuda")) is expected


def test_curves_for_tensorboard_go_on_after_a_kill(tmp_path, monkeypatch):
    written = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            written.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            written.append((name, step))

        def flush(self): ...

        def close(self):
            written.append("closed")

    board = ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    train(LineRecipe(epochs=2), tmp_path, CPU, tensorboard=True, stop_after=1)
    names = ["loss", "seconds", "slope", "count"]
    assert written == [(str(tmp_path / "tensorboard"), 1), *[(name, 1) for name in names]]
    train(LineRecipe(epochs=2), tmp_path, CPU, tensorboard=True)
    assert written[5:] == [(str(tmp_path / "tensorboard"), 2), *[(name, 2) for name in names], "closed"]


def test_tensorboard_that_is_not_there_is_asked_for_before_the_first_epoch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    recipe = LineRecipe()
    monkeypatch.setattr(recipe, "examples", None)  # what a frozen trunk computes takes long
    with pytest.raises(UserError, match=r"--tensorboard needs an extra: pip install 'mmcam\[tensorboard\]'"):
        train(recipe, tmp_path, CPU, tensorboard=True)
    assert not recipe.batches


def test_another_optimiser_is_another_recipe(tmp_path):
    train(LineRecipe(), tmp_path, CPU, stop_after=1)
    with pytest.raises(UserError, match=r"steps.optimiser: 'adamw' → 'adam'"):
        train(LineRecipe(steps=Steps("adam")), tmp_path, CPU)
    train(LineRecipe(), tmp_path, CPU, workers=1)  # how examples are loaded is no part of it


def test_two_runs_do_not_train_into_one_folder(tmp_path):
    recipe = LineRecipe(epochs=1)
    recipe.measure = lambda model, device: train(LineRecipe(), tmp_path, CPU)
    with pytest.raises(UserError, match="for this run alone, but another process trains into it"):
        train(recipe, tmp_path, CPU)
    train(LineRecipe(epochs=1), tmp_path, CPU)  # the lock is gone with its holder
