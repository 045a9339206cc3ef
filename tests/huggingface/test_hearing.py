from dataclasses import replace

import pytest
import torch

from captioning.hf import HFCaptioningTask
from mmcam import Sample, UserError, explain
from mmcam.heard import gradient_times_embedding, scores_without_picture, with_words
from tests.huggingface import tiny
from tests.huggingface.test_speaker import picture

pytestmark = [pytest.mark.filterwarnings(w) for w in tiny.UNAVOIDABLE]
HEARING = ["blip", "git", "llava", "paligemma", "gemma3", "qwen2.5-vl", "internvl", "blip-2-opt", "kosmos-2", "mllama"]


@pytest.fixture(params=HEARING)
def asked(request):
    built = tiny.build(request.param)
    task = HFCaptioningTask(built.model, built.processor)
    text = "" if built.kind == "caption" else "what is left of the dog?"
    batch = task.collate([Sample(picture(built.size, i), str(i), text) for i in range(2)])
    activations = task.trunk(batch)
    return task, activations, batch, task.given(["a red dog", "a square"], batch)


def test_the_own_vectors_give_the_own_scores(asked):
    task, activations, batch, targets = asked
    with torch.no_grad():
        vectors = task.heard(batch, targets).vectors
        found = task.scores_heard(activations, batch, targets, vectors.repeat_interleave(2, 0))
        own = task.scores(activations, batch, targets)
    torch.testing.assert_close((found * targets.mask.repeat_interleave(2, 0))[::2], own * targets.mask)
    torch.testing.assert_close(found[::2], found[1::2])


def test_the_answer_s_words_are_heard_and_the_question_s(asked):
    task, _, batch, targets = asked
    words = task.heard(batch, targets).words
    assert [w.removeprefix("##") for w in words[0][-3:]] in (["a", "red", "do"], ["<unk>", "red", "do"])
    assert ("left" in words[0]) == bool(batch.texts[0])


def test_a_word_hears_no_later_one(asked):
    task, activations, batch, targets = asked
    driven = gradient_times_embedding(task, activations, batch, targets)
    first = len(task.heard(batch, targets).words[0]) - int(targets.mask[0].sum()) + 1
    assert driven[0, 0, first:].abs().max() == 0  # the first word of the answer
    assert driven[0, -1].abs().max() > 0


def test_what_is_said_unseen(asked):
    task, activations, batch, targets = asked
    unseen = scores_without_picture(task, activations, batch, targets)
    seen = torch.stack([(targets.rows[i] @ task.scores(activations, batch, targets)[i]) for i in range(2)])
    assert torch.isfinite(unseen).all()
    assert not torch.allclose(unseen, seen, atol=1e-4)
    (e, _) = with_words(explain(task, batch, targets), task, activations, batch, targets, "gradient_times_embedding")
    assert e.without_picture.shape == e.scores.shape


def test_encoders_of_their_own_are_refused():
    built = tiny.build("vit-gpt2")
    task = HFCaptioningTask(built.model, built.processor)
    batch = task.collate([Sample(picture(built.size, 0), "a")])
    with pytest.raises(UserError, match="reads its prompt apart"):
        task.heard(batch, replace(task.given(["a dog"], batch)))
