from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import log_softmax

from captioning.models import AttendAndTell, ShowAndTell
from captioning.task import CaptioningTask
from mmcam import explain
from mmcam.checkpoint import save_model
from mmcam.errors import UserError
from mmcam.task import Sample
from tests.reference import same_maps

WORDS = ["a", "and", "and/or", "cat", "dog", "dogs", "left", "of", "two"]
SIZES = [(40, 30), (20, 60), (33, 33)]


def make(cls=AttendAndTell, **options):
    """A task in float64 whose model has something to say."""
    torch.manual_seed(3)
    model = cls(WORDS, embedding=5, hidden=6)
    model.backbone.size = (24, 32)
    for name, value in model.named_parameters():
        if not name.startswith("backbone"):
            nn.init.normal_(value, std=0.5)
    return CaptioningTask(model.double(), **options)


def collate(task, count=3):
    samples = [
        Sample(Image.effect_noise(size, 80).convert("RGB"), f"picture {i}") for i, size in enumerate(SIZES[:count])
    ]
    batch = task.collate(samples)
    return replace(batch, images=batch.images.double())


@pytest.fixture
def task():
    return make()


def test_pictures_are_squashed_to_the_network_s_size(task):
    batch = collate(task)
    assert batch.images.shape == (3, 3, 24, 32)
    assert batch.ids == ("picture 0", "picture 1", "picture 2")
    assert batch.sizes == ((30, 40), (60, 20), (33, 33))
    assert batch.windows[1] == (0, 0, 60, 20)  # all of it
    assert task.layer == "backbone.features"
    assert task.get_submodule(f"model.{task.layer}") is task.model.backbone.features


@pytest.mark.parametrize("cls", [ShowAndTell, AttendAndTell])
def test_scores_are_log_probabilities_under_teacher_forcing(cls):
    task = make(cls)
    batch = collate(task, 1)
    targets = task.given(["Two dogs left of a cat"], batch)
    scores = task.scores(task.trunk(batch), batch, targets)
    heard = torch.tensor([[1, *targets.ids[0, :-1].tolist()]])
    expected = log_softmax(task.model(batch.images, heard), 2).gather(2, targets.ids[..., None])[..., 0]
    torch.testing.assert_close(scores, expected, rtol=1e-11, atol=1e-12)
    assert targets.words == (("two", "dogs", "left", "of", "a", "cat"),)
    assert targets.ids.tolist() == [[12, 9, 10, 11, 4, 7]]


def test_the_prediction_is_what_the_model_decodes_and_end_is_no_word(task):
    batch = collate(task)
    with torch.no_grad():
        activations = task.trunk(batch)
        targets = task.predict(activations, batch)
    for words, ids, mask in zip(targets.words, targets.ids, targets.mask, strict=True):
        assert words == tuple(task.model.vocabulary.decode(ids[mask].tolist()))
        assert len(words) == mask.sum() <= task.length
        assert not {*words} & {"<pad>", "<start>", "<end>", "<unk>"}
    assert torch.equal(targets.rows.sum(1), targets.mask.float())


def test_a_ragged_batch_is_explained_like_its_pictures_one_by_one(task):
    batch = collate(task)
    texts = ["two dogs left of a cat", "a dog", "a dog and two dogs"]
    together = explain(task, batch, task.given(texts, batch))
    singly = []
    for i, text in enumerate(texts):
        one = batch.take(torch.tensor([i]))
        singly += explain(task, one, task.given([text], one))
    assert same_maps(together, singly, rtol=1e-9)
    assert [len(explanation.words) for explanation in together] == [6, 2, 5]
    assert all(flag in ("", "negative") for explanation in together for flag in explanation.flags)


def test_predictions_of_a_batch_are_those_of_its_pictures(task):
    batch = collate(task)
    singly = [explain(task, batch.take(torch.tensor([i])))[0] for i in range(3)]
    assert same_maps(explain(task, batch), singly, rtol=1e-9)


