"""Words out of sub-words: which tokens of an answer spell which word."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

__all__ = ["spelled"]

BROKEN = "\N{REPLACEMENT CHARACTER}"  # what a tokenizer gives for a part of a letter


def spelled(tokenizer: Any, ids: Sequence[int]) -> list[tuple[str, tuple[int, ...]]]:  # noqa: ANN401
    """Find the words that tokens spell; of repeated words each is one of its own.

    Words stand between spaces, which every tokenizer writes in its own way ("▁", "Ġ", no "##") and only its decoder
    knows for sure; punctuation around them is left out. In scripts without spaces a phrase is one word.

    Args:
        tokenizer: With `decode` and `all_special_ids`.
        ids: The tokens; special ones spell nothing and end a word.

    Returns:
        Each word with the places of its tokens, one at least. A token that spells the end of one word and the beginning
        of another counts for the first.
    """
    text, owners = _text(tokenizer, ids)
    words, taken = [], -1
    for match in re.finditer(r"\S+", text):
        start, end = match.span()
        while start < end and _is_mark(text[start]):
            start += 1
        while start < end and _is_mark(text[end - 1]):
            end -= 1
        places = sorted({place for spot in owners[start:end] for place in spot if place > taken})
        if places:
            words.append((text[start:end], tuple(places)))
            taken = places[-1]
    return words


def _text(tokenizer: Any, ids: Sequence[int]) -> tuple[str, list[tuple[int, ...]]]:  # noqa: ANN401
    """The text, and for each of its letters the places of the tokens that it came from."""
    special = set(tokenizer.all_special_ids)
    text, owners = "", []
    seen: list[int] = []  # tokens since the last special one,
    said = ""  # what they spell
    waiting: list[int] = []  # and the places of the last ones, which are no whole letter yet
    for place, number in enumerate(ids):
        if number in special:
            text, owners = text + " ", [*owners, ()]
            seen, said, waiting = [], "", []
            continue
        seen.append(number)
        waiting.append(place)
        longer = tokenizer.decode(seen, clean_up_tokenization_spaces=False)
        if longer.endswith(BROKEN) and place + 1 < len(ids):
            continue
        piece = longer[len(said) :] if longer.startswith(said) else longer
        text, owners = text + piece, [*owners, *([tuple(waiting)] * len(piece))]
        said, waiting = longer, []
    return text, owners


def _is_mark(letter: str) -> bool:
    return unicodedata.category(letter)[0] == "P"
