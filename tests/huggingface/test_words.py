from importlib import import_module
from types import SimpleNamespace

import pytest
import torch

from captioning.hf import HFCaptioningTask
from mmcam import Sample, UserError, explain
from mmcam.huggingface.targets import _read, worded
from mmcam.huggingface.task import Generation
from mmcam.huggingface.words import spelled
from tests.huggingface import tiny
from tests.huggingface.test_speaker import picture
from tests.huggingface.tiny.words import byte_level
from vqa.hf import HFVQATask


class Spelling:
    """A tokenizer whose tokens are known texts; a space in front begins a word."""

    all_special_ids = (0,)

    def __init__(self, *pieces):
        self.pieces = ("<s>", *pieces)

    def decode(self, ids, clean_up_tokenization_spaces=False):
        return b"".join(p if isinstance(p, bytes) else p.encode() for p in (self.pieces[i] for i in ids)).decode(
            errors="replace"
        )


def test_sub_words_are_joined_and_repeated_words_kept_apart():
    reader = Spelling("a", " do", "g", " and")
    assert spelled(reader, [1, 2, 3, 4, 1, 2, 3]) == [
        ("a", (0,)),
        ("dog", (1, 2)),
        ("anda", (3, 4)),
        ("dog", (5, 6)),
    ]


def test_punctuation_is_no_word_but_stays_inside_one():
    reader = Spelling("a", " dog", ".", " don", "'t", ",", " ...")
    assert spelled(reader, [1, 2, 3, 4, 5, 6, 7]) == [("a", (0,)), ("dog", (1,)), ("don't", (3, 4))]


def test_special_tokens_end_a_word():
    reader = Spelling("do", "g")
    assert spelled(reader, [0, 1, 0, 2]) == [("do", (1,)), ("g", (3,))]


def test_bytes_of_one_letter_stay_together():
    reader = Spelling(" caf", b"\xc3", b"\xa9", " bar")
    assert spelled(reader, [1, 2, 3, 4]) == [("café", (0, 1, 2)), ("bar", (3,))]


def test_a_token_over_two_words_counts_for_the_first():
    reader = Spelling("new yo", "rk")
    assert spelled(reader, [1, 2]) == [("new", (0,)), ("york", (1,))]


def test_nothing_said_is_no_word():
    assert spelled(Spelling("."), []) == []
    assert spelled(Spelling("."), [1, 1]) == []


def test_a_word_s_score_is_the_sum_of_its_tokens():
    blip = tiny.build("blip")
    task = HFCaptioningTask(blip.model, blip.processor)
    batch = task.collate([Sample(picture(blip.size, 0), "a")])
    targets = task.given(["a pizza"], batch)
    (words,) = explain(task, batch, targets)
    y = task.scores(task.trunk(batch), batch, targets)[0]
    assert words.words == ("a", "pizza")
    assert targets.mask.sum() == 4  # a pi ##zz ##a
    torch.testing.assert_close(words.scores, torch.stack([y[0], y[1:].sum()]))


def test_one_word_rather_than_another():
    blip = tiny.build("blip")
    task = HFCaptioningTask(blip.model, blip.processor)
    batch = task.collate([Sample(picture(blip.size, 0), "a")])
    (contrast,) = explain(task, batch, task.given(["a red rather than blue square"], batch))
    red, blue = (explain(task, batch, task.given([text], batch))[0] for text in ("a red square", "a blue square"))
    assert contrast.words == ("red rather than blue",)
    torch.testing.assert_close(contrast.scores, red.scores[1:2] - blue.scores[1:2])
    torch.testing.assert_close(contrast.signed, red.signed[1:2] - blue.signed[1:2], atol=1e-6, rtol=1e-4)
    with pytest.raises(UserError, match="one token each"):
        task.given(["a red rather than pizza square"], batch)


def test_an_empty_text_is_refused():
    blip = tiny.build("blip")
    task = HFCaptioningTask(blip.model, blip.processor)
    with pytest.raises(UserError, match="at least one word"):
        task.given([" "], task.collate([Sample(picture(blip.size, 0), "a")]))


def test_ragged_answers_have_rows_of_their_own():
    targets = worded(Spelling("a", " b", " c"), [[1, 2, 3], [1], []])
    assert targets.words == (("a", "b", "c"), ("a",), ())
    assert targets.rows.sum((1, 2)).tolist() == [3, 1, 0]


