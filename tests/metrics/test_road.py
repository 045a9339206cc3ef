import numpy as np
import pytest
import torch

from mmcam.errors import UserError
from mmcam.metrics.perturb import on_input
from mmcam.metrics.road import Road, impute, road
from mmcam.task import Targets
from tests.metrics.linear import Linear, ask, captions, make, of, questions


def filled(image, missing):
    """Every missing pixel is the weighted mean of its neighbours: a dense system, written pixel by pixel."""
    height, width = missing.shape
    lost = [(y, x) for y in range(height) for x in range(width) if missing[y, x]]
    system, known = np.zeros((len(lost), len(lost))), np.zeros((len(lost), len(image)))
    for i, (y, x) in enumerate(lost):
        near = [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
        near = [(v, u) for v, u in near if 0 <= v < height and 0 <= u < width]
        weights = [1 / 6 if v == y or u == x else 1 / 12 for v, u in near]
        system[i, i] = 1
        for (v, u), weight in zip(near, weights, strict=True):
            share = weight / sum(weights)
            if missing[v, u]:
                system[i, lost.index((v, u))] -= share
            else:
                known[i] += share * image[:, v, u]
    result = image.copy()
    for (y, x), values in zip(lost, np.linalg.solve(system, known), strict=True):
        result[:, y, x] = values
    return result


def test_one_pixel_by_hand():
    image = torch.arange(9.0).view(1, 1, 3, 3)
    for place, expected in (((1, 1), 4.0), ((0, 0), (1 / 6 + 3 / 6 + 4 / 12) / (5 / 12)), ((0, 1), 2.5)):
        missing = torch.zeros(1, 3, 3, dtype=torch.bool)
        missing[(0, *place)] = True
        result = impute(image, missing)
        assert result[(0, 0, *place)].item() == pytest.approx(expected)
        assert torch.equal(result[~missing[None]], image[~missing[None]])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_dense_system_says_the_same(share):
    images = torch.randn(2, 3, 7, 9, dtype=torch.float64)
    missing = torch.rand(2, 7, 9) < share
    result = impute(images, missing)
    for i in range(2):
        np.testing.assert_allclose(result[i].numpy(), filled(images[i].numpy(), missing[i].numpy()))


def test_what_is_alike_everywhere_is_filled_perfectly():
    missing = torch.rand(1, 12, 12) < 0.8
    torch.testing.assert_close(impute(torch.full((1, 3, 12, 12), 0.7), missing), torch.full((1, 3, 12, 12), 0.7))
    assert torch.equal(impute(torch.ones(1, 1, 3, 3), torch.zeros(1, 3, 3, dtype=torch.bool)), torch.ones(1, 1, 3, 3))


@pytest.mark.parametrize("made", [make, captions, questions])
def test_curves_are_those_of_a_loop(made):
    task, batch, targets = made()
    maps = torch.rand(*targets.rows.shape[:2], 3, 4, dtype=torch.float64)
    most, least = road(task, batch, targets, maps, shares=(0.25, 0.8), noise=0.05, seed=4)
    large = on_input(maps, batch)
    shape = batch.images.shape[1:]
    grain = 0.05 * torch.randn(shape, generator=torch.Generator().manual_seed(4))
    for i, words in enumerate(targets.words):
        for r in range(len(words)):
            pixels = large[i, r].flatten().argsort(descending=True, stable=True).tolist()
            for s, share in enumerate((0.25, 0.8)):
                count = round(share * len(pixels))
                for curve, gone in ((most, pixels[:count]), (least, pixels[len(pixels) - count :])):
                    missing = torch.zeros(shape[1] * shape[2], dtype=torch.bool)
                    missing[gone] = True
                    missing = missing.view(shape[1:])
                    picture = torch.from_numpy(filled(batch.images[i].numpy(), missing.numpy())) + grain * missing
                    score, probability = ask(task, batch, targets, i, r, picture)
                    assert curve.scores[i, r, s].item() == pytest.approx(score, rel=1e-5, abs=1e-6)
                    assert curve.probabilities[i, r, s].item() == pytest.approx(probability, rel=1e-5)
    assert most.scores[1, len(targets.words[1]) :].isnan().all()
    torch.testing.assert_close(most.shares, torch.tensor([0.25, 0.8]))


def test_the_most_relevant_pixels_hurt_most():
    weight = torch.zeros(2, 1, 8, 8)
    weight[0, 0, 2:4, 2:4] = 1
    task, batch, targets = Linear(weight), of(weight[:1]), Targets.of([[0]], [["square"]])
    good, bad = weight[:1], 1 - weight[:1]
    figures = []
    for maps in (good, bad, 0 * good):
        metric = Road(noise=0.0)
        metric.update(task, batch, targets, maps, torch.tensor([0]))
        figures.append(metric.compute()["score"].value)
    assert figures[0] == 4  # the square is gone at once, or never
    assert figures[1] == -4
    assert -4 < figures[2] < 4
    most, least = road(task, batch, targets, good, noise=0.0)
    assert figures[0] == pytest.approx((least.scores - most.scores).mean().item())
    torch.testing.assert_close(least.scores[0, 0, :9], torch.full((9,), 4.0))  # ties go in reading order


def test_noise_is_seeded_and_the_random_state_left_alone():
    task, batch, targets = make()
    maps, state = torch.rand(2, 3, 2, 2), torch.get_rng_state()
    one, same, other = (road(task, batch, targets, maps, seed=seed)[0].scores[0] for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_shares_are_shares_and_no_words_are_no_curves():
    task, batch, targets = make()
    for shares in ((0.0, 0.5), (1.0,), ()):
        with pytest.raises(UserError, match="between 0 and 1"):
            road(task, batch, targets, torch.rand(2, 3, 2, 2), shares)
    nothing = Targets.of([[], []], [[], []])
    assert road(task, batch, nothing, torch.zeros(2, 0, 2, 2))[0].scores.shape == (2, 0, 9)
