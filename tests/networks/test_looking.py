"""The soft maximum over places, its gradient and its floor; and counts."""

import pytest
import torch
from torch.autograd import gradcheck

from mmcam.networks.looking import FLOOR, SHARPNESS, lay_out, soft_maximum, whole


@pytest.fixture
def case():
    look = torch.randn(2, 3, 7, dtype=torch.float64).softmax(2)
    return look, torch.randn(2, 5, 7, dtype=torch.float64) * 4


def seen(look, votes):
    return soft_maximum(look, lay_out(votes))


def test_it_is_the_formula(case):
    look, votes = case
    inside = torch.einsum("bmn,bvn->bmv", look, (SHARPNESS * votes).exp())
    expected = (inside + torch.tensor(SHARPNESS * FLOOR).exp()).log() / SHARPNESS
    torch.testing.assert_close(seen(look, votes), expected)


def test_its_derivatives_are_right_also_at_the_floor(case):
    """Words that are far from what is looked at, and below the floor, are where a careless maximum goes wrong."""
    _, votes = case
    asked = torch.randn(2, 3, 7, dtype=torch.float64) * 20
    votes[:, 0] += 15
    votes[:, 1] -= 15
    inputs = asked.requires_grad_(), votes.requires_grad_()
    assert gradcheck(lambda ask, say: seen(ask.softmax(2), say), inputs, eps=1e-6, atol=1e-6, rtol=1e-5)


def test_the_weights_of_the_places_sum_to_one_above_the_floor(case):
    look, votes = case
    votes = (votes.abs() + 5).requires_grad_()
    (gradient,) = torch.autograd.grad(seen(look, votes)[0, 1, 2], votes)
    assert bool((gradient >= 0).all())
    torch.testing.assert_close(gradient.sum(), torch.tensor(1.0, dtype=torch.float64), rtol=1e-8, atol=0)
    low = (votes.detach() * 0 + FLOOR - 5).requires_grad_()
    (gradient,) = torch.autograd.grad(seen(look, low).sum(), low)
    assert float(gradient.sum()) < 1e-4


@pytest.mark.parametrize("size", [1.0, 30.0, 1000.0])
def test_float32_stays_finite(size):
    look = (torch.randn(2, 3, 50) * 30).softmax(2).requires_grad_()
    votes = (torch.randn(2, 5, 50) * size).requires_grad_()
    values = seen(look, votes)
    gradients = torch.autograd.grad(values.sum(), (look, votes))
    assert all(bool(torch.isfinite(x).all()) for x in (values, *gradients))


def test_counts():
    counts = torch.tensor([0.2, 1.6, 2.9], requires_grad=True)
    for training, slope in ((True, 1.0), (False, 0.0)):
        found = whole(counts, training)
        assert found.tolist() == [0.0, 2.0, 3.0]
        (gradient,) = torch.autograd.grad(found.sum(), counts)
        assert gradient.tolist() == [slope] * 3
