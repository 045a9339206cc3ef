"""Prompts of several lengths in one batch, what users may ask of `generate`, and tasks that go to other processes."""

import gc
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from captioning.hf import HFCaptioningTask
from mmcam import UserError, explain
from mmcam.huggingface.task import Generation
from mmcam.targets import Targets
from mmcam.task import Sample
from tests.huggingface import tiny
from vqa.hf import HFVQATask

pytestmark = [pytest.mark.filterwarnings(w) for w in tiny.UNAVOIDABLE]

QUESTIONS = ["what is left of the dog?", "what?", "what is left of the red dog and the pizza?"]


def picture(size, seed=0):
    noise = np.random.RandomState(seed).randint(0, 255, (*size, 3), np.uint8)
    return Image.fromarray(noise)


def llava(kind=HFCaptioningTask, **how):
    built = tiny.build("llava")
    task = kind(built.model, built.processor, generation=Generation(**{"length": 3, **how}))
    return task, task.collate([Sample(picture(built.size), "a", "what?")])


@pytest.mark.parametrize("name", ["blip", "git", "kosmos-2", "florence-2", "llava", "qwen2.5-vl"])
def test_words_do_not_depend_on_the_other_prompts_of_the_batch(name):
    """BLIP counts places from the padding, Kosmos-2's cache forgets it, and Florence-2's encoder has places too."""
    built = tiny.build(name)
    task = HFCaptioningTask(built.model, built.processor, generation=Generation(length=5))
    samples = [Sample(picture(built.size, i), str(i), text) for i, text in enumerate(QUESTIONS)]
    together = explain(task, task.collate(samples))
    for sample, e in zip(samples, together, strict=True):
        (alone,) = explain(task, task.collate([sample]))
        assert e.words == alone.words
        torch.testing.assert_close(e.scores, alone.scores, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"options": {"temprature": 0.7}}, "temprature"),
        ({"options": {"num_return_sequences": 2}}, "num_return_sequences"),
        ({"length": 0}, "max_new_tokens"),
    ],
)
def test_what_generate_refuses_is_one_line(how, message):
    task, batch = llava(**how)
    with pytest.raises(UserError, match=message):
        explain(task, batch)


def test_more_than_tokens_may_be_asked_of_generate():
    (plain, batch), (more, _) = llava(), llava(options={"return_dict_in_generate": True, "output_scores": True})
    assert explain(plain, batch)[0].words == explain(more, batch)[0].words


@pytest.mark.parametrize("kind", [HFCaptioningTask, HFVQATask])
def test_an_answer_without_tokens_has_no_runner_up(kind):
    task, batch = llava(kind)
    none = Targets.of([[]], [[]])
    assert task.runners_up(task.trunk(batch), batch, none).words == ((),)
    assert explain(task, batch, none)[0].signed.shape == (0, 4, 4)


def test_the_mark_of_a_picture_is_left_to_the_template():
    task, _ = llava()
    with pytest.raises(UserError, match="leave it out"):
        task.collate([Sample(picture((24, 24)), "a", "<image> what?")])


@pytest.mark.parametrize(
    ("text", "word", "said", "foil"),
    [
        ("a red table rather than green", "table rather than green", "table", "green"),
        ("a , red table rather than green", "table rather than green", "table", "green"),
        ("red-red table rather than green and", "table rather than green", "table", "green"),
        ("red rather than green", "red rather than green", "red", "green"),
    ],
)
def test_the_contrasted_word_is_found_behind_punctuation(text, word, said, foil):
    task, batch = llava()
    tokenizer = task.speaker.tokenizer
    targets = task.given([text], batch)
    assert targets.words == ((word,),)
    (spot,) = targets.rows[0, 0].nonzero().flatten().tolist()
    assert tokenizer.decode([targets.ids[0, spot]]) == said
    assert targets.foils is not None
    assert tokenizer.decode([targets.foils[0, spot]]) == foil


def test_a_greater_sign_is_no_contrast():
    task, batch = llava()
    assert task.given(["red > green"], batch).foils is None


@pytest.mark.parametrize("name", ["llava", "qwen3-vl", "smolvlm", "vit-gpt2", "mllama"])
def test_a_task_goes_to_another_process(name):
    """As workers are started anew on macOS and Windows."""
    built = tiny.build(name)
    task = HFCaptioningTask(built.model, built.processor, generation=Generation(length=2))
    text = "" if built.kind == "caption" else "what?"
    samples = [Sample(picture(built.size), "a", text)]
    expected = task.collate(samples)
    other = pickle.loads(pickle.dumps(task))
    del task
    gc.collect()
    batch = other.collate(samples)
    assert batch.windows == expected.windows
    assert all(torch.equal(batch.inputs[key].nan_to_num(), expected.inputs[key].nan_to_num()) for key in batch.inputs)
    assert explain(other, batch)[0].size == built.size
