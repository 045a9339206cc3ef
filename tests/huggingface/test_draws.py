from contextlib import nullcontext

import pytest
import torch
from torch import nn

from mmcam.huggingface.draws import drawing


def test_a_seed_s_numbers_and_then_the_callers_own():
    model, before = nn.Linear(1, 1), torch.get_rng_state()
    with drawing(model, 3):
        one = torch.rand(4)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one, torch.rand(4, generator=torch.Generator().manual_seed(3)))


def test_only_the_models_own_devices_are_forked_and_seeded(monkeypatch):
    """Of eight GPUs a model lies on two: torch would save, seed and restore all of them."""
    asked = {"states": [], "restored": [], "seeds": []}
    here = []

    class On(nullcontext):
        def __enter__(self):
            here.append(self.enter_result)

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: asked["states"].append(device))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: asked["restored"].append(device))
    monkeypatch.setattr(torch.cuda, "device", On)
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: asked["seeds"].append((here[-1], seed)))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("seeds every device"))

    class Tensor:
        def __init__(self, name):
            self.device = torch.device(name)

    class Model(nn.Module):
        def parameters(self, recurse=True):
            return [Tensor(name) for name in ("cuda:1", "cuda:3", "cpu", "cuda:1")]

    with drawing(Model(), 5):
        assert sorted(map(str, asked["states"])) == ["cuda:1", "cuda:3"]
        assert sorted((str(device), seed) for device, seed in asked["seeds"]) == [("cuda:1", 5), ("cuda:3", 5)]
    assert sorted(map(str, asked["restored"])) == ["cuda:1", "cuda:3"]
