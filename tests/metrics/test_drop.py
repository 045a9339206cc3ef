import pytest
import torch
from torch.nn.functional import interpolate

from mmcam.errors import UserError
from mmcam.metrics.drop import Drop, average_drop, gain, increase, scaled, seen_through, top
from mmcam.task import Targets
from tests.metrics.linear import Linear, ask, captions, make, of, questions


def test_the_three_by_hand():
    whole = torch.tensor([0.8, 0.8, 0.5, 0.0, 1.0, 0.0, torch.nan])
    seen = torch.tensor([0.6, 0.9, 0.5, 0.3, 1.0, 0.0, torch.nan])
    nan = torch.nan
    for values, expected in (
        (average_drop(whole, seen), [0.25, 0, 0, nan, 0, nan, nan]),
        (increase(whole, seen), [0, 1, 0, 1, 0, 0, nan]),
        (gain(whole, seen), [0, 0.5, 0, 0.3, 0, 0, nan]),
    ):
        torch.testing.assert_close(values, torch.tensor(expected), equal_nan=True)


def test_masks_by_hand():
    maps = torch.tensor([[[[-1.0, 2.0], [4.0, 0.0]], [[-1.0, -2.0], [0.0, 0.0]]]])
    assert scaled(maps).tolist() == [[[[0, 0.5], [1, 0]], [[0, 0], [0, 0]]]]
    assert top(maps, 0.5).tolist() == [[[[0, 1], [1, 0]], [[0, 0], [1, 1]]]]
    assert top(maps, 0.25).tolist() == [[[[0, 0], [1, 0]], [[0, 0], [1, 0]]]]
    assert scaled(torch.zeros(1, 0, 2, 2)).shape == (1, 0, 2, 2)


@pytest.mark.parametrize("made", [make, captions, questions])
def test_what_is_seen_is_what_a_loop_sees(made):
    task, batch, targets = made()
    masks = torch.rand(*targets.rows.shape[:2], *batch.images.shape[2:], dtype=torch.float64)
    whole, seen = seen_through(task, batch, targets, masks, fill=0.3)
    for i, words in enumerate(targets.words):
        for r in range(len(words)):
            assert whole[i, r].item() == pytest.approx(ask(task, batch, targets, i, r, batch.images[i])[1])
            picture = masks[i, r] * batch.images[i] + (1 - masks[i, r]) * 0.3
            assert seen[i, r].item() == pytest.approx(ask(task, batch, targets, i, r, picture)[1])
    assert whole[1, len(targets.words[1]) :].isnan().all()
    assert seen[1, len(targets.words[1]) :].isnan().all()


def test_the_metric_by_hand():
    # Two words: log-odds of the first are the sum of the picture's four pixels.
    task = Linear(torch.stack([torch.ones(1, 2, 2), torch.zeros(1, 2, 2)]))
    batch, targets = of(torch.tensor([[[[2.0, 1.0], [-1.0, 0.5]]]])), Targets.of([[0, 0, 0]], [["x", "y", "z"]])
    maps = torch.tensor([[[[4.0, 0.0], [0.0, 0.0]], [[8.0, 8.0], [0.0, 8.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    metric = Drop()
    metric.update(task, batch, targets, maps, torch.tensor([0]))
    whole, first, good, none = torch.tensor([2.5, 2.0, 3.5, 0.0]).sigmoid().tolist()
    expected = torch.tensor(
        [
            [(whole - first) / whole, 0, 0],
            [0, 1, (good - whole) / (1 - whole)],
            [(whole - none) / whole, 0, 0],  # a zero map hides everything
        ]
    )
    torch.testing.assert_close(metric.kept()[0], expected)
    figures = metric.compute()
    assert figures["increase"].value == pytest.approx(1 / 3)
    best = Drop(share=0.75)
    best.update(task, batch, targets, maps, torch.tensor([0]))
    assert best.kept()[0][1].tolist() == pytest.approx(expected[1].tolist())


def test_maps_are_brought_to_the_input():
    task, batch, targets = make()
    maps = torch.rand(2, 3, 2, 3, dtype=torch.float64)
    large = interpolate(maps, batch.images.shape[2:], mode="bilinear", align_corners=False)
    whole, seen = seen_through(task, batch, targets, scaled(large))
    values = Drop().measure(task, batch, targets, maps)
    torch.testing.assert_close(values[..., 0], average_drop(whole, seen), equal_nan=True)


def test_a_share_is_a_share():
    with pytest.raises(UserError, match="between 0 and 1, got 50"):
        Drop(share=50.0)


def test_no_words():
    task, batch, _ = make()
    whole, seen = seen_through(task, batch, Targets.of([[], []], [[], []]), torch.zeros(2, 0, 4, 6))
    assert whole.shape == seen.shape == (2, 0)
