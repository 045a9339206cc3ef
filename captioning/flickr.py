"""Flickr8k and Flickr30k: their lists of captions, and Flickr30k Entities, which links phrases to boxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from captioning.data import Captioned
from captioning.lexicon import singulars
from mmcam.annotations.markup import read_markup
from mmcam.annotations.published import inside, read_lines
from mmcam.errors import UserError
from mmcam.image import read_image
from mmcam.truth import Things

__all__ = ["Flickr30kEntities", "FlickrTokens", "Phrase", "Sentence", "read_sentence"]


class FlickrTokens(Captioned):
    """Flickr8k (`Flickr8k.token.txt`) and Flickr30k (`results_20130124.token`) as they are published: captions only.

    A line is `<picture>.jpg#<n>`, a tab, and a caption.
    """

    def __init__(self, pictures: str, tokens: str, split: str = "") -> None:
        """Read the captions.

        Args:
            pictures: Folder of the pictures.
            tokens: The list of captions.
            split: A list of pictures, one a line, such as `Flickr_8k.testImages.txt`; all pictures if not given.

        Raises:
            UserError: A file is missing or broken, a caption or picture stands twice, or a picture has no caption.
        """
        sentences: dict[str, list[str]] = {}
        seen: set[str] = set()
        for i, line in enumerate(read_lines(Path(tokens)), start=1):
            key, tab, caption = line.partition("\t")
            name, mark, number = key.strip().rpartition("#")
            if not (tab and mark and name and number.isdigit() and caption.strip()):
                raise UserError(f"{tokens}: line {i}: expected <picture>#<n>, a tab and a caption, got {line[:60]!r}")
            if key in seen:
                raise UserError(f"{tokens}: line {i}: expected each caption once, got {key} again")
            seen.add(key)
            sentences.setdefault(name, []).append(caption.strip())
        names = read_lines(Path(split)) if split else list(sentences)
        listed: set[str] = set()
        for i, name in enumerate(names, start=1):
            if name in listed:
                raise UserError(f"{split}: line {i}: expected each picture once, got {name!r} again")
            if name not in sentences:
                raise UserError(f"{split}: line {i}: {name!r} has no caption in {tokens}")
            listed.add(name)
        self.paths = [inside(Path(pictures), name, split or tokens) for name in names]
        self.captions = [sentences[name] for name in names]
        self.ids = [name.removesuffix(".jpg") for name in names]


@dataclass(frozen=True)
class Phrase:
    """A phrase of a sentence that is about something.

    Attributes:
        chain: What it is about; the same in all sentences. "0" is nothing that can be seen.
        types: "people", "animals", "scene" …
        words: Positions of its first word and of the one after its last.
    """

    chain: str
    types: tuple[str, ...]
    words: tuple[int, int]


@dataclass(frozen=True)
class Sentence:
    """A sentence of Flickr30k Entities.

    Attributes:
        words: Also punctuation.
        phrases: In order.
    """

    words: tuple[str, ...]
    phrases: tuple[Phrase, ...]

    def phrase_at(self, word: int) -> Phrase | None:
        """The phrase that a word is of."""
        return next((phrase for phrase in self.phrases if phrase.words[0] <= word < phrase.words[1]), None)


def read_sentence(line: str, where: str) -> Sentence:
    """Read `[/EN#1/animals A striped cat] with [/EN#2/bodyparts green eyes] .`.

    Args:
        line: The sentence.
        where: The file and the line's number, for the error.

    Raises:
        UserError: A phrase does not end, holds another one or no word, or has no chain or type.
    """
    words: list[str] = []
    phrases: list[Phrase] = []
    start, head = 0, ""
    for token in line.split():
        if token.startswith("[/EN#"):
            if head:
                raise UserError(f"{where}: expected the end of {head!r}, got {token!r} in it")
            start, head = len(words), token
            continue
        ends = bool(head) and token.endswith("]")
        words += [token[:-1]] if ends and token != "]" else [] if ends else [token]
        if ends:
            chain, *types = head.removeprefix("[/EN#").split("/")
            if not chain.isdigit() or not types or not all(types) or len(words) == start:
                raise UserError(
                    f"{where}: expected [/EN#<chain>/<type> words], got {head!r} of {len(words) - start} words"
                )
            phrases.append(Phrase(chain, tuple(types), (start, len(words))))
            head = ""
    if head:
        raise UserError(f"{where}: expected the end of {head!r}, got the end of the line")
    return Sentence(tuple(words), tuple(phrases))


class Flickr30kEntities(Captioned):
    """Flickr30k with boxes: all words of a phrase mean the boxes of its chain.

    Words of a sentence that people wrote mean what the phrase says. Of another caption, a word means the chains of
    which it is the last word of a phrase, in the singular, in any of the picture's sentences. Phrases without boxes
    (scenes, things that are not there, what cannot be seen) mean nothing. A thing is a box; its name is the type.
    """

    def __init__(self, data: str, split: str = "test", pictures: str = "") -> None:
        """Read the list of pictures; sentences and boxes are read when they are asked for.

        Args:
            data: Folder with `Sentences/`, `Annotations/`, `<split>.txt` and, if there, `UNRELATED_CAPTIONS`, whose
                captions are left out.
            split: "train", "val" or "test".
            pictures: Folder of the pictures; `flickr30k-images` in the data's if not given.

        Raises:
            UserError: A list is missing or broken, or names a picture twice.
        """
        self._root = Path(data)
        file = inside(self._root, f"{split}.txt", "split")
        self.ids = read_lines(file)
        known: set[str] = set()
        for i, name in enumerate(self.ids, start=1):
            if name in known or not name.isdigit():
                raise UserError(f"{file}: line {i}: expected the number of a picture, each once, got {name!r}")
            known.add(name)
        folder = Path(pictures) if pictures else self._root / "flickr30k-images"
        self.paths = [folder / f"{name}.jpg" for name in self.ids]
        self._unrelated = _unrelated(self._root / "UNRELATED_CAPTIONS")

    def given(self, number: int) -> tuple[str, ...]:
        """The sentences about the picture, without brackets."""
        name = self.ids[number]
        return tuple(
            " ".join(sentence.words)
            for i, sentence in enumerate(self.sentences(number), start=1)
            if (name, i) not in self._unrelated
        )

    def sentences(self, number: int) -> tuple[Sentence, ...]:
        """All sentences of a picture, also unrelated ones.

        Raises:
            UserError: The file is missing or broken.
        """
        return _sentences(self._root / "Sentences" / f"{self.ids[number]}.txt")

    def things(self, number: int) -> Things:
        """The boxes of a picture, 1-based and inclusive in the file."""
        boxes, size = self._boxes(number)
        # The first mention of a chain says its type.
        types = {phrase.chain: phrase.types[0] for s in self.sentences(number)[::-1] for phrase in s.phrases[::-1]}
        names = [types.get(chains[0], "other") for chains, _ in boxes]
        edges = [[left - 1, top - 1, right, bottom] for _, (left, top, right, bottom) in boxes]
        if size is None:
            picture = read_image(self.paths[number])
            size = picture.height, picture.width
        return Things.of_boxes(names, torch.tensor(edges, dtype=torch.float32).view(-1, 4), size)

    def about(self, number: int, words: Sequence[str]) -> list[tuple[int, ...] | None]:
        """Link words to boxes, see the class."""
        of_chain: dict[str, tuple[int, ...]] = {}
        for i, (chains, _) in enumerate(self._boxes(number)[0]):
            for chain in chains:
                of_chain[chain] = (*of_chain.get(chain, ()), i)
        sentences = self.sentences(number)
        for sentence in sentences:
            if (places := _places(words, sentence.words)) is not None:
                phrases = [None if place is None else sentence.phrase_at(place) for place in places]
                return [of_chain.get(phrase.chain) if phrase else None for phrase in phrases]
        heads: dict[str, set[int]] = {}
        for phrase, head in ((phrase, s.words[phrase.words[1] - 1]) for s in sentences for phrase in s.phrases):
            for form in singulars(head.lower()):
                heads.setdefault(form, set()).update(of_chain.get(phrase.chain, ()))
        meant = [{i for form in singulars(word.lower()) for i in heads.get(form, ())} for word in words]
        return [tuple(sorted(numbers)) or None for numbers in meant]

    def _boxes(
        self, number: int
    ) -> tuple[list[tuple[tuple[str, ...], tuple[float, float, float, float]]], tuple[int, int] | None]:
        """The chains and edges of each box, and the picture's height and width if they are known."""
        name = self.ids[number]
        found = read_markup(self._root / "Annotations" / f"{name}.xml", name)
        return [(thing.names, thing.box) for thing in found.things if thing.box is not None], found.size


