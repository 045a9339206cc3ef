"""The gist and the code of places, by hand."""

import math

import pytest
import torch
from torch import nn

from mmcam.gradients import channel_weights, looped
from mmcam.networks.places import PLACES, WAVES, gist, place_code


def test_gist_by_hand():
    activations = torch.tensor([[[[1.0, 2], [3, 4]]]], dtype=torch.float64)
    found = gist(activations).unflatten(1, (1, WAVES))[0, 0]
    # Waves are (u, v) = (0, 1), (0, 2) … (3, 3); the factor is 32 / 4, and cos(π/4) = 1/√2.
    assert found[0].item() == pytest.approx(8 * (1 + 3 - 2 - 4) / math.sqrt(2))
    assert found[3].item() == pytest.approx(8 * (1 + 2 - 3 - 4) / math.sqrt(2))  # (1, 0)
    assert found[4].item() == pytest.approx(8 * (1 + 4 - 2 - 3) / 2, abs=1e-12)  # (1, 1)


def test_the_gist_knows_no_mean_so_it_adds_nothing_to_the_channel_weights():
    activations = torch.randn(2, 3, 6, 5, dtype=torch.float64)
    shifted = activations + torch.randn(2, 3, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(gist(shifted), gist(activations), rtol=0, atol=1e-12)
    head = nn.Sequential(nn.Linear(3 * WAVES, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    rows = torch.eye(2, dtype=torch.float64).expand(2, 2, 2)
    _, weights = channel_weights(lambda a, index: head(gist(a)), activations, rows, looped)
    assert weights.abs().max() < 1e-14
    assert (gist(activations) - gist(activations.flip(3))).abs().max() > 0.1  # but what is where


def test_a_place_code_names_every_place_row_by_row():
    code = place_code(torch.zeros(1, 1, 3, 5))
    assert code.shape == (PLACES, 15)
    assert code.abs().max() <= 1
    assert code[0].tolist() == [-1, -0.5, 0, 0.5, 1] * 3
    assert code[1].tolist() == [-1] * 5 + [0] * 5 + [1] * 5
    half = code[2:6]  # sine of x and y, then cosine, of half a turn from edge to edge
    torch.testing.assert_close(half[:, 1], torch.tensor([-math.sqrt(0.5), -1, math.sqrt(0.5), 0]))
    assert len(torch.unique(code, dim=1).T) == 15
