import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn.functional import conv2d, interpolate

from mmcam.errors import UserError
from mmcam.metrics.curves import Deletion, Insertion, blur, deletion, insertion
from mmcam.task import Targets
from tests.metrics.linear import Linear, ask, captions, make, of, questions


def naive(task, batch, targets, maps, steps, before, after):
    """Word by word, step by step, picture by picture."""
    width = batch.images.shape[3]
    whole = interpolate(maps, batch.images.shape[2:], mode="bilinear", align_corners=False)
    curves = {}
    for i, words in enumerate(targets.words):
        for r in range(len(words)):
            values = whole[i, r].flatten().tolist()
            pixels = sorted(range(len(values)), key=lambda n: -values[n])  # stable
            picture = before[i].clone()
            done, curve = 0, [ask(task, batch, targets, i, r, picture)]
            for step in range(1, steps + 1):
                until = round(len(values) * step / steps)
                for n in pixels[done:until]:
                    y, x = divmod(n, width)
                    picture[:, y, x] = after[i, :, y, x]
                done = until
                curve.append(ask(task, batch, targets, i, r, picture))
            curves[i, r] = curve
    return curves


@pytest.mark.parametrize(("made", "steps"), [(make, 12), (captions, 5), (questions, 4)])
def test_curves_are_those_of_a_loop_over_words_and_steps(made, steps):
    task, batch, targets = made()
    maps = torch.rand(*targets.rows.shape[:2], 3, 4, dtype=torch.float64)
    taken = deletion(task, batch, targets, maps, steps, fill=0.5)
    shown = insertion(task, batch, targets, maps, steps)
    half = torch.full_like(batch.images, 0.5)
    for curve, ends in ((taken, (batch.images, half)), (shown, (blur(batch.images), batch.images))):
        expected = naive(task, batch, targets, maps, steps, *ends)
        for (i, r), values in expected.items():
            reference = torch.tensor(values, dtype=torch.float64)
            torch.testing.assert_close(curve.scores[i, r], reference[:, 0])
            torch.testing.assert_close(curve.probabilities[i, r], reference[:, 1])
        padding = [(i, r) for i, r in np.ndindex(*targets.rows.shape[:2]) if (i, r) not in expected]
        assert padding
        assert all(curve.scores[i, r].isnan().all() for i, r in padding)


