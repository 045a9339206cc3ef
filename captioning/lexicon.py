"""Which words of a caption name a category of things; the rule is in docs/data.md, the table in coco_synonyms.yaml."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

__all__ = ["Lexicon", "Meaning", "singulars"]

_TABLE = Path(__file__).with_name("coco_synonyms.yaml")
_MARKS = ".,;:!?\"'`()[]"

Phrase = tuple[str, ...]


@dataclass(frozen=True)
class Meaning:
    """What a word or phrase names.

    Attributes:
        categories: Names; none where the phrase names nothing though a word of it would ("train station").
        sure: Whether it names them and nothing else; "orange" may also be a colour.
    """

    categories: tuple[str, ...]
    sure: bool


class Lexicon:
    """Words and phrases, in the singular, and the categories that they name."""

    def __init__(self, meanings: Mapping[Phrase, Meaning], plurals: Mapping[str, str] | None = None) -> None:
        """Make a lexicon.

        Args:
            meanings: By phrase, in lower case.
            plurals: Those that no rule gives, with their singular.
        """
        self._meanings, self._plurals = dict(meanings), dict(plurals or {})
        self._longest = max((len(phrase) for phrase in self._meanings), default=0)

    @classmethod
    def of(cls, categories: Iterable[str]) -> "Lexicon":
        """The lexicon of some categories: the table's words for those that COCO has too, the name itself for others.

        Args:
            categories: Their names, as in an instances file.
        """
        table, names = _table(), tuple(dict.fromkeys(categories))
        meanings: dict[Phrase, Meaning] = {_split(phrase): Meaning((), False) for phrase in table["nothing"]}
        for section, sure in (("perhaps", False), ("categories", True)):
            for name in names:
                words = [*table[section].get(name, ()), *((name,) if sure and name not in table[section] else ())]
                for phrase in map(_split, words):
                    before = meanings.get(phrase, Meaning((), False))
                    meanings[phrase] = Meaning((*before.categories, name), sure or before.sure)
        return cls(meanings, table["plurals"])

    def read(self, words: Sequence[str]) -> list[Meaning | None]:
        """Find what the words of a caption name; the longest phrase wins, and each of its words means what it means.

        Args:
            words: In order; case and punctuation do not matter.

        Returns:
            For each word its meaning, None for words that name no category.
        """
        plain = [word.lower().strip(_MARKS).removesuffix("'s") for word in words]
        found: list[Meaning | None] = []
        while len(found) < len(plain):
            length, meaning = self._longest_at(plain, len(found))
            found += [meaning if meaning and meaning.categories else None] * length
        return found

    def about(
        self, words: Sequence[str], names: Sequence[str], crowds: Collection[str] = ()
    ) -> list[tuple[int, ...] | None]:
        """Link the words of a caption to the things of a picture.

        Args:
            words: In order.
            names: The category of each thing.
            crowds: Categories of which there is a crowd, in which nobody is told apart.

        Returns:
            For each word the numbers of the things of its categories. None where it names none, and also where none is
            there but the word may mean something else, or there is a crowd of them; () where it names what is not
            there.
        """
        linked: list[tuple[int, ...] | None] = []
        for meaning in self.read(words):
            if meaning is None:
                linked.append(None)
                continue
            numbers = tuple(i for i, name in enumerate(names) if name in meaning.categories)
            unknown = not meaning.sure or any(name in crowds for name in meaning.categories)
            linked.append(None if not numbers and unknown else numbers)
        return linked

    def _longest_at(self, words: Sequence[str], start: int) -> tuple[int, Meaning | None]:
        for length in range(min(self._longest, len(words) - start), 0, -1):
            *first, last = words[start : start + length]
            for form in singulars(last, self._plurals):
                if meaning := self._meanings.get((*first, form)):
                    return length, meaning
        return 1, None


def singulars(word: str, plurals: Mapping[str, str] | None = None) -> Iterator[str]:
    """What a word may be the plural of, the word itself first.

    Args:
        word: In lower case.
        plurals: Those that no rule gives, with their singular; those of the table if not given.
    """
    yield word
    known = _table()["plurals"] if plurals is None else plurals
    if word in known:
        yield known[word]
    if word.endswith("s") and not word.endswith("ss"):
        yield word[:-1]
        if word.endswith("es"):
            yield word[:-2]
        if word.endswith("ies"):
            yield word[:-3] + "y"


def _split(phrase: str) -> Phrase:
    return tuple(phrase.lower().split())


@cache
def _table() -> dict[str, Any]:
    return yaml.safe_load(_TABLE.read_text(encoding="utf-8"))
