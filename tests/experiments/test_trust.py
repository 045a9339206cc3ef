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


def test_the_weaker_models_err_and_cover_less_of_things_also_where_they_are_right():
    task, truth = SceneTask().eval(), ClassifiedScenes(count=20)
    table, paired = Trust(noise=0.6, draws=2).run(task, truth, limit=20, seed=1)
    for name in ("weaker 1", "weaker 2"):
        stronger, weaker = table.rows[f"stronger, where {name} says the same"], table.rows[name]
        assert weaker["right, all pictures"].value < stronger["right, all pictures"].value
        assert stronger["iou"].n == weaker["iou"].n <= round(20 * weaker["right, all pictures"].value)
        assert stronger["iou"].excluded == 0
        assert stronger["mass"].value > table.rows["uniform"]["mass"].value
        row = paired.rows[f"stronger less {name}"]
        assert row["iou"].value == pytest.approx(stronger["iou"].value - weaker["iou"].value, abs=1e-6)
        assert row["iou"].low > 0
        assert paired.rows[f"stronger is better than {name}, ties half"]["iou"].value > 0.6
    assert table.rows["weaker 1"] != table.rows["weaker 2"]


def test_a_model_is_no_better_than_itself():
    """With noise too small to see, every pairing is a tie."""
    table, paired = Trust(noise=1e-12, draws=1).run(SceneTask().eval(), ClassifiedScenes(count=3), limit=3, seed=0)
    stronger, weaker = table.rows["stronger, where weaker 1 says the same"], table.rows["weaker 1"]
    assert stronger["mass"].value == pytest.approx(weaker["mass"].value)
    assert paired.rows["stronger less weaker 1"]["pointing"].value == 0
    assert paired.rows["stronger is better than weaker 1, ties half"]["pointing"].value == 0.5


def test_no_noise_and_too_much_of_it():
    with pytest.raises(UserError, match="expected noise above 0 and 1 draw at least, got 0"):
        Trust(noise=0.0)
    with pytest.raises(UserError, match="expected pictures that both models get right, found none; take less noise"):
        Trust(noise=1e4).run(SceneTask().eval(), ClassifiedScenes(count=1), limit=1, seed=0)