def test_the_mark_of_a_picture_is_no_word():
    llava = tiny.build("llava")
    task = HFCaptioningTask(llava.model, llava.processor)
    with pytest.raises(UserError, match="mark of a picture"):
        task.given(["a <image> dog"], task.collate([Sample(picture(llava.size, 0), "a", "what?")]))


@pytest.fixture
def bytewise(monkeypatch):
    """Builds a tiny model with a byte-level tokenizer, which says nothing but whole words with spaces before them."""

    def build(module, name):
        monkeypatch.setattr(import_module(f"tests.huggingface.tiny.{module}"), "tokenizer", byte_level)
        built = tiny.build(name)
        names = built.processor.tokenizer.convert_ids_to_tokens(range(len(built.processor.tokenizer)))
        head = next(m for m in built.model.modules() if getattr(m, "out_features", 0) == len(names))
        for number, token in enumerate(names):
            if not (token.startswith("\u0120") and token[1:] in ("red", "blue", "dog", "cat", "table", "disc", "left")):
                head.weight.data[number] = 0
        return built

    return build


@pytest.mark.parametrize(
    ("module", "name", "asked", "gap"),
    [
        ("qformer", "blip-2-opt", "question: what is left of the dog? answer:", True),
        ("qformer", "blip-2-opt", "", False),
        ("idefics", "smolvlm", "what is left of the dog?", True),
        ("encoder_decoder", "vit-gpt2", "", False),
    ],
)
@pytest.mark.parametrize("task_class", [HFCaptioningTask, HFVQATask])
def test_what_a_model_has_said_is_read_as_it_was_said(bytewise, module, name, asked, gap, task_class):
    """After a letter comes a space, which a user does not write; after a mark of its own, or nothing, one has to."""
    if task_class is HFVQATask and not asked:
        return
    built = bytewise(module, name)
    task = task_class(built.model, built.processor, generation=Generation(length=4))
    batch = task.collate([Sample(picture(built.size, 0), "a", asked)])
    activations = task.trunk(batch)
    said = task.predict(activations, batch)
    text = built.processor.tokenizer.decode(said.ids[0])
    assert text.startswith(" ")
    assert len(text.split()) == 4
    for written in [text] + [text.strip()] * gap:
        given = task.given([written], batch)
        assert torch.equal(given.ids, said.ids)
        assert given.words == said.words
        assert torch.equal(task.scores(activations, batch, given), task.scores(activations, batch, said))
    if not gap:
        first = built.processor.tokenizer.convert_ids_to_tokens(task.given([text.strip()], batch).ids[0].tolist())[0]
        assert text.split()[0].startswith(first)


def test_a_contrast_of_the_first_word_has_its_space_too(bytewise):
    built = bytewise("idefics", "smolvlm")
    task = HFCaptioningTask(built.model, built.processor)
    samples = [Sample(picture(built.size, 0), "a", "what?"), Sample(picture(built.size, 0), "b", "what is left?")]
    targets = task.given(["red rather than blue square", "a red rather than blue square"], task.collate(samples))
    names = built.processor.tokenizer.convert_ids_to_tokens
    assert names(targets.ids[0].tolist())[:2] == ["\u0120red", "\u0120square"]
    assert names(targets.ids[1].tolist()) == ["\u0120a", "\u0120red", "\u0120square"]
    assert [names(targets.foils[i, i].item()) for i in range(2)] == ["\u0120blue"] * 2


def test_a_space_of_the_tokenizers_own_is_not_doubled():
    """Sentencepiece puts one before any text; behind a colon it is the text's."""
    assert _read(Prefixing(), "a dog", spaced=True) == _read(Prefixing(), "a dog") == [2, 4]


class Prefixing:
    """A space before every text, and tokens that are words and their letters' number."""

    def __call__(self, text, add_special_tokens):
        return SimpleNamespace(input_ids=[len(f" {word}") for word in text.split(" ")])


@pytest.mark.parametrize("text", ["?", " ...", "!?,", "</s>", "[PAD] ."])
def test_a_text_of_marks_alone_is_refused(text):
    """They spell no word, so there would be no row, in silence."""
    built = tiny.build("llava")
    for task_class in (HFCaptioningTask, HFVQATask):
        task = task_class(built.model, built.processor)
        batch = task.collate([Sample(picture(built.size, 0), "a", "what?")])
        with pytest.raises(UserError, match=r"expected a text of at least one word, got .* which has marks alone"):
            task.given([text], batch)
