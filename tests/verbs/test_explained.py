"""Words and phrases are found among what is said, and those that are nowhere are told."""

import pytest

from mmcam.errors import UserError
from mmcam.verbs.explained import Phrases


def test_phrases():
    words = ["a", "dog", "left", "of", "a", "red dog"]
    assert Phrases([]).spans(words) == [(i, i + 1) for i in range(6)]
    assert Phrases(["A"]).spans(words) == [(0, 1), (4, 5)]
    assert Phrases(["left of", "Red  Dog", "a red dog"]).spans(words) == [(2, 4), (5, 6), (4, 6)]
    assert Phrases(["dog left a"]).spans(words) == []


def test_phrases_that_are_nowhere(caplog):
    phrases = Phrases(["dog", "cow"])
    phrases.spans(["a", "cat"])
    with pytest.raises(UserError, match="'dog'"):
        phrases.check()
    phrases.spans(["a", "dog"])
    phrases.check()
    assert "'cow' was said of no picture" in caplog.text
