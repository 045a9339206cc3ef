import builtins

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from mmcam.errors import UserError
from mmcam.metrics.transport import EarthMover, distances, earth_mover
from tests.metrics.test_agreement import case, grids

pytest.importorskip("ot")


def solved(a, b):
    """The transport problem as a linear programme."""
    height, width = a.shape
    n = height * width
    places = [(y, x) for y in range(height) for x in range(width)]
    costs = np.array([[np.hypot(p[0] - q[0], p[1] - q[1]) for q in places] for p in places])
    leaves, arrives = np.zeros((n, n * n)), np.zeros((n, n * n))
    for i in range(n):
        leaves[i, i * n : (i + 1) * n] = 1
        arrives[i, i::n] = 1
    amounts = np.concatenate([a.ravel() / a.sum(), b.ravel() / b.sum()])
    return linprog(costs.ravel(), A_eq=np.concatenate([leaves, arrives]), b_eq=amounts).fun


def test_distances_by_hand():
    assert distances(2, 2)[0].tolist() == pytest.approx([0, 1, 1, 2**0.5])


def test_a_linear_programme_says_the_same():
    a, b = torch.rand(2, 4, 3, 3, dtype=torch.float64)
    a[1, 0] = 0
    values = earth_mover(a, b)
    for i in range(4):
        assert values[i].item() == pytest.approx(solved(a[i].numpy(), b[i].numpy()))


def test_earth_moved_by_hand():
    left, right = torch.zeros(2, 1, 14, 14)
    left[0, 3, 0], right[0, 3, 13] = 2.0, 0.5  # only where matters, not how much
    both = left + right
    assert earth_mover(left, right).tolist() == [13]
    assert earth_mover(left, left).tolist() == [0]
    assert earth_mover(both, right).item() == pytest.approx(13 * 0.8)


def test_a_zero_map_gets_the_worst_and_an_empty_truth_nothing():
    truth = torch.zeros(1, 3, 3)
    truth[0, 0, 0] = 1
    nowhere = torch.stack([truth[0] * 0, truth[0] * torch.nan, -truth[0]])
    worst = 8**0.5  # the opposite corner
    assert earth_mover(nowhere, truth.expand(3, 3, 3)).tolist() == pytest.approx([worst] * 3)
    truth = torch.rand(1, 3, 3)
    corners = torch.eye(9).view(9, 3, 3)
    farthest = earth_mover(corners, truth.expand(9, 3, 3)).max()
    assert earth_mover(0 * truth, truth).item() == pytest.approx(farthest.item())
    assert (earth_mover(torch.rand(50, 3, 3), truth.expand(50, 3, 3)) <= farthest).all()
    assert earth_mover(truth, 0 * truth).isnan().all()


def test_the_metric_is_the_mean_over_people():
    metric = EarthMover()
    maps = grids("ramp", "zero")
    metric.update(case(maps, grids("ramp", "noise", "zero")))
    metric.update(case(maps[:1], None))
    small = maps[:, ::32, ::32]
    people = grids("ramp", "noise")[:, ::32, ::32]
    expected = [earth_mover(small[i].expand(2, -1, -1), people).mean().item() for i in range(2)]
    assert metric.kept()[0][:2].tolist() == pytest.approx(expected, rel=1e-4)
    assert (metric.compute().n, metric.compute().excluded) == (2, 1)


def test_the_missing_package_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "ot":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"POT.*pip install 'mmcam\[evaluate\]'"):
        earth_mover(torch.rand(1, 2, 2), torch.rand(1, 2, 2))