def test_deletion_by_hand():
    # y = 1·a + 2·b + 3·c + 4·d with all pixels 1: 10, then less 4, 3, 2 and 1.
    task = Linear(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
    batch = of(torch.ones(1, 1, 2, 2))
    targets = Targets.of([[0]], [["all"]])
    maps = task.weight.detach()[None, 0]
    curve = deletion(task, batch, targets, maps, steps=4)
    assert curve.shares.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert curve.scores.tolist() == [[[10, 6, 3, 1, 0]]]
    assert curve.areas()[0, 0].tolist() == [1, 3.75]  # one word is certain; (10/2 + 6 + 3 + 1 + 0/2) / 4
    assert deletion(task, batch, targets, -maps, steps=4).areas()[0, 0, 1] == 6.25  # the worst order
    assert insertion(task, batch, targets, maps, 4, start=0 * batch.images).scores.tolist() == [[[0, 4, 7, 9, 10]]]
    assert deletion(task, batch, targets, maps, steps=2).scores.tolist() == [[[10, 3, 0]]]
    assert deletion(task, batch, targets, maps, steps=1).scores.tolist() == [[[10, 0]]]


def test_the_exact_attribution_is_the_best_order_of_a_linear_score():
    task, batch, targets = make()
    exact = task.attributions(batch, targets)
    best = deletion(task, batch, targets, exact, 24).areas()[..., 1]
    drops = exact.flatten(2).sort(2, descending=True).values.cumsum(2)
    whole = exact.flatten(2).sum(2, keepdim=True)
    curve = torch.cat([whole, whole - drops], 2)  # closed form
    torch.testing.assert_close(best[0], torch.trapezoid(curve, dx=1 / 24)[0])
    for _ in range(5):
        others = deletion(task, batch, targets, torch.rand_like(exact), 24).areas()[..., 1]
        assert (others > best)[~best.isnan()].all()


def test_equal_pixels_go_in_reading_order():
    task = Linear(torch.tensor([[[[1.0, 10.0], [100.0, 1000.0]]]]))
    batch, targets = of(torch.ones(1, 1, 2, 2)), Targets.of([[0]], [["all"]])
    for value in (0.0, 0.1, torch.nan):
        curve = deletion(task, batch, targets, torch.full((1, 1, 3, 3), value), steps=4)
        assert curve.scores.tolist() == [[[1111, 1110, 1100, 1000, 0]]]
    ties = torch.tensor([[[[5.0, 5.0], [7.0, 5.0]]]])
    assert deletion(task, batch, targets, ties, steps=4).scores.tolist() == [[[1111, 1011, 1010, 1000, 0]]]


def test_both_ends_are_asked_once_for_all_words():
    task, batch, targets = make()  # 3 and 2 words
    deletion(task, batch, targets, torch.rand(2, 3, 2, 2), steps=28)
    assert sum(task.calls) == 2 + 2 + 5 * 27


def test_a_step_of_28_is_rise_s_at_224_pixels():
    task = Linear(torch.ones(1, 1, 224, 224, dtype=torch.float64))
    batch, targets = of(torch.ones(1, 1, 224, 224, dtype=torch.float64)), Targets.of([[0]], [["all"]])
    curve = deletion(task, batch, targets, torch.rand(1, 1, 7, 7), steps=28)
    torch.testing.assert_close(curve.scores.diff(), torch.full((1, 1, 28), -224.0 * 8, dtype=torch.float64))


def test_blur_is_that_of_rise_s_code():
    point = np.zeros((11, 11))
    point[5, 5] = 1
    kernel = torch.from_numpy(gaussian_filter(point, 5))
    images = torch.randn(2, 3, 20, 17, dtype=torch.float64)
    expected = torch.stack([conv2d(images[:, c : c + 1], kernel[None, None], padding=5)[:, 0] for c in range(3)], 1)
    torch.testing.assert_close(blur(images), expected)


def test_no_words_no_curves():
    task, batch, _ = make()
    targets = Targets.of([[], []], [[], []])
    assert deletion(task, batch, targets, torch.zeros(2, 0, 2, 2)).scores.shape == (2, 0, 29)
    assert task.calls == []
    metric = Deletion()
    metric.update(task, batch, targets, torch.zeros(2, 0, 2, 2), torch.arange(2))
    assert metric.compute()["score"].n == 0
    with pytest.raises(UserError, match="at least 1 step"):
        deletion(task, batch, targets, torch.zeros(2, 0, 2, 2), steps=0)


def test_metrics_keep_the_areas_of_real_words():
    task, batch, targets = make()
    maps = torch.rand(2, 3, 2, 2)
    for metric, curve in ((Deletion(6), deletion), (Insertion(6), insertion)):
        metric.update(task, batch, targets, maps, torch.tensor([4, 5]))
        areas = curve(task, batch, targets, maps, 6).areas()
        expected = torch.cat([areas[0], areas[1, :2]]).float()
        torch.testing.assert_close(metric.kept()[0], expected)
        assert metric.compute()["probability"].value == pytest.approx(expected[:, 0].mean().item(), rel=1e-5)


def test_pixel_flipping_of_quantus_says_the_same():
    quantus = pytest.importorskip("quantus")
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5)).eval()
    images, ids = torch.randn(2, 1, 8, 8), torch.tensor([[3], [1]])
    saliency = torch.rand(2, 1, 8, 8)
    weight = net[1].weight.detach().view(5, 1, 8, 8)
    task = Linear(weight)
    net[1].bias.data.zero_()
    targets = Targets.of(ids.tolist(), [["3"], ["1"]])
    curve = deletion(task, of(images), targets, saliency, steps=8)
    flipping = quantus.PixelFlipping(
        features_in_step=8, perturb_baseline=0.0, disable_warnings=True, normalise=False, abs=False
    )
    theirs = flipping(
        model=net, x_batch=images.numpy(), y_batch=ids[:, 0].numpy(), a_batch=saliency.numpy(), softmax=True
    )
    for i in range(2):
        np.testing.assert_allclose(curve.probabilities[i, 0, 1:].numpy(), np.array(theirs[i]).flatten(), rtol=1e-4)
