"""Words and their numbers: one tokeniser and one vocabulary for captions, questions and answers."""

from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Int
from nltk.tokenize import NLTKWordTokenizer
from torch import Tensor

from mmcam.errors import UserError, unknown

PAD, START, END, UNKNOWN = "<pad>", "<start>", "<end>", "<unk>"
SPECIAL = (PAD, START, END, UNKNOWN)

_TOKENISER = NLTKWordTokenizer()  # regular expressions only; needs no downloaded data


def tokenise(text: str) -> list[str]:
    """Split a sentence into lower-case words and punctuation, as the Penn Treebank does."""
    return _TOKENISER.tokenize(text.lower())


class Vocabulary:
    """A fixed list of words; the first four are padding, start, end and the unknown word.

    Attributes:
        words: All words, in the order of their numbers.
    """

    def __init__(self, words: Sequence[str]) -> None:
        """Make a vocabulary out of its words.

        Args:
            words: In the order of their numbers, with or without the four special ones in front.
        """
        self.words = tuple(words) if tuple(words[:4]) == SPECIAL else (*SPECIAL, *words)
        self._number = {word: i for i, word in enumerate(self.words)}
        if len(self._number) != len(self.words):
            raise UserError("the words of a vocabulary must differ from one another")

    @classmethod
    def build(cls, texts: Iterable[str], least: int = 1) -> "Vocabulary":
        """Collect the words that occur often enough, in alphabetical order.

        Args:
            texts: Sentences.
            least: How often a word must occur.

        Returns:
            The vocabulary.
        """
        counts = Counter(word for text in texts for word in tokenise(text))
        return cls(sorted(word for word, n in counts.items() if n >= least and word not in SPECIAL))

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self._number

    @property
    def plain(self) -> tuple[str, ...]:
        """The words without the special ones."""
        return self.words[len(SPECIAL) :]

    def encode(self, words: Sequence[str]) -> list[int]:
        """Number words; one that is not known becomes the unknown word."""
        return [self._number.get(word, 3) for word in words]

    def encode_known(self, words: Sequence[str], kind: str = "word") -> list[int]:
        """Number words of the user's, none of which may be unknown.

        Raises:
            UserError: Names the first word that is not known and the nearest known ones.
        """
        for word in words:
            if word not in self._number or word in SPECIAL:
                raise unknown(kind, word, self.plain)
        return self.encode(words)

    def decode(self, numbers: Iterable[int]) -> list[str]:
        """Words up to the end mark, without padding and start marks."""
        words = []
        for number in numbers:
            word = self.words[number]
            if word == END:
                break
            if word not in SPECIAL[:2]:
                words.append(word)
        return words


def pad(rows: Sequence[Sequence[int]], length: int | None = None) -> tuple[Int[Tensor, "b t"], Int[Tensor, " b"]]:
    """Make a rectangle of rows of different lengths.

    Args:
        rows: The numbers; 0 pads.
        length: At least so many columns.

    Returns:
        The padded numbers and the rows' lengths.
    """
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
    columns = max([length or 0, *lengths.tolist()])
    table = torch.zeros(len(rows), columns, dtype=torch.long)
    for i, row in enumerate(rows):
        table[i, : len(row)] = torch.tensor(row, dtype=torch.long)
    return table, lengths