def _places(words: Sequence[str], others: Sequence[str]) -> list[int | None] | None:
    """Where words begin in a sentence of the same letters, which may be cut into other words and have punctuation.

    Returns:
        For each word the position of the one that holds its first letter, None for punctuation; None if the sentences
        differ.
    """
    ours, theirs = ([_letters(word) for word in some] for some in (words, others))
    if "".join(ours) != "".join(theirs):
        return None
    word_of = [i for i, letters in enumerate(theirs) for _ in letters]
    starts = [sum(map(len, ours[:i])) for i in range(len(ours))]
    return [word_of[start] if letters else None for start, letters in zip(starts, ours, strict=True)]


def _letters(word: str) -> str:
    return "".join(character for character in word.lower() if character.isalnum())


def _unrelated(file: Path) -> set[tuple[str, int]]:
    """Picture and number, from 1, of the captions that are about something else."""
    found: set[tuple[str, int]] = set()
    for i, line in enumerate(read_lines(file) if file.exists() else [], start=1):
        if line and not line.startswith("#"):
            name, _, number = line.partition(" ")
            if not number.strip().isdigit():
                raise UserError(f"{file}: line {i}: expected a picture and the number of a sentence, got {line[:60]!r}")
            found.add((name, int(number)))
    return found


@lru_cache(maxsize=64)
def _sentences(file: Path) -> tuple[Sentence, ...]:
    found = tuple(read_sentence(line, f"{file}: line {i}") for i, line in enumerate(read_lines(file), start=1))
    if not found:
        raise UserError(f"{file}: expected five sentences, got none; download the file again")
    return found
