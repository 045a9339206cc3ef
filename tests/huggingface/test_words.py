import pytest
import torch

from captioning.hf import HFCaptioningTask
from mmcam import Sample, UserError, explain
from mmcam.huggingface.targets import worded
from mmcam.huggingface.words import spelled
from tests.huggingface import tiny
from tests.huggingface.test_speaker import picture


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
