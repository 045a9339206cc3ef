"""Which earlier words drive a word: causality, truth of the gradients, and the shipped captioners."""

from statistics import fmean

import pytest
import torch

from captioning.models import AttendAndTell, ShowAndTell
from captioning.task import CaptioningTask
from mmcam import load_task
from mmcam.engine import explain_activations
from mmcam.errors import UserError
from mmcam.gradients import looped
from mmcam.heard import METHODS, gradient_times_embedding, integrated_gradients, shares, with_words
from mmcam.scenes.language import NOUNS
from mmcam.scenes.source import Scenes
from mmcam.task import Targets
from tests.captioning.test_decode import Chain
from tests.captioning.test_task import collate, make
from tests.reference import untouched

TEXTS = ["two dogs left of a cat", "a dog", "a dog and two dogs"]
MODELS = (ShowAndTell, AttendAndTell)


def case(cls):
    task = make(cls)
    batch = collate(task)
    with torch.no_grad():
        activations = task.trunk(batch)
    return task, activations, batch, task.given(TEXTS, batch)


@pytest.mark.parametrize("cls", MODELS)
def test_what_is_heard_gives_the_scores(cls):
    task, activations, batch, targets = case(cls)
    heard = task.heard(batch, targets)
    assert heard.words[:2] == (("<start>", "two", "dogs", "left", "of", "a"), ("<start>", "a"))
    assert torch.equal(heard.vectors[1, 1], task.model.hear.weight[4])
    scores = task.scores_heard(activations, batch, targets, heard.vectors)
    torch.testing.assert_close(scores, task.scores(activations, batch, targets), rtol=1e-12, atol=1e-13)
    foils = targets.rather_than(targets.ids.roll(1, 1))
    scores = task.scores_heard(activations, batch, foils, heard.vectors)
    torch.testing.assert_close(scores, task.scores(activations, batch, foils), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("cls", MODELS)
def test_several_vectors_a_sample_share_its_picture(cls):
    task, activations, batch, targets = case(cls)
    vectors = torch.randn(3 * 2, 6, 5, dtype=torch.float64)  # two of each sample
    together = task.scores_heard(activations, batch, targets, vectors)
    for j in range(2):
        alone = task.scores_heard(activations, batch, targets, vectors[j::2])
        torch.testing.assert_close(together[j::2], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cls", MODELS)
def test_gradient_times_embedding_is_a_slope(cls):
    """By central differences: the word's vector a little longer and a little shorter."""
    task, activations, batch, targets = case(cls)
    found, heard = gradient_times_embedding(task, activations, batch, targets), task.heard(batch, targets)
    step = 1e-6
    with torch.no_grad():
        for j in range(6):
            far, near = heard.vectors.clone(), heard.vectors.clone()
            far[:, j] *= 1 + step
            near[:, j] *= 1 - step
            y = [task.scores_heard(activations, batch, targets, x) for x in (far, near)]
            slope = (y[0] - y[1]) / (2 * step) * targets.mask
            torch.testing.assert_close(found[:, :, j], slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("cls", MODELS)
@pytest.mark.parametrize("method", METHODS.values())
def test_no_word_is_driven_by_itself_or_later_ones(cls, method):
    """Word t hears the start mark and t words: t + 1 columns, and exact zeros after them."""
    task, activations, batch, targets = case(cls)
    found = method(task, activations, batch, targets)
    assert found.shape == (3, 6, 6)
    assert torch.equal(found, found.tril())
    for rows, words in zip(found, targets.words, strict=True):
        assert bool((rows[: len(words), : len(words)].tril() != 0).sum() == len(words) * (len(words) + 1) // 2)
        assert not rows[len(words) :].any()


@pytest.mark.parametrize("cls", MODELS)
@pytest.mark.parametrize("method", METHODS.values())
def test_all_rows_of_all_captions_at_once_are_one_by_one(cls, method, caplog):
    task, activations, batch, targets = case(cls)
    caplog.set_level("INFO")
    together = method(task, activations, batch, targets)
    assert "row by row" not in caplog.text
    task.vjp = looped
    for i, words in enumerate(targets.words):
        one, mine = batch.take(torch.tensor([i])), targets.take(torch.tensor([i]))
        for r in range(len(words)):
            row = method(task, activations[i : i + 1], one, mine.only([[r]]))
            torch.testing.assert_close(together[i, r], row[0, 0], rtol=1e-9, atol=1e-12)


def test_integrated_gradients_sum_to_the_score_less_that_of_silence():
    task, activations, batch, targets = case(ShowAndTell)
    heard = task.heard(batch, targets)
    silent = task.scores_heard(activations, batch, targets, torch.zeros_like(heard.vectors))
    expected = (task.scores(activations, batch, targets) - silent) * targets.mask
    found = integrated_gradients(task, activations, batch, targets)
    torch.testing.assert_close(found.sum(2), expected, rtol=0, atol=1e-6)
    padding = task.model.hear.weight[0]
    other = task.scores_heard(activations, batch, targets, padding.expand_as(heard.vectors))
    expected = (task.scores(activations, batch, targets) - other) * targets.mask
    found = integrated_gradients(task, activations, batch, targets, padding)
    torch.testing.assert_close(found.sum(2), expected, rtol=0, atol=1e-6)


def test_merged_rows_are_sums():
    task, activations, batch, targets = case(AttendAndTell)
    words = integrated_gradients(task, activations, batch, targets, steps=8)
    whole = integrated_gradients(task, activations, batch, targets.sentence(), steps=8)
    torch.testing.assert_close(whole[:, 0], words.sum(1), rtol=1e-9, atol=1e-10)


def test_a_captioner_that_sees_nothing_has_all_from_the_words():
    task, activations, batch, targets = case(ShowAndTell)
    with torch.no_grad():
        task.model.see.weight.zero_()
    image = shares(task, activations, batch, targets).image
    assert image[targets.mask].abs().max() < 1e-12
    assert image[~targets.mask].isnan().all()


def test_a_captioner_that_hears_nothing_has_all_from_the_picture():
    task, activations, batch, targets = case(ShowAndTell)
    with torch.no_grad():
        task.model.hear.weight.zero_()
    assert (shares(task, activations, batch, targets).image[targets.mask] - 1).abs().max() < 1e-12


def test_a_captioner_may_not_say_how_it_hears_vectors():
    task = CaptioningTask(Chain())
    batch = collate(task, 1)
    task.model.hear = torch.nn.Embedding(7, 2)
    with pytest.raises(UserError, match=r"Chain does not say how it hears vectors of words; write take_in"):
        gradient_times_embedding(task, torch.zeros(1, 1, 1, 1), batch, task.given(["a b"], batch))


def test_runners_up_are_the_best_other_words():
    task, activations, batch, targets = case(AttendAndTell)
    second = task.runners_up(activations, batch, targets)
    known = task.model.vocabulary
    for i, words in enumerate(targets.words):
        for t in range(len(words)):
            heard = torch.tensor([[1, *targets.ids[i, :t].tolist()]])
            one = batch.take(torch.tensor([i]))
            logits = task.model(one.images, heard)[0, -1].tolist()
            best = max((n for n in range(2, len(known)) if n not in (3, targets.ids[i, t])), key=lambda n: logits[n])
            assert (second.ids[i, t], second.words[i][t]) == (best, known.words[best])
    assert task.runners_up(activations, batch, Targets.of([[], [], []], [[], [], []])).words == ((), (), ())


# --- the shipped captioners ---


@pytest.fixture(scope="module", params=["captioning/scenes", "captioning/show_and_tell"])
def shipped(request):
    task = load_task(request.param, device="cpu")
    scenes = Scenes("test", 8)
    batch = task.collate([scenes.sample(i) for i in range(8)])
    with torch.no_grad():
        activations = task.trunk(batch)
        targets = task.predict(activations, batch)
    return task, activations, batch, targets


def test_the_shipped_captioners_are_causal(shipped):
    task, activations, batch, targets = shipped
    with untouched(task):
        explanations = with_words(
            explain_activations(task, activations, batch, targets), task, activations, batch, targets
        )
    for e in explanations:
        assert e.heard == ("<start>", *e.words[:-1])
        assert torch.equal(e.heard_scores, e.heard_scores.tril())
        assert bool((e.heard_scores.diagonal() != 0).all())
        assert bool(((e.image_shares >= 0) & (e.image_shares <= 1)).all())


def test_things_are_seen_and_articles_are_heard(shipped):
    task, activations, batch, targets = shipped
    image = shares(task, activations, batch, targets).image
    said = [
        (word, share)
        for words, row in zip(targets.words, image.tolist(), strict=True)
        for word, share in zip(words, row, strict=False)
    ]
    nouns = [share for word, share in said if word in NOUNS]
    articles = [share for word, share in said if word == "a"]
    assert len(nouns) > 8
    assert fmean(nouns) > 1.5 * fmean(articles)
