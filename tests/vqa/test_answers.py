"""Answers that the user names become ids, rows and foils."""

import pytest
import torch

from mmcam.errors import UserError
from vqa.answers import named

ANSWERS = ("yes", "no", "polar bear", "dog")
CPU = torch.device("cpu")


def test_answers_by_their_numbers():
    targets = named(["dog,  polar   bear ", "no"], ANSWERS, CPU)
    assert targets.ids.tolist()[0] == [3, 2]
    assert targets.ids.tolist()[1][0] == 1
    assert targets.mask.tolist() == [[True, True], [True, False]]
    assert targets.words == (("dog", "polar bear"), ("no",))
    assert targets.foils is None


def test_contrasts_have_foils():
    targets = named(["dog rather than polar bear, yes rather than no"], ANSWERS, CPU)
    assert targets.ids.tolist() == [[3, 0]]
    assert targets.foils is not None
    assert targets.foils.tolist() == [[2, 1]]
    assert targets.words == (("dog rather than polar bear", "yes rather than no"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" , ", "expected an answer to explain, got an empty one"),
        ("dig", "unknown answer 'dig': did you mean 'dog'"),
        ("yes rather than nay", "unknown answer 'nay'"),
        ("dog, yes rather than no", "not both kinds in one call"),
    ],
)
def test_mistakes(text, message):
    with pytest.raises(UserError, match=message):
        named([text], ANSWERS, CPU)
