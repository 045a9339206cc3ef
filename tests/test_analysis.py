"""Counterfactuals, runners-up, channels by name and the likeness of weights, by hand."""

from dataclasses import replace

import pytest
import torch
from scipy.stats import spearmanr

from classification import ClassificationTask
from mmcam.analysis import Channel, against, cosine, important, over_runner_up, rank, weights_of
from mmcam.engine import explain_activations
from mmcam.errors import UserError
from mmcam.explanation import Explanation
from mmcam.task import Targets
from tests.reference import Classifier, close, make, pictures, ragged, untouched


def case(name="classifier"):
    task, batch = make(name), pictures()
    with torch.no_grad():
        return task, task.trunk(batch), batch


def explanation(weights, words=("dog", "cat")):
    rows = torch.tensor(weights)
    return Explanation(
        "a", "", words[: len(rows)], torch.zeros(len(rows)), torch.zeros(len(rows), 2, 2), (2, 2), (0.0, 0.0, 2.0, 2.0),
        "grad_cam", "", rows,
    )  # fmt: skip


# --- counterfactuals ---


@pytest.mark.parametrize("method", ["grad_cam", "hires_cam", "cam"])
def test_what_speaks_against_is_the_negative_of_what_speaks_for(method):
    task, activations, batch = case()
    targets = ragged()
    plain = explain_activations(task, activations, batch, targets, method)
    counter = against(task, activations, batch, targets, method)
    for e, other in zip(plain, counter, strict=True):
        assert close(other.signed, -e.signed)
        assert close(other.scores, -e.scores)
        assert other.words == tuple(f"against {word}" for word in e.words)


def test_other_methods_are_asked_anew():
    """Of gradients g ≥ 0 layer_cam keeps all, of their negative nothing."""
    task, activations, batch = case()
    with torch.no_grad():
        task.linear.weight.abs_()
    (e, *_) = explain_activations(task, activations, batch, ragged(), "layer_cam")
    (other, *_) = against(task, activations, batch, ragged(), "layer_cam")
    assert e.signed.max() > 0
    assert not other.signed.any()


# --- rather than its runner-up ---


class Second(Classifier):
    def runners_up(self, activations, batch, targets):
        second = targets.second(self.logits(activations, batch)).tolist()
        ids = [row[:count] for row, count in zip(second, targets.mask.sum(1).tolist(), strict=True)]
        return Targets.of(ids, [[f"w{n}" for n in row] for row in ids])


def test_the_second_best_by_hand():
    targets = Targets.of([[0, 2], [1]], [["a", "c"], ["b"]])
    assert targets.second(torch.tensor([[3.0, 1.0, 2.0], [5.0, 4.0, 9.0]])).tolist() == [[2, 0], [2, 2]]
    each = torch.tensor([[[3.0, 1.0, 2.0], [0.0, 8.0, 9.0]], [[1.0, 7.0, 2.0], [0.0, 0.0, 0.0]]])
    assert targets.second(each)[0].tolist() == [2, 1]
    assert targets.second(each)[1, 0] == 2
    with pytest.raises(UserError, match="expected at least 2 answers or classes, to have a runner-up; got 1"):
        targets.second(torch.zeros(2, 1))


def test_rather_than_the_runner_up():
    task, activations, batch = case()
    task.__class__ = Second
    targets = task.predict(activations, batch)  # the best two
    contrasts = over_runner_up(task, activations, batch, targets)
    assert contrasts.foils.tolist() == targets.ids.flip(1).tolist()  # each is the other's runner-up
    first, second = targets.ids[0].tolist()
    assert contrasts.words[0] == (f"class {first} rather than w{second}", f"class {second} rather than w{first}")
    plain = explain_activations(task, activations, batch, targets)
    for e, both in zip(explain_activations(task, activations, batch, contrasts), plain, strict=True):
        assert e.scores[0] > 0 > e.scores[1]
        assert close(e.signed[0], both.signed[0] - both.signed[1])


def test_phrases_and_padding():
    task, activations, batch = case()
    task.__class__ = Second
    targets = ragged((3, 1, 0, 2))
    second = task.runners_up(activations, batch, targets)
    merged = targets.merged([[(0, 3)], [(0, 1)], [], [(0, 1), (0, 2)]])
    contrasts = over_runner_up(task, activations, batch, merged)
    assert contrasts.words[0] == (f"{merged.words[0][0]} rather than {', '.join(second.words[0])}",)
    assert contrasts.words[2] == ()
    assert contrasts.words[3][1].endswith(f" rather than {second.words[3][0]}, {second.words[3][1]}")
    wide = replace(
        targets, ids=torch.nn.functional.pad(targets.ids, (0, 2)), mask=torch.nn.functional.pad(targets.mask, (0, 2)),
        rows=torch.nn.functional.pad(targets.rows, (0, 2)),
    )  # fmt: skip
    assert torch.equal(
        over_runner_up(task, activations, batch, wide).foils[:, :3][targets.mask], second.ids[targets.mask]
    )


def test_classes_have_runners_up():
    linear = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.Flatten(), torch.nn.Linear(3 * 64, 4))
    task = ClassificationTask(linear, "0", labels=["a", "b", "c", "d"], size=8, crop=False).eval()
    batch = replace(pictures(2, dtype=torch.float32), images=torch.randn(2, 3, 8, 8))
    with torch.no_grad():
        activations, order = task.trunk(batch), linear(batch.images).argsort(1, descending=True).tolist()
        second = task.runners_up(activations, batch, Targets.of([row[:2] for row in order], [["x", "y"]] * 2))
    assert second.ids.tolist() == [[row[1], row[0]] for row in order]
    assert second.words == tuple(("abcd"[row[1]], "abcd"[row[0]]) for row in order)


