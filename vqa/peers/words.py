"""Vocabularies numbered as their authors did, and questions cut into words as their authors did."""

import logging
import re
from collections.abc import Sequence

from mmcam.errors import UserError
from mmcam.text import Vocabulary

__all__ = ["PeerVocabulary", "check_asked"]

logger = logging.getLogger(__name__)


class PeerVocabulary(Vocabulary):
    """Words that begin with other marks than ours, or with none; what is unknown has a number of the author's choice.

    Attributes:
        words: All words, in the order of their numbers.
        marks: Those that nobody says, such as "<unk>".
    """

    def __init__(self, words: Sequence[str], unknown: int) -> None:  # not ours: no four marks in front
        """Number the words.

        Args:
            words: In the order of their numbers. Of two alike the later counts, as in a dictionary of Python's.
            unknown: What a word that is not among them becomes.

        Raises:
            UserError: There is no such number.
        """
        if not 0 <= unknown < len(words):
            raise UserError(
                f"expected the unknown word's number below {len(words)}, the number of words; got {unknown}"
            )
        self.words = tuple(words)
        self.marks = frozenset(word for word in self.words if re.fullmatch(r"<\w+>", word))
        self._number = {word: i for i, word in enumerate(self.words)}
        self._unknown = unknown
        self._told: set[str] = set()

    @property
    def plain(self) -> tuple[str, ...]:
        """The words without the marks."""
        return tuple(word for word in self.words if word not in self.marks)

    def encode(self, words: Sequence[str]) -> list[int]:
        """Number words; one that is not known becomes the unknown word, which is said once of each."""
        for word in words:
            if word not in self._number and word not in self._told:
                self._told.add(word)
                logger.warning("the model does not know the word %r: it hears %r", word, self.words[self._unknown])
        return [self._number.get(word, self._unknown) for word in words]


def check_asked(questions: Sequence[str]) -> None:
    """Refuse what is no question.

    Raises:
        UserError: One is empty.
    """
    if not all(question.strip() for question in questions):
        raise UserError("expected a question with every picture, got an empty one; give it with --question")
