"""Scenes as the data of a classifier, and whether a class is right."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.scenes.source import Scenes

FIRST = 5
"""Explained classes among which ILSVRC looks for the right one, the most probable first."""


def judge_classes(
    said: Mapping[int, Sequence[str]], right: Callable[[int, str], bool | None]
) -> dict[str, Float[Tensor, " n"]]:
    """Hold classes against the truth.

    Args:
        said: The explained classes by number of the picture, the most probable first.
        right: Whether a class is in a picture; None if that cannot be said.

    Returns:
        `class_right`: 1 where the first class is in the picture. `class_right_top5`: where one of the first five is;
        left out where no picture has so many.
    """
    told = [[right(number, plain(word)) for word in words[:FIRST]] for number, words in said.items()]
    judged = {"class_right": [_one(some[:1]) for some in told]}
    if any(len(some) == FIRST for some in told):
        judged["class_right_top5"] = [_one(some if len(some) == FIRST else []) for some in told]
    return {name: torch.tensor(values) for name, values in judged.items()} if said else {}


def plain(word: str) -> str:
    """The class that a row explains; of "tabby rather than tiger cat" it is the tabby."""
    return word.partition(" rather than ")[0].strip()


def _one(some: Sequence[bool | None]) -> float:
    if any(some):
        return 1.0
    return float("nan") if not some or None in some else 0.0


class ClassifiedScenes(Scenes):
    """Scenes of the embedded world, and the kinds of things in each."""

    def given(self, number: int) -> tuple[str, ...]:
        """All kinds, as one text."""
        return (", ".join(self._kinds(number)),)

    def about(self, number: int, words: Sequence[str]) -> list[tuple[int, ...] | None]:
        """A kind means all things of the kind."""
        return super().about(number, [plain(word) for word in words])

    def judge(self, said: Mapping[int, Sequence[str]]) -> dict[str, Float[Tensor, " n"]]:
        """See `judge_classes`."""
        return judge_classes(said, lambda number, word: word in self._kinds(number))

    def _kinds(self, number: int) -> list[str]:
        return sorted({thing.kind for thing in self.scene(number).things})
