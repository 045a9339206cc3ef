"""Noise on weights, and that a stronger model's maps are told from a weaker one's."""

import pytest
import torch

from classification.data import ClassifiedScenes
from classification.scenes import SceneTask
from mmcam.errors import UserError
from mmcam.experiments.trust import Trust, weaken


def test_noise_is_seeded_relative_to_each_tensor_and_on_a_copy():
    task = SceneTask().eval()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    weaker, same, other = (weaken(task, 0.5, seed) for seed in (1, 1, 2))
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    for name, value in weaker.named_parameters():
        change = (value - before[name]).detach()
        if value.ndim > 1:
            assert change.std() / before[name].std() == pytest.approx(0.5, rel=0.1)
            assert change.mean().abs() < 0.1 * change.std()
            assert torch.equal(value, same.get_parameter(name))
            assert not torch.equal(value, other.get_parameter(name))
        else:
            assert not change.any()
    assert all(torch.equal(value, before[name]) for name, value in weaker.named_buffers())


def test_the_weaker_model_errs_and_its_maps_tell_where_it_is_still_right():
    task, truth = SceneTask().eval(), ClassifiedScenes(count=24)
    table, paired = Trust(noise=0.6).run(task, truth, limit=24, seed=1)
    stronger, weaker = table.rows["stronger"], table.rows["weaker"]
    assert weaker["right, all pictures"].value < stronger["right, all pictures"].value
    assert stronger["mass"].n == weaker["mass"].n <= round(24 * weaker["right, all pictures"].value)
    assert stronger["mass"].value > weaker["mass"].value
    assert stronger["mass"].value > table.rows["uniform"]["mass"].value
    row = paired.rows["stronger less weaker"]
    assert row["mass"].value == pytest.approx(stronger["mass"].value - weaker["mass"].value, abs=1e-6)
    assert paired.rows["stronger is better, ties half"]["iou"].value > 0.5


def test_a_model_is_no_better_than_itself():
    """With noise too small to see, every pairing is a tie."""
    table, paired = Trust(noise=1e-12).run(SceneTask().eval(), ClassifiedScenes(count=3), limit=3, seed=0)
    assert table.rows["stronger"]["mass"].value == pytest.approx(table.rows["weaker"]["mass"].value)
    assert paired.rows["stronger less weaker"]["pointing"].value == 0
    assert paired.rows["stronger is better, ties half"]["pointing"].value == 0.5


def test_no_noise_and_too_much_of_it():
    with pytest.raises(UserError, match="expected noise above 0, got 0"):
        Trust(noise=0.0)
    with pytest.raises(UserError, match="expected pictures that both models get right, found none; take less noise"):
        Trust(noise=1e4).run(SceneTask().eval(), ClassifiedScenes(count=1), limit=1, seed=0)