def test_the_task_is_left_as_found():
    task, activations, batch = case()
    task.__class__ = Second
    task.train()
    with untouched(task):
        over_runner_up(task, activations, batch, ragged())
        against(task, activations, batch, ragged())


def test_contrasts_have_no_runner_up():
    task, activations, batch = case()
    for targets in (ragged().negative(), ragged().rather_than(ragged().ids)):
        with pytest.raises(UserError, match="held against nothing yet, got contrasts or counterfactuals"):
            over_runner_up(task, activations, batch, targets)
    with pytest.raises(UserError, match="Classifier does not say what comes second; write runners_up"):
        over_runner_up(task, activations, batch, ragged())


# --- channels ---


def test_the_highest_and_the_lowest_channels():
    dog, cat = important(explanation([[0.5, -1.0, 2.0, 0.0], [1.0, 1.0, 0.0, -2.0]]), count=2)
    assert dog.word == "dog"
    assert dog.most == (Channel(2, "channel 2", 2.0), Channel(0, "channel 0", 0.5))
    assert dog.least == (Channel(1, "channel 1", -1.0), Channel(3, "channel 3", 0.0))
    assert [c.number for c in cat.most] == [0, 1]  # ties in order
    assert [c.number for c in cat.least] == [3, 2]


def test_channels_by_name_and_in_words():
    names = {3: "wheel", 0: "fur", 2: "fur"}
    (dog,) = important(explanation([[0.5, -1.0, 2.0, 0.0]]), names, count=2)
    assert [(c.number, c.name) for c in dog.most] == [(2, "fur"), (0, "fur")]
    assert [(c.number, c.name) for c in dog.least] == [(3, "wheel"), (0, "fur")]  # channel 1 has no name
    assert str(dog) == "dog because of fur; despite wheel, fur"


def test_five_are_enough():
    task, activations, batch = case()
    (e, *_) = explain_activations(task, activations, batch, ragged(), keep_weights=True)
    found = important(e)
    assert [one.word for one in found] == list(e.words)
    for one, row in zip(found, e.weights, strict=True):
        values = sorted(row.tolist())
        assert [c.weight for c in one.most] == values[:-6:-1]
        assert [c.weight for c in one.least] == values[:5]


@pytest.mark.parametrize(
    ("names", "count", "message"),
    [
        ({4: "fur"}, 5, "expected names of some of the channels 0 to 3, got 4 to 4"),
        ({-1: "fur"}, 5, "expected names of some of the channels 0 to 3, got -1 to -1"),
        ({}, 5, "expected names of some of the channels 0 to 3, got none"),
        (None, 0, "expected 1 channel or more on each side, got 0"),
    ],
)
def test_names_that_are_none(names, count, message):
    with pytest.raises(UserError, match=message):
        important(explanation([[0.5, -1.0, 2.0, 0.0]]), names, count)


def test_explanations_without_weights():
    plain = replace(explanation([[1.0]]), weights=None)
    with pytest.raises(
        UserError, match="expected weights in the explanation of 'a', got none; use explain_activations"
    ):
        important(plain)
    with pytest.raises(UserError, match="expected 1 explanation or more"):
        weights_of([])
    with pytest.raises(UserError, match=r"expected weights of the same channels, got \[1, 2\] of them"):
        weights_of([explanation([[1.0]]), explanation([[1.0, 2.0]])])


# --- likeness ---


def test_cosines_by_hand():
    rows = weights_of([explanation([[1.0, 0.0], [3.0, 4.0]]), explanation([[-2.0, 0.0], [0.0, 0.0]])])
    found = cosine(rows)
    expected = torch.tensor([[1, 0.6, -1], [0.6, 1, -0.6], [-1, -0.6, 1]], dtype=torch.float64)
    torch.testing.assert_close(found[:3, :3], expected, rtol=1e-15, atol=1e-15)
    assert found[3].isnan().all()
    assert found[:, 3].isnan().all()


def test_small_weights_have_a_direction_too():
    assert cosine(torch.tensor([[1e-200, 0.0], [1e-200, 1e-200]], dtype=torch.float64))[0, 1] == pytest.approx(2**-0.5)


def test_ranks_are_those_of_scipy():
    weights = torch.randn(6, 20).mul(4).round()  # with ties
    torch.testing.assert_close(rank(weights), torch.from_numpy(spearmanr(weights.T.numpy()).statistic))


def test_ranks_know_only_the_order():
    weights = torch.randn(5, 9, dtype=torch.float64)
    torch.testing.assert_close(rank(weights.exp()), rank(weights))
    assert rank(torch.tensor([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]]))[1].isnan().all()


def test_the_same_word_twice_has_the_same_weights():
    """The head of CAM: α is the class's row of the linear layer, whatever the picture."""
    task, activations, batch = case()
    found = explain_activations(task, activations, batch, Targets.of([[3]] * 4, [["w"]] * 4), keep_weights=True)
    for alike in (cosine, rank):
        torch.testing.assert_close(alike(weights_of(found)), torch.ones(4, 4, dtype=torch.float64))
