"""Scenes as the data of a dump, drawn when their turn comes; nothing lies on the disk."""

from collections.abc import Sequence

import torch

from mmcam.errors import UserError
from mmcam.scenes.draw import aspects, draw
from mmcam.scenes.language import NOUNS
from mmcam.scenes.world import Scene, make_scene
from mmcam.scenes.write import SPLITS
from mmcam.task import Sample
from mmcam.truth import Things, Truth


class Scenes(Truth):
    """The pictures of a split of the embedded world, with the exact masks of their things."""

    def __init__(self, split: str = "test", count: int = 1000, seed: int = 0) -> None:
        """Name the scenes.

        Args:
            split: "train", "val", "test" or "hard".
            count: How many.
            seed: The world's; the shipped models were trained on seed 0, split "train".
        """
        if split not in SPLITS:
            raise UserError(f"unknown split of scenes {split!r}; choose one of {', '.join(SPLITS)}")
        if count < 1:
            raise UserError(f"expected 1 scene or more, got {count}")
        self.split, self.seed = split, seed
        self._aspects = aspects()
        self.ids = [f"{split}-{index}" for index in range(count)]

    def scene(self, index: int) -> Scene:
        """The layout of one picture."""
        return make_scene(self.seed, self.split, index, self._aspects)

    def sample(self, number: int) -> Sample:
        """Draw one picture."""
        return Sample(draw(self.scene(number))[0], self.ids[number])

    def things(self, number: int) -> Things:
        """The visible pixels of each thing, in the order of `Scene.things`."""
        return self.things_of(self.scene(number))

    def about(self, number: int, words: Sequence[str]) -> list[tuple[int, ...] | None]:
        """A kind's name means all things of the kind; other words mean none."""
        scene = self.scene(number)
        return [tuple(scene.of_kind(NOUNS[word][0])) if word in NOUNS else None for word in words]

    @staticmethod
    def things_of(scene: Scene) -> Things:
        """The visible pixels of each thing of a scene."""
        return Things.of_masks([thing.kind for thing in scene.things], torch.from_numpy(draw(scene)[1]))
