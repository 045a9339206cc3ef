"""Pictures and what people wrote about them, as the data of a dump and as the truth to hold it against."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from captioning.coco import CocoCaptions
from captioning.lexicon import Lexicon
from mmcam.annotations.instances import CocoInstances
from mmcam.errors import UserError
from mmcam.image import read_image
from mmcam.scenes.draw import draw
from mmcam.scenes.language import captions, is_true, meant
from mmcam.scenes.source import Scenes
from mmcam.task import Sample
from mmcam.truth import Things, Truth

__all__ = [
    "Captioned",
    "CaptionedPictures",
    "CaptionedScenes",
    "CocoCaptions",
    "DescribedThings",
    "WithInstances",
    "judge_captions",
]


def judge_captions(
    said: Mapping[int, Sequence[str]], people: Sequence[Sequence[str]]
) -> dict[str, Float[Tensor, " n"]]:
    """Hold captions against those that people wrote.

    Args:
        said: The words of the model by number of the picture.
        people: For each of them the captions that people wrote.

    Returns:
        `cider_d`, with the document frequencies of these captions; `rouge_l`; and `sentence_bleu_4`, whose mean is not
        the BLEU-4 of a corpus: that counts n-grams over all captions first (`captioning.metrics.Bleu`).
    """
    from captioning.metrics.bleu import bleu, bleu_counts
    from captioning.metrics.cider import cider_d
    from captioning.metrics.rouge import rouge_l
    from captioning.metrics.words import words_of

    if not said:
        return {}
    ours = [words_of(" ".join(words)) for words in said.values()]
    theirs = [[words_of(caption) for caption in each] for each in people]
    pairs = list(zip(ours, theirs, strict=True))
    return {
        "cider_d": cider_d(ours, theirs).float(),
        "rouge_l": torch.tensor([rouge_l(*pair) for pair in pairs]),
        "sentence_bleu_4": bleu(torch.stack([bleu_counts(*pair) for pair in pairs])).float(),
    }


class Captioned(Truth):
    """Pictures with sentences.

    Attributes:
        paths: The pictures' files.
        captions: The sentences of each.
    """

    paths: Sequence[Path]
    captions: Sequence[Sequence[str]]

    def sample(self, number: int) -> Sample:
        """Read one picture."""
        return Sample(read_image(self.paths[number]), self.ids[number])

    def given(self, number: int) -> tuple[str, ...]:
        """Its captions, without stray white space."""
        return tuple(" ".join(caption.split()) for caption in self.captions[number])

    def things(self, number: int) -> Things:
        """None: a file of captions does not say where things are.

        Raises:
            UserError: Always.
        """
        raise UserError(f"{self.ids[number]}: expected things, but captions alone do not say where they are")

    def about(self, number: int, words: Sequence[str]) -> list[tuple[int, ...] | None]:
        """Nothing: no word can be held against a place."""
        return [None] * len(words)

    def judge(self, said: Mapping[int, Sequence[str]]) -> dict[str, Float[Tensor, " n"]]:
        """See `judge_captions`."""
        return judge_captions(said, [self.given(number) for number in said])


class WithInstances(Captioned):
    """Pictures with sentences whose things stand in instances files; words are linked to things by a lexicon."""

    @abstractmethod
    def instances(self, number: int) -> tuple[CocoInstances, int] | None:
        """The instances file of a picture, and the picture's id in it; None where there is no file."""

    def things(self, number: int) -> Things:
        """The outlines of its things; crowds are ignored places.

        Raises:
            UserError: There is no instances file, or it is broken.
        """
        found = self.instances(number)
        return super().things(number) if found is None else found[0].things(found[1])

    def about(self, number: int, words: Sequence[str]) -> list[tuple[int, ...] | None]:
        """Link words to categories by the lexicon, see `captioning.lexicon.Lexicon.about`."""
        found = self.instances(number)
        if found is None:
            return super().about(number, words)
        file, image = found
        return _lexicon(tuple(file.categories.values())).about(words, file.names(image), file.crowds(image))


class CaptionedPictures(WithInstances):
    """The pictures of a COCO captions file; what people wrote about them can be explained too.

    Where the instances file lies beside it, words can be held against things.
    """

    def __init__(self, data: str, split: str) -> None:
        """Read the captions; the instances are read when they are first asked for.

        Args:
            data: Folder with `<split>/`, `annotations/captions_<split>.json` and, if there, `instances_<split>.json`.
            split: Name of the split, such as "val2014".
        """
        self._root, self._split = Path(data), split
        found = CocoCaptions(self._root / split, self._root / "annotations" / f"captions_{split}.json")
        self.paths, self.captions, self._numbers = found.paths, found.captions, found.ids
        self.ids = [path.stem for path in found.paths]

    def instances(self, number: int) -> tuple[CocoInstances, int] | None:
        """The instances of the split."""
        return None if self._instances is None else (self._instances, self._numbers[number])

    @cached_property
    def _instances(self) -> CocoInstances | None:
        file = self._root / "annotations" / f"instances_{self._split}.json"
        return CocoInstances(file) if file.exists() else None


class CaptionedScenes(Scenes):
    """Scenes of the embedded world, each with a true caption."""

    def given(self, number: int) -> tuple[str, ...]:
        """A caption."""
        return tuple(caption.text for caption in captions(self.scene(number), 1))

    def about(self, number: int, words: Sequence[str]) -> list[tuple[int, ...] | None]:
        """Of a true caption the nouns mean the very things that it is true of; of another one, all of their kind."""
        scene = self.scene(number)
        if (found := meant(tuple(words), scene)) is not None:
            return [found.get(i) for i in range(len(words))]
        return super().about(number, words)

    def judge(self, said: Mapping[int, Sequence[str]]) -> dict[str, Float[Tensor, " n"]]:
        """`true_captions`, 1 where every statement is true of the scene; and those of `judge_captions`, against 5."""
        true = torch.tensor([float(is_true(tuple(words), self.scene(number))) for number, words in said.items()])
        people = [[caption.text for caption in captions(self.scene(number), 5)] for number in said]
        return {"true_captions": true, **judge_captions(said, people)}


class DescribedThings(Scenes):
    """Things of scenes, one at a time, each described by its name: what DenseCap's regions are to Visual Genome."""

    def __init__(self, split: str = "test", count: int = 1000, seed: int = 0) -> None:
        """Find the things that are the only ones of their kind.

        Args:
            split: "train", "val", "test" or "hard".
            count: Number of scenes.
            seed: The world's.
        """
        super().__init__(split, count, seed)
        kinds = [[thing.kind for thing in self.scene(i).things] for i in range(count)]
        self._things = [(i, kind) for i, names in enumerate(kinds) for kind in names if names.count(kind) == 1]
        self.ids = [f"{self.ids[i]}-{kind.replace(' ', '_')}" for i, kind in self._things]

    def sample(self, number: int) -> Sample:
        """Draw the picture of a thing."""
        return Sample(draw(self.scene(self._things[number][0]))[0], self.ids[number])

    def given(self, number: int) -> tuple[str, ...]:
        """The description, "a dog"."""
        kind = self._things[number][1]
        return (f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}",)

    def things(self, number: int) -> Things:
        """All things of its scene."""
        return self.things_of(self.scene(self._things[number][0]))

    def about(self, number: int, words: Sequence[str]) -> list[tuple[int, ...] | None]:
        """Every word is about the thing, as every word of a region's description is about the region."""
        index, kind = self._things[number]
        return [tuple(self.scene(index).of_kind(kind))] * len(words)


@cache
def _lexicon(categories: tuple[str, ...]) -> Lexicon:
    return Lexicon.of(categories)