def test_the_sentence_is_the_sum_of_its_words(task):
    batch = collate(task)
    targets = task.given(["two dogs", "a cat", "a dog and two dogs"], batch)
    for words, whole in zip(explain(task, batch, targets), explain(task, batch, targets.sentence()), strict=True):
        torch.testing.assert_close(whole.signed[0], words.signed.sum(0), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(whole.scores[0], words.scores.sum(), rtol=1e-9, atol=1e-12)


def test_a_contrast_is_the_difference_of_two_captions_words(task):
    """ "a dog/cat" explains dog rather than cat after "a": the same words have been heard for both."""
    batch = collate(task, 1)
    (contrast,) = explain(task, batch, task.given(["a dog/cat"], batch))
    (dog,), (cat,) = (explain(task, batch, task.given([text], batch)) for text in ("a dog", "a cat"))
    assert contrast.words == ("dog rather than cat",)
    torch.testing.assert_close(contrast.signed[0], dog.signed[1] - cat.signed[1], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(contrast.scores[0], dog.scores[1] - cat.scores[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "words", "heard", "foils"),
    [
        ("a dog rather than cat", ["dog rather than cat"], "a dog", {1: "cat"}),
        ("a dog rather than a cat left of two dogs", ["dog rather than cat"], "a dog left of two dogs", {1: "cat"}),
        ("two rather than a dogs", ["two rather than a"], "two dogs", {0: "a"}),
        (
            "a dog rather than cat left rather than and of a cat",
            ["dog rather than cat", "left rather than and"],
            "a dog left of a cat",
            {1: "cat", 2: "and"},
        ),
    ],
)
def test_contrasts_in_words(task, text, words, heard, foils):
    known = task.model.vocabulary
    targets = task.given([text], collate(task, 1))
    assert targets.words == (tuple(words),)
    ids = known.encode(heard.split())
    assert targets.ids.tolist() == [ids]
    assert targets.foils is not None
    assert targets.foils.tolist() == [[known.encode([foils[t]])[0] if t in foils else n for t, n in enumerate(ids)]]


@pytest.mark.parametrize("text", ["rather than a cat", "a cat rather than"])
def test_a_contrast_with_nothing_is_no_contrast(task, text):
    with pytest.raises(UserError, match="unknown word 'rather'"):
        task.given([text], collate(task, 1))


def test_contrasts_in_some_captions_of_a_batch(task):
    batch = collate(task)
    targets = task.given(["a dog/cat left/and of a cat", "a dog", "a/two dogs"], batch)
    assert targets.words == (("dog rather than cat", "left rather than and"), (), ("a rather than two",))
    explanations = explain(task, batch, targets)
    assert [len(explanation.signed) for explanation in explanations] == [2, 0, 1]


def test_a_word_with_a_stroke_is_a_word_if_the_model_knows_it(task):
    batch = collate(task, 1)
    assert task.given(["a cat and/or a dog"], batch).words == (("a", "cat", "and/or", "a", "dog"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a dgo", "unknown word 'dgo': did you mean 'dog'"),
        ("a dog/dgo", "unknown word 'dgo': did you mean 'dog'"),
        ("a dog/", "unknown word ''"),
        ("a <end>", "unknown word '<'"),
        ("", "expected a caption of at least one word, got an empty one; leave it out"),
        ("  \n", "expected a caption of at least one word, got an empty one"),
    ],
)
def test_a_caption_that_cannot_be_explained(task, text, message):
    batch = collate(task, 2)
    with pytest.raises(UserError, match=message):
        task.given(["a cat", text], batch)


def test_nothing_said_is_nothing_explained(task):
    with torch.no_grad():
        task.model.readout.bias[2] += 1000  # the end mark
    batch = collate(task, 2)
    explanations = explain(task, batch)
    assert [explanation.words for explanation in explanations] == [(), ()]
    assert [explanation.signed.shape for explanation in explanations] == [(0, 6, 8)] * 2


def test_a_beam_and_a_length_are_kept(task):
    short = make(length=2, beam=3)
    assert all(len(explanation.words) <= 2 for explanation in explain(short, collate(short)))


def test_a_model_is_named_by_its_folder(tmp_path):
    model = ShowAndTell(WORDS, embedding=5, hidden=6)
    task = CaptioningTask(str(save_model(model, tmp_path / "captioner")))
    assert isinstance(task.model, ShowAndTell)
    assert not task.model.training
    with pytest.raises(UserError, match="unknown weights folder or name"):
        CaptioningTask("captioning-sences")
