from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

from mmcam import explain
from mmcam.checkpoint import save_model
from mmcam.errors import UserError
from mmcam.task import Sample
from tests.reference import same_maps
from vqa.models import NormProduct, StackedAttention
from vqa.task import VQATask

WORDS = ["is", "there", "a", "dog", "cat", "?", "what", "left"]
ANSWERS = ["yes", "no", "dog", "polar bear", "2"]
QUESTIONS = ["is there a dog ?", "what ?", "Is there a cat left?"]


def make(cls=StackedAttention, **options):
    """A task in float64 whose model has something to say."""
    torch.manual_seed(3)
    sizes = {"embedding": 4, "hidden": 5, "common": 6} if cls is NormProduct else {"hidden": 5}
    model = cls(WORDS, ANSWERS, **sizes)
    model.backbone.size = (24, 32)
    for name, value in model.named_parameters():
        if not name.startswith("backbone"):
            nn.init.normal_(value, std=0.3)
    return VQATask(model.double(), **options)


def collate(task, texts=QUESTIONS):
    noise = [Image.effect_noise((40 + i, 30), 80).convert("RGB") for i in range(len(texts))]
    samples = [Sample(image, f"question {i}", text) for i, (image, text) in enumerate(zip(noise, texts, strict=True))]
    batch = task.collate(samples)
    return replace(batch, images=batch.images.double())


@pytest.fixture
def task():
    return make()


def logits(task, batch):
    with torch.no_grad():
        return task.model(batch.images, batch.inputs["words"], batch.inputs["lengths"])


def test_questions_become_numbers(task):
    batch = collate(task)
    assert batch.inputs["lengths"].tolist() == [5, 2, 6]
    assert batch.inputs["words"].tolist() == [[4, 5, 6, 7, 9, 0], [10, 9, 0, 0, 0, 0], [4, 5, 6, 8, 11, 9]]
    assert batch.texts == tuple(QUESTIONS)
    assert batch.images.shape == (3, 3, 24, 32)
    assert batch.sizes == ((30, 40), (30, 41), (30, 42))
    assert task.layer == "backbone.features"


@pytest.mark.parametrize("cls", [NormProduct, StackedAttention])
def test_scores_are_the_answers_logits(cls):
    task = make(cls)
    batch = collate(task)
    expected = logits(task, batch)
    explanations = explain(task, batch, task.given(["yes", "dog, 2", "Polar bear , no"], batch))
    assert [explanation.words for explanation in explanations] == [("yes",), ("dog", "2"), ("polar bear", "no")]
    for explanation, row, ids in zip(explanations, expected, ([0], [2, 4], [3, 1]), strict=True):
        torch.testing.assert_close(explanation.scores, row[ids], rtol=1e-10, atol=1e-12)
        assert explanation.prompt in QUESTIONS


@pytest.mark.parametrize("top_k", [1, 3, 5])
def test_the_best_answers_come_first(top_k):
    task = make(top_k=top_k)
    batch = collate(task)
    for explanation, row in zip(explain(task, batch), logits(task, batch), strict=True):
        order = row.argsort(descending=True)[:top_k].tolist()
        assert explanation.words == tuple(ANSWERS[i] for i in order)
        torch.testing.assert_close(explanation.scores, row[order], rtol=1e-10, atol=1e-12)


def test_answers_are_the_best_ones(task):
    batch = collate(task)
    assert task.answers(batch) == [ANSWERS[i] for i in logits(task, batch).argmax(1)]


@pytest.mark.parametrize("cls", [NormProduct, StackedAttention])
def test_a_ragged_batch_is_explained_like_its_questions_one_by_one(cls):
    task = make(cls)
    batch = collate(task)
    texts = ["yes, no", "2", "dog, polar bear, yes"]
    singly = []
    for i, text in enumerate(texts):
        one = collate_one(task, batch, i)
        singly += explain(task, one, task.given([text], one))
    assert same_maps(explain(task, batch, task.given(texts, batch)), singly, rtol=1e-9)


def collate_one(task, batch, i):
    """One question without the padding that its batch gave it."""
    one = batch.take(torch.tensor([i]))
    return replace(one, inputs={**one.inputs, "words": one.inputs["words"][:, : int(one.inputs["lengths"])]})


def test_a_contrast_is_the_difference_of_two_answers(task):
    batch = collate(task)
    contrast = explain(
        task, batch, task.given(["yes rather than no", "dog rather than 2", "2 rather than polar bear"], batch)
    )
    yes = explain(task, batch, task.given(["yes", "dog", "2"], batch))
    no = explain(task, batch, task.given(["no", "2", "polar bear"], batch))
    assert contrast[0].words == ("yes rather than no",)
    for both, first, second in zip(contrast, yes, no, strict=True):
        torch.testing.assert_close(both.signed, first.signed - second.signed, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(both.scores, first.scores - second.scores, rtol=1e-9, atol=1e-12)


def test_several_contrasts_of_several_questions(task):
    batch = collate(task, QUESTIONS[:2])
    targets = task.given(["yes rather  than no, dog rather than 2", "2 rather than yes"], batch)
    assert targets.words == (("yes rather than no", "dog rather than 2"), ("2 rather than yes",))
    assert targets.ids.tolist() == [[0, 2], [4, 0]]
    assert targets.foils is not None
    assert targets.foils.tolist() == [[1, 4], [0, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dgo", "unknown answer 'dgo': did you mean 'dog'"),
        ("yes rather than nope", "unknown answer 'nope': did you mean 'no'"),
        ("", "expected an answer to explain, got an empty one; leave it out"),
        (" , ", "expected an answer to explain, got an empty one"),
        ("yes rather than no, dog", "not both kinds in one call"),
    ],
)
def test_an_answer_that_cannot_be_explained(task, text, message):
    batch = collate(task, QUESTIONS[:2])
    with pytest.raises(UserError, match=message):
        task.given([text if " rather " in text and "," not in text else "yes", text], batch)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("is there a dgo ?", "unknown word of a question 'dgo': did you mean 'dog'"),
        ("", "expected a question with every picture, got an empty one; give it with --question"),
        ("  ", "expected a question with every picture"),
    ],
)
def test_a_question_that_cannot_be_asked(task, text, message):
    with pytest.raises(UserError, match=message):
        collate(task, ["is there a dog ?", text])


@pytest.mark.parametrize("top_k", [0, 6, -1])
def test_there_are_only_so_many_answers(top_k):
    with pytest.raises(UserError, match=f"expected top_k from 1 to 5, the number of answers; got {top_k}"):
        make(top_k=top_k)


def test_a_model_is_named_by_its_folder(tmp_path):
    model = NormProduct(WORDS, ANSWERS, embedding=4, hidden=5, common=6)
    task = VQATask(str(save_model(model, tmp_path / "vqa")))
    assert isinstance(task.model, NormProduct)
    assert not task.model.training
    with pytest.raises(UserError, match="unknown weights folder or name"):
        VQATask("vqa-sences")
