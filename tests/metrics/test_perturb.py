from dataclasses import replace

import pytest
import torch

from mmcam.errors import UserError
from mmcam.metrics.curves import deletion
from mmcam.metrics.drop import Drop
from mmcam.metrics.occlusion import occlusion_maps
from mmcam.metrics.perturb import is_constant, on_input, order, probabilities, real_rows, respond, scores
from mmcam.task import Targets, Task
from tests.metrics.linear import ask, captions, make, of, questions

BOTH = [scores, probabilities]


@pytest.mark.parametrize("made", [make, captions, questions])
@pytest.mark.parametrize("chunk", [3, 100])
def test_every_picture_is_asked_about_as_if_it_were_alone(made, chunk):
    task, batch, targets = made()
    samples = torch.tensor([1, 0, 0, 1, 0, 1, 1])
    pictures = torch.randn(7, *batch.images.shape[1:], dtype=torch.float64)
    y, p = respond(task, batch, targets, samples, lambda numbers: pictures[numbers], BOTH, chunk)
    assert y.shape == p.shape == (7, targets.rows.shape[1])
    for n, i in enumerate(samples.tolist()):
        for r in range(len(targets.words[i])):
            score, probability = ask(task, batch, targets, i, r, pictures[n])
            assert y[n, r].item() == pytest.approx(score, rel=1e-9, abs=1e-12)
            assert p[n, r].item() == pytest.approx(probability, rel=1e-9)


def test_pictures_come_in_small_groups_when_their_turn_comes():
    task, batch, targets = make()
    made = []

    def images(numbers):
        made.append((numbers.tolist(), sum(task.calls)))
        return batch.images[numbers * 0]

    respond(task, batch, targets, torch.zeros(5, dtype=torch.long), images, [scores], 2)
    assert made == [([0, 1], 0), ([2, 3], 2), ([4], 4)]
    assert task.calls == [2, 2, 1]


def test_probabilities_of_sums_contrasts_and_negatives():
    task, batch, targets = make(b=1)
    whole = lambda targets: respond(task, batch, targets, torch.tensor([0]), lambda n: batch.images[n], BOTH)  # noqa: E731
    words = whole(targets)[1][0]
    torch.testing.assert_close(whole(targets.sentence())[1][0, 0], words.prod())
    torch.testing.assert_close(whole(targets.negative())[1][0], words)
    torch.testing.assert_close(whole(targets.rather_than(targets.ids.roll(1, 1)))[1][0], words)
    contrast = replace(targets, rows=torch.tensor([[[1.0, -1.0, 0.0]]]), words=(("a rather than b",),))
    torch.testing.assert_close(whole(contrast)[1][0, 0], words[0])
    torch.testing.assert_close(whole(contrast)[0][0, 0], whole(targets)[0][0, 0] - whole(targets)[0][0, 1])


def test_an_impossible_word_does_not_spoil_the_others():
    task, batch, targets = make(b=1)
    task.weight.data[targets.ids[0, 1]] = torch.inf
    batch = of(-torch.ones_like(batch.images))
    (y,) = respond(task, batch, targets, torch.tensor([0]), lambda n: batch.images[n], [scores])
    assert y[0, 1] == -torch.inf
    assert y[0, 0].isfinite()


def test_nothing_asked_is_nothing_said():
    task, batch, targets = make()
    y, p = respond(task, batch, targets, torch.zeros(0, dtype=torch.long), lambda n: batch.images[n], BOTH)
    assert y.shape == p.shape == (0, 3)
    assert task.calls == []


def test_targets_belong_to_the_samples():
    task, batch, targets = make()
    one = torch.tensor([0])
    with pytest.raises(UserError, match="targets for 2 samples, got them for 1"):
        respond(task, batch, targets.take(one), one, lambda numbers: batch.images[numbers], BOTH)


