"""Words heard, on tasks small enough to be computed by hand."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from mmcam.engine import explain_activations
from mmcam.errors import UserError
from mmcam.explanation import Explanation
from mmcam.gradients import batched, looped, replicated
from mmcam.heard import (
    METHODS,
    gradient_times_embedding,
    integrated_gradients,
    scores_without_picture,
    shares,
    with_words,
)
from mmcam.task import Batch, Heard, Targets, Task
from tests.reference import close, untouched

WORDS = ("red", "dog", "sky")
VECTORS = [[1.0, 2.0], [3.0, -1.0], [0.0, 5.0]]
READ = [[1.0, 1.0], [2.0, -1.0]]  # of each class: what it reads off a word's vector


class Bag(Task):
    """y = a · see + Σ_j e_j · read + gate · a · Σ_j e_j · read, with a the mean of the activations."""

    layer = "all"

    def __init__(self, see=1.0, hear=1.0, gate=0.0, vjp=batched):
        super().__init__()
        self.hear = nn.Embedding.from_pretrained(torch.tensor(VECTORS, dtype=torch.float64))
        self.factors, self.vjp = (see, hear, gate), vjp
        self.drop = nn.Dropout(0.5)
        self.asked = []
        self.eval()

    def collate(self, samples):
        raise NotImplementedError

    def trunk(self, batch):
        return batch.images

    def predict(self, activations, batch):
        return Targets.of([[0, 1]] * len(batch), [["zero", "one"]] * len(batch))

    def scores(self, activations, batch, targets):
        return self.scores_heard(activations, batch, targets, self.hear(batch.inputs["words"]))

    def heard(self, batch, targets):
        rows = zip(batch.inputs["words"].tolist(), batch.inputs["lengths"].tolist(), strict=True)
        return Heard(tuple(tuple(WORDS[n] for n in row[:k]) for row, k in rows), self.hear(batch.inputs["words"]))

    def scores_heard(self, activations, batch, targets, vectors):
        self.asked.append(len(vectors))
        see, hear, gate = self.factors
        index = torch.arange(len(batch)).repeat_interleave(len(vectors) // len(batch))
        length = torch.arange(vectors.shape[1]) < batch.inputs["lengths"][index, None]
        said = (self.drop(vectors) * length[..., None]).sum(1) @ torch.tensor(READ, dtype=vectors.dtype).T  # (n, 2)
        seen = activations.mean((1, 2, 3))[index, None]
        return targets.take(index).pick(see * seen + hear * said + gate * seen * said)


class Squared(Bag):
    """Not linear in the words: y = (Σ_j e_j · read)³."""

    def scores_heard(self, activations, batch, targets, vectors):
        return super().scores_heard(activations, batch, targets, vectors) ** 3


def case(words=((0, 1), (2,)), mean=(4.0, 2.0)):
    lengths = torch.tensor([len(row) for row in words])
    numbers = torch.tensor([[*row, *[0] * (int(lengths.max()) - len(row))] for row in words])
    images = torch.tensor(mean, dtype=torch.float64).view(-1, 1, 1, 1).expand(-1, 1, 2, 3).clone()
    ids = tuple(f"picture {i}" for i in range(len(words)))
    batch = Batch(images, ids, ((2, 3),) * len(words), inputs={"words": numbers, "lengths": lengths})
    targets = Targets.of([[0, 1], [1]], [["zero", "one"], ["one"]])
    return images, batch, targets


@pytest.mark.parametrize("method", METHODS.values())
def test_what_each_word_adds_to_a_linear_score(method):
    """Both methods give e · read: of red (1, 2) and dog (3, -1) by (1, 1) and (2, -1), of sky (0, 5) by (2, -1)."""
    found = method(Bag(), *case())
    expected = torch.tensor([[[3, 2], [0, 7]], [[-5, 0], [0, 0]]], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)


def test_what_is_linear_is_complete():
    task, (a, batch, targets) = Bag(), case()
    silent = task.scores_heard(a, batch, targets, torch.zeros(2, 2, 2, dtype=torch.float64))
    expected = task.scores(a, batch, targets) - silent
    rows = gradient_times_embedding(task, a, batch, targets).sum(2)
    assert close(rows[0], expected[0])
    assert close(rows[1, :1], expected[1, :1])


@pytest.mark.parametrize("baseline", [0.0, torch.tensor([0.5, -2.0])])
def test_integrated_gradients_are_complete(baseline):
    """Of a cubic three nodes are more than enough; one node takes the slope in the middle."""
    task, (a, batch, targets) = Squared(see=0.0), case()
    vectors = task.heard(batch, targets).vectors
    without = task.scores_heard(a, batch, targets, torch.as_tensor(baseline).double().expand_as(vectors))
    expected = task.scores(a, batch, targets) - without
    rows = integrated_gradients(task, a, batch, targets, baseline, steps=3).sum(2)
    torch.testing.assert_close(rows[0], expected[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(rows[1, 0], expected[1, 0], rtol=1e-12, atol=1e-12)


def test_one_step_takes_the_slope_in_the_middle():
    """y = s³ with s = 5 for (red, dog) and read (1, 1): at half of it the slope is 3 · 2.5², times 3 and 2."""
    found = integrated_gradients(Squared(see=0.0), *case(), steps=1)
    assert found[0, 0].tolist() == pytest.approx([3 * 6.25 * 3, 3 * 6.25 * 2])


def test_contrasts_and_sentences_are_explained_too():
    task, (a, batch, targets) = Bag(), case()
    single = gradient_times_embedding(task, a, batch, targets)
    whole = gradient_times_embedding(task, a, batch, targets.sentence())
    assert close(whole[0, 0], single[0].sum(0))
    contrast = gradient_times_embedding(task, a, batch, targets.rather_than(1 - targets.ids))
    assert close(contrast[0, 0], single[0, 0] - single[0, 1])


@pytest.mark.parametrize("vjp", [batched, looped, replicated])
@pytest.mark.parametrize("method", METHODS.values())
def test_however_it_is_differentiated(vjp, method):
    assert close(method(Squared(vjp=vjp), *case()), method(Squared(vjp=looped), *case()))


def test_all_steps_share_a_pass_if_they_fit(monkeypatch):
    task = Squared()
    whole = integrated_gradients(task, *case(), steps=12)
    assert task.asked == [24]
    monkeypatch.setattr("mmcam.methods.listening.HEADS_AT_ONCE", 10)
    task = Squared()
    assert close(integrated_gradients(task, *case(), steps=12), whole)
    assert task.asked == [10, 10, 4]  # of two samples


@pytest.mark.parametrize(
    ("see", "hear", "gate", "image"),
    [
        (1.0, 0.0, 0.0, 1),  # ignores the words
        (0.0, 1.0, 0.0, 0),  # ignores the picture
        (1.0, 1.0, 0.0, 4 / 9),  # 4 seen, 5 heard
        (-1.0, 1.0, 0.0, 4 / 9),  # as much against it
        (0.0, 0.0, 1.0, 1 / 2),  # only both together say something
        (1.0, 1.0, 1.0, 14 / 29),  # of the 20 that both give, each gets half: 14 and 15
    ],
)
def test_shares_by_hand(see, hear, gate, image):
    found = shares(Bag(see, hear, gate), *case())
    assert found.image[0, 0].item() == pytest.approx(image, abs=1e-15)
    assert close(found.seen + found.heard, found.both - found.neither)


def test_the_share_of_what_ignores_both_is_unknown():
    assert shares(Bag(0.0, 0.0, 0.0), *case()).image.isnan().all()


def test_padded_rows_have_no_share():
    assert shares(Bag(), *case()).image[1].isnan().tolist() == [False, True]


def test_the_four_scores_by_hand():
    """Seen 4, heard 5, and their product; without the picture 5, without the words 4."""
    found = shares(Bag(1.0, 1.0, 1.0), *case())
    assert [x[0, 0].item() for x in (found.both, found.without_picture, found.without_words, found.neither)] == [
        29,
        5,
        4,
        0,
    ]
    assert (found.seen[0, 0].item(), found.heard[0, 0].item()) == (14, 15)


def test_other_pictures_stand_in_for_a_blank_one():
    """Means 1 and 3 in place of 4: 2 and 5 without the picture, so that 2 are seen and 5 heard."""
    others = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1).expand(2, 1, 2, 3)
    task, (a, batch, targets) = Bag(), case()
    found = shares(task, a, batch, targets, others)
    assert found.without_picture[0, 0] == 7
    assert found.image[0, 0].item() == pytest.approx(2 / 7)
    assert scores_without_picture(task, a, batch, targets, others)[0].tolist() == [7, 9]
    assert scores_without_picture(task, a, batch, targets)[0].tolist() == [5, 7]


def test_another_baseline_than_zero():
    """Every word as the vector (1, 0), which is read as 1: 2 words give 2 in place of 5, so that 3 are heard."""
    found = shares(Bag(), *case(), baseline=torch.tensor([1.0, 0.0]))
    assert found.image[0, 0].item() == pytest.approx(4 / 7)


def test_shares_are_of_log_probabilities_if_the_scores_are_none():
    class Logits(Bag):
        def log_probabilities_heard(self, activations, batch, targets, vectors):
            both = torch.tensor([[0, 1]] * len(batch))
            every = Targets.of(both.tolist(), [["zero", "one"]] * len(batch))
            index = torch.arange(len(batch)).repeat_interleave(len(vectors) // len(batch))
            logits = self.scores_heard(activations, batch, every, vectors)
            return targets.take(index).pick(logits.log_softmax(1))

    found = shares(Logits(), *case())  # what is seen raises both logits alike
    assert found.image[0, 0].item() == pytest.approx(0, abs=1e-15)
    assert found.both[0].exp().sum() == pytest.approx(1)


def test_explanations_hold_what_was_heard():
    task, (a, batch, targets) = Bag(), case()
    plain = explain_activations(task, a, batch, targets)
    both = with_words(plain, task, a, batch, targets)
    assert [e.heard for e in both] == [("red", "dog"), ("sky",)]
    assert both[0].heard_scores.flatten().tolist() == pytest.approx([3, 2, 0, 7])
    assert both[1].heard_scores.flatten().tolist() == pytest.approx([-5])
    assert both[0].image_shares.tolist() == pytest.approx([4 / 9, 4 / 11])
    assert both[0].without_picture.tolist() == [5, 7]
    assert both[1].without_picture.tolist() == [-5]
    assert all(torch.equal(x.signed, y.signed) for x, y in zip(plain, both, strict=True))


def test_nothing_to_explain():
    task, (a, batch, _) = Bag(), case()
    targets = Targets.of([[], []], [[], []])
    for method in METHODS.values():
        assert method(task, a, batch, targets).shape == (2, 0, 2)
    assert shares(task, a, batch, targets).image.shape == (2, 0)
    (first, _) = with_words(explain_activations(task, a, batch, targets), task, a, batch, targets)
    assert first.heard_scores.shape == (0, 2)


def test_nothing_is_left_behind():
    task, (a, batch, targets) = Squared(see=0.5), case()
    task.train()
    task.drop.eval()
    with untouched(task):
        found = [method(task, a, batch, targets) for method in METHODS.values()]
        shares(task, a, batch, targets)
    assert batch.memo == {}
    assert a.grad is None
    task.eval()  # which the calls were in, without its being seen
    assert all(close(method(task, a, batch, targets), old) for method, old in zip(METHODS.values(), found, strict=True))


@pytest.mark.parametrize("work", [*METHODS.values(), shares])
def test_nothing_is_left_behind_after_an_exception(work):
    class Broken(Bag):
        def scores_heard(self, activations, batch, targets, vectors):
            super().scores_heard(activations, batch, targets, vectors)
            raise KeyboardInterrupt

    task = Broken()
    task.train()
    with untouched(task), pytest.raises(KeyboardInterrupt):
        work(task, *case())


def test_a_head_may_write_into_what_it_is_given():
    class Writing(Squared):
        def scores_heard(self, activations, batch, targets, vectors):
            return super().scores_heard(activations.mul_(2), batch, targets, vectors)

    task, (a, batch, targets) = Writing(see=0.5), case()
    for method in METHODS.values():
        assert close(method(task, a, batch, targets), method(Squared(), a, batch, targets))
    assert close(shares(task, a, batch, targets).image[0], shares(Squared(), a, batch, targets).image[0])
    assert torch.equal(a, case()[0])


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_callers_may_be_without_gradients(context):
    expected = integrated_gradients(Squared(), *case())
    task = Squared()
    with context():
        a, batch, targets = case()
        assert close(integrated_gradients(task, a, batch, targets).clone(), expected)
        shares(task, a, batch, targets)


def test_mistakes():
    class Deaf(Bag):
        heard, scores_heard = Task.heard, Task.scores_heard

    (a, batch, targets), task = case(), Bag()
    with pytest.raises(UserError, match="Deaf hears no words: expected a task for questions or captions"):
        gradient_times_embedding(Deaf(), a, batch, targets)
    with pytest.raises(UserError, match="expected steps of at least 1, got 0"):
        integrated_gradients(task, a, batch, targets, steps=0)
    with pytest.raises(UserError, match="expected other pictures, got none"):
        shares(task, a, batch, targets, a[:0])
    with pytest.raises(UserError, match="expected targets for 2 samples, got them for 1"):
        shares(task, a, batch, targets.take(torch.tensor([0])))
    explanations = explain_activations(task, a, batch, targets)
    with pytest.raises(UserError, match="unknown method for words 'gradients'"):
        with_words(explanations, task, a, batch, targets, "gradients")
    with pytest.raises(UserError, match="expected explanations of the targets' own rows"):
        with_words(explanations[::-1], task, a, batch, targets)


def test_explanations_can_be_made_as_before():
    plain = Explanation(
        "a", "", ("w",), torch.zeros(1), torch.zeros(1, 2, 2), (2, 2), (0.0, 0.0, 2.0, 2.0), "grad_cam", ""
    )
    assert (plain.heard, plain.heard_scores, plain.image_shares, plain.without_picture) == ((), None, None, None)
    assert replace(plain, heard=("b",)).heard == ("b",)
