import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.utils.data import DataLoader, Dataset

from mmcam.config import instantiate
from mmcam.scenes.write import write
from mmcam.training import Recipe, processes, train
from mmcam.training.processes import ByNumber, Share, everyones, of_first, share, total

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def as_process(monkeypatch, rank, count):
    monkeypatch.setattr(processes, "rank", lambda: rank)
    monkeypatch.setattr(processes, "count", lambda: count)


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_the_shares_of_every_step_make_the_step(monkeypatch, count):
    rows = []
    for rank in range(count):
        as_process(monkeypatch, rank, count)
        torch.manual_seed(5)
        sampler = Share(range(20), 6)
        rows.append(torch.tensor(list(sampler)).view(3, 6 // count))  # 20 examples make 3 steps of 6
        assert len(sampler) == rows[-1].numel()
    torch.manual_seed(5)
    assert torch.cat(rows, 1).flatten().tolist() == list(torch.utils.data.RandomSampler(range(20)))[:18]


def test_the_order_is_that_of_a_loader_that_shuffles():
    """As the shipped models were trained."""
    torch.manual_seed(5)
    shuffled = torch.cat(list(DataLoader(torch.arange(20), 6, shuffle=True, drop_last=True)))
    torch.manual_seed(5)
    assert torch.equal(torch.cat(list(DataLoader(torch.arange(20), 6, sampler=Share(range(20), 6)))), shuffled)


class Draws(Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return torch.rand(2)


def test_what_an_example_draws_hangs_on_its_number_alone():
    data = ByNumber(Draws(), 7)
    before = torch.get_rng_state()
    first = [data[i] for i in range(3)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(4)
    assert all(torch.equal(data[i], first[i]) for i in (2, 0, 1))
    assert len({tuple(row.tolist()) for row in first}) == 3
    assert not torch.equal(ByNumber(Draws(), 8)[0], first[0])
    assert len(data) == 3


def test_alone_nothing_is_shared_or_joined():
    assert (share([1, 2, 3]), everyones([1, 2]), of_first("a"), total(2.5, CPU)) == ([1, 2, 3], [1, 2], "a", 2.5)


def test_every_nth_item_is_a_process_s(monkeypatch):
    as_process(monkeypatch, 1, 3)
    assert share(list("abcdefg")) == ["b", "e"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write(folder, "train", 8, seed=7, captions_each=3)
    return write(folder, "val", 3, seed=7, captions_each=3)


def test_two_processes_train_as_one_does(world, tmp_path):
    """A captioner: captions of different lengths, a trunk that learns from the second epoch, a step in two parts.

    Both take the same examples a step and draw the same captions: the gradients are equal but for the order of sums.
    """
    arguments = {
        "model": "ShowAndTell",
        "data": str(world),
        "epochs": 2,
        "batch_size": 4,
        "captions_each": 2,
        "trunk_rate": 0.001,
        "trunk_from": 2,
        "judged": 3,
        "best_by": "cider_d",
        "options": {"embedding": 8, "hidden": 8, "dropout": 0.0},
        "steps": {"class_path": "mmcam.training.Steps", "init_args": {"optimiser": "rmsprop", "half_life": 100}},
    }
    config = {"train": {"class_path": "captioning.recipe.CaptionRecipe", "init_args": arguments}}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(config))
    command = f"-m torch.distributed.run --standalone --nproc-per-node 2 -m mmcam train --config {tmp_path}/train.yaml"
    options = f"--out {tmp_path}/two --device cpu --threads 1 --accumulate 2"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    two = subprocess.run(
        [sys.executable, *command.split(), *options.split()], env=environment, capture_output=True, text=True
    )
    assert two.returncode == 0, two.stderr
    assert two.stdout.split() == [f"{tmp_path}/two"]  # the first process alone reports
    recipe = instantiate(config, "train", Recipe)
    one = train(recipe, tmp_path / "one", CPU, workers=1)
    start = recipe.build().state_dict()
    for folder in ("", "best"):
        first, second = (load_file(tmp_path / run / folder / "model.safetensors") for run in ("one", "two"))
        for name, value in first.items():
            torch.testing.assert_close(second[name], value, rtol=1e-3, atol=1e-5, msg=name)
    assert not torch.equal(load_file(one / "model.safetensors")["see.weight"], start["see.weight"])
    rows = [(tmp_path / run / "curves.csv").read_text().split() for run in ("one", "two")]
    assert rows[0][0] == rows[1][0] == "epoch,loss,seconds,val_loss,cider_d"
    for mine, others in zip(rows[0][1:], rows[1][1:], strict=True):
        for column in (0, 1, 3, 4):
            assert float(mine.split(",")[column]) == pytest.approx(float(others.split(",")[column]), rel=1e-4, abs=1e-6)
