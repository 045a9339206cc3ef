import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmcam.errors import UserError
from mmcam.text import END, PAD, SPECIAL, START, UNKNOWN, Vocabulary, pad, tokenise

TEXTS = ["A dog, and a cat.", "a dog"]


def test_tokenise_splits_punctuation_and_lowers():
    assert tokenise("A dog, and a Cat.") == ["a", "dog", ",", "and", "a", "cat", "."]
    assert tokenise("What's left of it?") == ["what", "'s", "left", "of", "it", "?"]
    assert tokenise("dog/cat") == ["dog/cat"]
    assert tokenise("  ") == []


def test_special_words_come_first_in_this_order():
    words = Vocabulary(["dog", "cat"])
    assert words.words == (PAD, START, END, UNKNOWN, "dog", "cat")
    assert words.words[:4] == SPECIAL
    assert words.plain == ("dog", "cat")
    assert len(words) == 6
    assert Vocabulary(words.words).words == words.words  # as it is read back from a file


def test_build_counts_and_sorts():
    assert Vocabulary.build(TEXTS).plain == (",", ".", "a", "and", "cat", "dog")
    assert Vocabulary.build(TEXTS, least=2).plain == ("a", "dog")
    assert Vocabulary.build(TEXTS, least=3).plain == ("a",)
    assert Vocabulary.build([]).words == SPECIAL


def test_no_text_can_say_a_special_word():
    assert not {*SPECIAL} & {*Vocabulary.build(["<pad> <start> <end> <unk>"]).plain}


def test_words_must_differ():
    with pytest.raises(UserError, match="must differ"):
        Vocabulary(["dog", "dog"])


def test_encode_turns_what_is_not_known_into_the_unknown_word():
    words = Vocabulary(["dog", "cat"])
    assert words.encode(["cat", "cow", END, "dog"]) == [5, 3, 2, 4]
    assert "dog" in words
    assert "cow" not in words


def test_what_the_user_says_must_be_known():
    words = Vocabulary(["dog", "dogs", "cat"])
    assert words.encode_known(["dog", "cat"]) == [4, 6]
    with pytest.raises(UserError, match="unknown word 'dogz': did you mean 'dog'"):
        words.encode_known(["cat", "dogz"])
    with pytest.raises(UserError, match="unknown word of a question 'cow'"):
        words.encode_known(["cow"], "word of a question")
    with pytest.raises(UserError, match="unknown word '<end>'"):
        words.encode_known([END])


def test_decode_stops_at_the_end_and_shows_unknown_words():
    words = Vocabulary(["dog", "cat"])
    assert words.decode([1, 4, 3, 0, 5, 2, 4]) == ["dog", UNKNOWN, "cat"]
    assert words.decode([]) == []


@given(st.lists(st.sampled_from(["dog", "cat", "a", ","])))
def test_decode_undoes_encode(sentence):
    words = Vocabulary(["a", "cat", "dog", ","])
    assert words.decode([*words.encode(sentence), 2, 0]) == sentence


def test_pad_makes_a_rectangle():
    table, lengths = pad([[4, 5], [], [6, 7, 8]])
    assert table.tolist() == [[4, 5, 0], [0, 0, 0], [6, 7, 8]]
    assert lengths.tolist() == [2, 0, 3]
    assert table.dtype == lengths.dtype == torch.long


def test_pad_to_a_length():
    assert pad([[4]], 3)[0].tolist() == [[4, 0, 0]]
    assert pad([[4, 5]], 1)[0].tolist() == [[4, 5]]
    assert pad([])[0].shape == (0, 0)
