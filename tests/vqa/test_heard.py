"""Which words of the question drive an answer: truth of the gradients, and the shipped model."""

from collections import defaultdict
from statistics import fmean

import pytest
import torch

from mmcam import load_task
from mmcam.analysis import over_runner_up
from mmcam.engine import explain_activations
from mmcam.gradients import looped
from mmcam.heard import METHODS, gradient_times_embedding, integrated_gradients, shares, with_words
from mmcam.scenes.language import NOUNS
from mmcam.scenes.questions import questions
from mmcam.scenes.source import Scenes
from mmcam.task import Sample
from tests.reference import untouched
from tests.vqa.test_task import collate, collate_one, make
from vqa.models import NormProduct, StackedAttention

MODELS = (NormProduct, StackedAttention)
ANSWERS = ["yes, no", "2", "dog, polar bear, yes"]


def case(cls):
    task = make(cls)
    batch = collate(task)
    with torch.no_grad():
        activations = task.trunk(batch)
    return task, activations, batch, task.given(ANSWERS, batch)


@pytest.mark.parametrize("cls", MODELS)
def test_what_is_heard_gives_the_scores(cls):
    task, activations, batch, targets = case(cls)
    heard = task.heard(batch, targets)
    assert heard.words == (("is", "there", "a", "dog", "?"), ("what", "?"), ("is", "there", "a", "cat", "left", "?"))
    scores = task.scores_heard(activations, batch, targets, heard.vectors)
    torch.testing.assert_close(scores, task.scores(activations, batch, targets), rtol=1e-12, atol=1e-13)
    logs = task.log_probabilities_heard(activations, batch, targets, heard.vectors)
    torch.testing.assert_close(logs.exp(), task.probabilities(activations, batch, targets), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("cls", MODELS)
def test_several_vectors_a_question_share_its_picture(cls):
    task, activations, batch, targets = case(cls)
    vectors = torch.randn(3 * 2, *task.heard(batch, targets).vectors.shape[1:], dtype=torch.float64)
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
    assert not found[0, :, 5:].any()  # padding
    assert not found[1, :, 2:].any()


@pytest.mark.parametrize("cls", MODELS)
@pytest.mark.parametrize("method", METHODS.values())
def test_all_answers_to_all_questions_at_once_are_one_by_one(cls, method):
    task, activations, batch, targets = case(cls)
    together = method(task, activations, batch, targets)
    task.vjp = looped
    for i, words in enumerate(targets.words):
        one, mine = collate_one(task, batch, i), targets.take(torch.tensor([i]))
        for r in range(len(words)):
            row = method(task, activations[i : i + 1], one, mine.only([[r]]))
            torch.testing.assert_close(together[i, r, : row.shape[2]], row[0, 0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("cls", "error"), [(NormProduct, 1e-6), (StackedAttention, 2e-3)])
def test_integrated_gradients_sum_to_the_score_less_that_of_silence(cls, error):
    """Where nothing has a kink the steps hardly matter; ReLUs have one, at which the slope jumps."""
    task, activations, batch, targets = case(cls)
    heard = task.heard(batch, targets)
    silent = task.scores_heard(activations, batch, targets, torch.zeros_like(heard.vectors))
    expected = (task.scores(activations, batch, targets) - silent) * targets.mask
    found = integrated_gradients(task, activations, batch, targets)
    torch.testing.assert_close(found.sum(2), expected, rtol=0, atol=error)
    found = integrated_gradients(task, activations, batch, targets, steps=400)
    torch.testing.assert_close(found.sum(2), expected, rtol=0, atol=error / 10)


def test_a_model_that_sees_nothing_has_all_from_the_words():
    task, activations, batch, targets = case(NormProduct)
    with torch.no_grad():
        task.model.image[1].weight.zero_()
    assert shares(task, activations, batch, targets).image[targets.mask].abs().max() < 1e-12


def test_a_model_that_hears_nothing_has_all_from_the_picture():
    task, activations, batch, targets = case(NormProduct)
    with torch.no_grad():
        task.model.question[1].weight.zero_()
    assert (shares(task, activations, batch, targets).image[targets.mask] - 1).abs().max() < 1e-12


@pytest.mark.parametrize("cls", MODELS)
def test_runners_up_are_the_best_other_answers(cls):
    task, activations, batch, targets = case(cls)
    second = task.runners_up(activations, batch, targets)
    logits = task.model(batch.images, batch.inputs["words"], batch.inputs["lengths"]).tolist()
    for i, ids in enumerate([[0, 1], [4], [2, 3, 0]]):
        for t, number in enumerate(ids):
            best = max((n for n in range(5) if n != number), key=lambda n: logits[i][n])
            assert (second.ids[i, t], second.words[i][t]) == (best, task.model.answers[best])


# --- the shipped model ---


@pytest.fixture(scope="module")
def shipped():
    """Answers to a question each of some scenes, with foils: what else the model might have said."""
    task, scenes = load_task("vqa/scenes", device="cpu"), Scenes("test", 40)
    asked = [(q, i) for i in range(40) for q in questions(scenes.scene(i), 4) if q.form in ("exists", "what")][:32]
    batch = task.collate([Sample(scenes.sample(i).image, f"{i} {q.text}", q.text) for q, i in asked])
    with torch.no_grad():
        activations = task.trunk(batch)
        targets = task.predict(activations, batch)
    return task, activations, batch, over_runner_up(task, activations, batch, targets), [q.form for q, _ in asked]


def test_what_a_question_is_about_drives_its_answer(shipped):
    """The thing asked for in "is there a dog?"; the direction in "what is left of the dog?" more than its "the"."""
    task, activations, batch, targets, forms = shipped
    with untouched(task):
        explanations = with_words(
            explain_activations(task, activations, batch, targets), task, activations, batch, targets
        )
    sizes = defaultdict(list)
    for e, form in zip(explanations, forms, strict=True):
        for word, value in zip(e.heard, e.heard_scores[0].abs().tolist(), strict=True):
            kind = "thing" if word in NOUNS else "way" if word in ("left", "right", "above", "below") else word
            sizes[form, kind].append(value)
    mean = {key: fmean(values) for key, values in sizes.items()}
    assert len(sizes["what", "way"]) > 4
    assert mean["exists", "thing"] > 4 * max(mean["exists", word] for word in ("is", "there", "a", "?"))
    assert mean["what", "way"] > 2 * mean["what", "the"]
    assert mean["what", "what"] > 2 * mean["what", "is"]


def test_the_word_that_drives_most_is_the_one_that_is_missed_most(shipped):
    """Held against what happens when a word's vector is set to zero."""
    task, activations, batch, targets, _ = shipped
    found = integrated_gradients(task, activations, batch, targets)[:, 0]
    heard = task.heard(batch, targets)
    with torch.no_grad():
        y = task.scores_heard(activations, batch, targets, heard.vectors)
        missed = []
        for j in range(found.shape[1]):
            fewer = heard.vectors.clone()
            fewer[:, j] = 0
            missed.append(y - task.scores_heard(activations, batch, targets, fewer))
    same = found.abs().argmax(1) == torch.cat(missed, 1).abs().argmax(1)
    assert same.float().mean() > 0.6  # by chance 0.2
