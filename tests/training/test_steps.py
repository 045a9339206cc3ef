import math

import pytest
import torch
from torch import nn

from mmcam.errors import UserError
from mmcam.training import Steps


def test_rates_warm_up_and_fall_along_a_cosine():
    steps = Steps()
    optimiser = steps.make([{"params": [nn.Parameter(torch.zeros(1))], "lr": 2.0}])
    rates = []
    for done in (0, 25, 50, 525, 1000):
        steps.set_rates(optimiser, done, 1000)
        rates.append(optimiser.param_groups[0]["lr"])
    assert rates == pytest.approx([0.002, 1.0, 2.0, 1.0, 0.002])
    assert steps.factor(200, 1000) == pytest.approx((1 + math.cos(math.pi * 0.15 / 0.95)) / 2)


def test_a_half_life_and_no_change():
    steps = Steps(half_life=50.0)
    assert [steps.factor(n, 1000) for n in (0, 50, 100, 25)] == pytest.approx([1, 0.5, 0.25, math.sqrt(0.5)])
    assert [Steps(constant=True).factor(n, 10) for n in (0, 5, 10)] == [1, 1, 1]


def test_the_half_life_of_the_vqa_paper_s_code_is_its_factor_a_step():
    assert Steps(half_life=28786.0).factor(1, 2) == pytest.approx(0.99997592083, abs=1e-9)


def test_each_group_has_its_own_highest_rate():
    steps = Steps(half_life=1.0)
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimiser = steps.make([{"params": [a], "lr": 1.0}, {"params": [b], "lr": 0.01}])
    for done in (1, 2):  # the rate before does not matter
        steps.set_rates(optimiser, done, 10)
    assert [group["lr"] for group in optimiser.param_groups] == pytest.approx([0.25, 0.0025])


@pytest.mark.parametrize(("name", "kind"), [("adamw", "AdamW"), ("adam", "Adam"), ("rmsprop", "RMSprop")])
def test_optimisers_get_their_numbers(name, kind):
    steps = Steps(name, decay=0.3, betas=(0.8, 0.99))
    optimiser = steps.make([{"params": [nn.Parameter(torch.zeros(1))], "lr": 0.1}])
    assert type(optimiser).__name__ == kind
    group = optimiser.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.1, 0.3)
    if name != "rmsprop":
        assert group["betas"] == (0.8, 0.99)


def test_long_gradients_are_shortened_or_clamped():
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([30.0, -40.0])
    Steps(clip=5.0).shorten([parameter])
    torch.testing.assert_close(parameter.grad, torch.tensor([3.0, -4.0]))
    Steps(clip=1.0, clamp=3.5).shorten([parameter])
    torch.testing.assert_close(parameter.grad, torch.tensor([3.0, -3.5]))


def test_choices_that_are_none():
    with pytest.raises(UserError, match=r"steps.clamp: expected more than 0, got 0"):
        Steps(clamp=0.0)
    with pytest.raises(UserError, match=r"steps: expected a constant rate or one with a half-life, got both"):
        Steps(half_life=3.0, constant=True)
