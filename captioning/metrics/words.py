"""The words of a caption as coco-caption counts them: lower case, split as in the Penn Treebank, no punctuation."""

import re

from nltk.tokenize import NLTKWordTokenizer

# What coco-caption drops. Its list also names brackets, "-LRB-", but after lower-casing, so that brackets stay words.
DROPPED = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
ABBREVIATIONS = frozenset(["ave", "dr", "jr", "mr", "mrs", "ms", "sr", "st", "vs"])

_TOKENISER = NLTKWordTokenizer()  # regular expressions only; needs no downloaded data
_PLAIN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": " -- ", "—": " -- "})
_ENDS = re.compile(r"(?<!\S)([^\s.]{2,})\.(?=\s)")


def words_of(text: str) -> list[str]:
    """Split a caption into its words.

    Differs from Stanford's PTBTokenizer, which coco-caption runs in Java, on rare texts: an abbreviation at the very
    end loses its period, "?!" and a closing quote inside a word are not what they are there, nor are web addresses.

    Args:
        text: The caption.

    Returns:
        Words without white space in them.
    """
    # nltk takes a text for one sentence, but captions may be two: "A man. A dog."
    text = _ENDS.sub(_end, text.translate(_PLAIN).lower())
    words = [word.lower() for word in _TOKENISER.tokenize(text, convert_parentheses=True)]
    return [word for word in words if word not in DROPPED]


def _end(match: re.Match[str]) -> str:
    return match[0] if match[1] in ABBREVIATIONS else f"{match[1]} ."
