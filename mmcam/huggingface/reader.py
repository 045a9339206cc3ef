"""Samples into a batch: by the model's own processor, one by one, with what each picture shows of its original."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmcam.huggingface.families import Family
from mmcam.huggingface.grids import whole_window
from mmcam.huggingface.inputs import joined
from mmcam.huggingface.prompts import OPENINGS, tokenizer
from mmcam.huggingface.windows import NOWHERE, windows
from mmcam.task import Batch, Sample, Window

__all__ = ["Reader"]

NAN = (float("nan"),) * 4


class Reader:
    """A processor, used as a family wants it.

    Attributes:
        processor: The processor; a pair of tokenizer and image processor will do.
        config: The model's configuration.
        family: What is particular to it.
        tokenizer: The processor's part that reads text.
    """

    def __init__(self, processor: Any, config: Any, family: Family) -> None:  # noqa: ANN401
        self.processor, self.config, self.family = processor, config, family
        self.tokenizer = tokenizer(processor)
        self._eye = _Eye(self)

    @property
    def pad(self) -> int:
        """The number that fills up text."""
        number = self.tokenizer.pad_token_id
        return 0 if number is None else number

    def prepare(self, samples: Sequence[Sample], prompts: Sequence[str]) -> Batch:
        """Make a batch; safe in a worker process.

        Args:
            samples: The samples.
            prompts: What each is asked, without marks.

        Returns:
            The batch. `images` are what the network sees if that is one picture a sample, else empty.
        """
        opening = OPENINGS[self.family.opening]
        each = [
            opening(self.processor, self.config, s.image, prompt) for s, prompt in zip(samples, prompts, strict=True)
        ]
        inputs = joined(each, self.pad, self.family.packed)
        sizes = tuple((s.image.height, s.image.width) for s in samples)
        seen = [self._windows(size) for size in sizes]
        if self.family.shown == "tiles":
            inputs["tile_windows"] = _filled(seen)
        pixels = inputs.get("pixel_values")
        single = pixels is not None and pixels.ndim == 4 and self.family.shown == "one"
        return Batch(
            images=inputs.pop("pixel_values") if single else torch.empty(len(samples), 3, 0, 0),
            ids=tuple(s.id for s in samples),
            sizes=sizes,
            texts=tuple(s.text for s in samples),
            windows=tuple(whole_window(row) for row in seen),
            inputs=inputs,
        )

    def _windows(self, size: tuple[int, int]) -> tuple[Window, ...]:
        if self.family.shown == "whole":
            return ((0.0, 0.0, float(size[0]), float(size[1])),)
        found = windows(self._eye, size)
        # Of a processor that always makes as many tiles the last ones may be empty.
        while len(found) > 1 and self.family.batched and found[-1] == NOWHERE:
            found = found[:-1]
        return found


class _Eye:
    """What a reader makes of a picture, called like an image processor; so windows are those of the very inputs."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def __call__(self, images: Any, **options: Any) -> dict[str, Any]:  # noqa: ANN401
        reader = self._reader
        image: Image.Image = images[0] if isinstance(images, list) else images
        asked = "" if reader.family.opening == "none" else "what?"  # no prompt changes a picture that is measured
        return OPENINGS[reader.family.opening](reader.processor, reader.config, image, asked)


def _filled(rows: Sequence[Sequence[Window]]) -> Float[Tensor, "b t 4"]:
    """Windows of tiles as a tensor; NaN where a sample has fewer."""
    most = max(len(row) for row in rows)
    return torch.tensor([[*row, *[NAN] * (most - len(row))] for row in rows], dtype=torch.float64)
