"""Annotated pictures out of nothing: for tests of runs, results and the command line."""

import numpy as np
import torch
from PIL import Image

from mmcam.task import Sample
from mmcam.truth import Things, Truth


class Halves(Truth):
    """Noise; by decree a dog is in the left half and a cat in the right one. A pizza is spoken of, but not there."""

    def __init__(self, count: int = 6, caption: str = "a dog left of the cat", also: str = "", wide: int = 20) -> None:
        self.ids = [f"h{i}" for i in range(count)]
        self.caption, self.also, self.wide = caption, also, wide

    def sample(self, number: int) -> Sample:
        pixels = np.random.RandomState(number).randint(0, 256, (30, 40, 3)).astype(np.uint8)
        return Sample(Image.fromarray(pixels), self.ids[number])

    def given(self, number: int) -> tuple[str, ...]:
        return tuple(text for text in (self.caption, self.also) if text)

    def things(self, number: int) -> Things:
        boxes = torch.tensor([[0.0, 0, self.wide, 30], [self.wide, 0, 40, 30]])
        return Things.of_boxes(["dog", "cat"], boxes, (30, 40))

    def about(self, number: int, words) -> list[tuple[int, ...] | None]:
        return [{"dog": (0,), "cat": (1,), "pizza": ()}.get(word) for word in words]

    def judge(self, said):
        return {"says_dog": torch.tensor([float("dog" in words) for words in said.values()])}