@pytest.mark.parametrize("fails", [False, True])
def test_the_task_is_left_as_found(fails):
    task, batch, targets = captions()
    task.train()
    task.model.lstm.eval()
    task.model.readout.weight.requires_grad_(False)
    batch.memo["kept"] = 1
    before = [module.training for module in task.modules()], [p.requires_grad for p in task.parameters()]
    maps, state = torch.rand(2, 6, 3, 4), torch.get_rng_state()
    if fails:
        task.probabilities = None  # not callable
        with pytest.raises(TypeError):
            deletion(task, batch, targets, maps, steps=3)
    else:
        deletion(task, batch, targets, maps, steps=3)
    assert ([module.training for module in task.modules()], [p.requires_grad for p in task.parameters()]) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in task.parameters())
    assert batch.memo == {"kept": 1}
    assert torch.is_grad_enabled()


def test_dropout_is_off_and_the_same_is_said_under_inference_mode():
    task, batch, targets = captions()
    maps = torch.rand(2, 6, 3, 4)
    expected = deletion(task.eval(), batch, targets, maps, steps=3)
    with torch.inference_mode():
        curve = deletion(task.train(), of(batch.images.clone()), targets, maps.clone(), steps=3)
    torch.testing.assert_close(curve.scores, expected.scores, equal_nan=True)
    assert not curve.scores.requires_grad


class Silent(type(make()[0])):
    """Does not say how probable anything is."""

    probabilities = Task.probabilities


def test_who_does_not_say_how_probable_may_still_be_asked_for_scores():
    task, batch, targets = make()
    silent = Silent(task.weight)
    assert occlusion_maps(silent, batch, targets, 2, 2).shape == (2, 3, 2, 3)
    with pytest.raises(UserError, match="Silent does not say how probable its targets are; write probabilities"):
        deletion(silent, batch, targets, torch.rand(2, 3, 2, 2))


def test_order_by_hand():
    maps = torch.tensor([[[[3.0, 1.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    assert order(maps).tolist() == [[[[1, 3], [2, 0]], [[0, 1], [2, 3]]]]


def test_maps_on_the_input_are_upsampled_like_pictures():
    batch = of(torch.zeros(1, 3, 4, 4))
    maps = torch.tensor([[[[0.0, 4.0], [0.0, 4.0]], [[torch.nan, 4.0], [-torch.inf, 4.0]]]])
    large = on_input(maps, batch)
    assert large[0, 0, 0].tolist() == [0, 1, 3, 4]  # bilinear, corners not aligned
    torch.testing.assert_close(large[0, 0], large[0, 1])


def test_a_constant_map_stays_constant():
    batch = of(torch.zeros(1, 3, 37, 53))
    maps = torch.full((1, 1, 7, 5), 0.1)
    assert on_input(maps, batch).unique().numel() == 1
    assert order(on_input(maps, batch)).flatten().tolist() == list(range(37 * 53))
    assert is_constant(maps).tolist() == [[True]]
    assert is_constant(torch.tensor([[[[1.0, 2.0]], [[torch.nan, 0.0]]]])).tolist() == [[False, True]]


def test_real_rows():
    targets = Targets.of([[1, 2], [], [3]], [["a", "b"], [], ["c"]])
    samples, rows, real = real_rows(targets)
    assert samples.tolist() == [0, 0, 2]
    assert rows.tolist() == [0, 1, 0]
    assert real.tolist() == [[True, True], [False, False], [True, False]]


def test_figures_are_streamed_and_padding_does_not_count():
    task, batch, targets = make(b=3)
    maps = torch.rand(3, 3, 2, 3, dtype=torch.float64)
    maps[1, 2:] = maps[2, 1:] = torch.nan  # padding
    metric, whole = Drop(), Drop()
    whole.update(task, batch, targets, maps, torch.tensor([7, 8, 9]))
    for i in range(3):
        one = torch.tensor([i])
        metric.update(task, batch.take(one), targets.take(one), maps[one], torch.tensor([7 + i]))
    assert metric.compute() == whole.compute()
    figure = whole.compute()["increase"]
    assert (figure.n, figure.excluded) == (6, 0)  # 3 + 2 + 1 words
    assert whole.kept()[1].tolist() == [7, 7, 7, 8, 8, 9]
