"""What comes out: one image's words, scores and maps."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmcam import draw, sheet
from mmcam.task import Window

LONGEST_NAME = 100  # bytes; file systems allow 255, with the suffix


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where a model looked in one picture, for each word, answer or class.

    Attributes:
        id: Name of the picture or question.
        prompt: The question; "" where there is none.
        words: Name of each row.
        scores: y of each row: a log-probability (captions) or a logit (answers, classes), or a sum of such.
        signed: The maps before ReLU at the layer's resolution, as the method gave them.
        size: Height and width of the original picture.
        window: Which part of the original the maps cover: top, left, bottom, right in pixels.
        method: Name of the method.
        layer: Name of the explained layer.
        weights: α of each channel, where the method is made of such and they were asked for.
        heard: The words that the model heard, of the question or of the caption so far; this and the next three by
            `mmcam.heard.with_words`.
        heard_scores: What each of them adds to each row's score; negative where it speaks against.
        image_shares: How much of each row's score is seen, from 0 to 1, and not heard (`mmcam.heard.Shares`).
        without_picture: y of each row before a blank picture.
    """

    id: str
    prompt: str
    words: tuple[str, ...]
    scores: Float[Tensor, " r"]
    signed: Float[Tensor, "r h w"]
    size: tuple[int, int]
    window: Window
    method: str
    layer: str
    weights: Float[Tensor, "r k"] | None = None
    heard: tuple[str, ...] = ()
    heard_scores: Float[Tensor, "r l"] | None = None
    image_shares: Float[Tensor, " r"] | None = None
    without_picture: Float[Tensor, " r"] | None = None

    @property
    def maps(self) -> Float[Tensor, "r h w"]:
        """The raw maps L: not scaled, not smoothed, ReLU applied (Eq. 2); non-finite numbers stay."""
        return self.signed.relu()

    @property
    def flags(self) -> tuple[str, ...]:
        """What is wrong with each map: "non-finite", "zero" everywhere, "negative" (nothing after ReLU), or ""."""
        return tuple(_flag(row) for row in self.signed)

    def upsample(self) -> Float[Tensor, "r H W"]:
        """The maps at the size of the original picture, bilinearly, zero outside the window."""
        return draw.upsample(self.maps, self.size, self.window)

    def peaks(self) -> list[tuple[int, int] | None]:
        """Row and column of each map's maximum in the original picture; None for a map that is nowhere positive."""
        # Row by row: twelve maps of a large photo at its own size would be gigabytes.
        return [self._peak(draw.upsample(row[None], self.size, self.window)[0]) for row in self.maps]

    def _peak(self, large: Float[Tensor, "H W"]) -> tuple[int, int] | None:
        large = large.nan_to_num(nan=0.0, posinf=0.0)
        return divmod(int(large.argmax()), self.size[1]) if bool(large.any()) else None

    def overlay(
        self,
        image: Image.Image,
        *,
        scale: Literal["own", "joint", "none"] = "own",
        colours: str = "jet",
        opacity: float = 0.5,
    ) -> Image.Image:
        """Draw the picture and one panel a word; below, if they are known, the words heard.

        Args:
            image: The original picture.
            scale: "own" divides each map by its maximum, "joint" all maps of the picture by their common one, "none"
                shows them as they are; so with the words heard.
            colours: Name of a matplotlib colour map.
            opacity: Of the map over the picture, 0 to 1.

        Returns:
            The strip.
        """
        maps = draw.scale(self.upsample(), scale)
        panels = [
            (word, flag or f"{score:.2f}", row)
            for word, score, flag, row in zip(self.words, self.scores.tolist(), self.flags, maps, strict=True)
        ]
        drawn = sheet.strip(image, panels, colours=colours, opacity=opacity, first=self.prompt)
        if self.heard_scores is None:
            return drawn
        return sheet.word_strip(drawn, self.words, self.heard, self.heard_scores, scale)

    def save(self, folder: Path | str, image: Image.Image | None = None) -> Path:
        """Write `<id>.json` (words, scores, flags, sizes …), the raw maps as `<id>.npy` and the strip as `<id>.png`.

        A score that is not finite is null in the JSON, which knows no NaN; so is the peak of an empty map. What is
        known of words heard is in the JSON too. An id that is no file's name is cleaned (see `file_name`); different
        ids never write to the same files.

        Args:
            folder: Where to write; made if it is missing.
            image: The original picture; without it no strip is drawn.

        Returns:
            The path of the strip, or of the JSON file if there is no picture.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        name = file_name(self.id)
        np.save(folder / f"{name}.npy", self.maps.numpy(), allow_pickle=False)
        record = {
            "id": self.id,
            "prompt": self.prompt,
            "words": self.words,
            "scores": _finite(self.scores),
            "flags": self.flags,
            "peaks": self.peaks(),
            "size": self.size,
            "window": self.window,
            "method": self.method,
            "layer": self.layer,
            "maps": f"{name}.npy",
            **self._heard(),
        }
        path = folder / f"{name}.json"
        path.write_text(json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8")
        if image is not None:
            path = folder / f"{name}.png"
            self.overlay(image).save(path)
        return path

    def _heard(self) -> dict[str, object]:
        """What is known of the words heard, for the JSON file."""
        found: dict[str, object] = {}
        if self.heard_scores is not None:
            found = {"heard": self.heard, "heard_scores": [_finite(row) for row in self.heard_scores]}
        per_row = {"image_shares": self.image_shares, "without_picture": self.without_picture}
        return found | {name: _finite(values) for name, values in per_row.items() if values is not None}


def _finite(values: Float[Tensor, " n"]) -> list[float | None]:
    return [value if isfinite(value) else None for value in values.tolist()]


def file_name(identity: str) -> str:
    """Turn an id into a name that is safe as a file's: letters, digits, dot, dash and underscore, 100 bytes at most.

    An id that is not such a name itself is cleaned, and some digits of its hash tell "a/b" from "a_b".
    """
    name = (
        re.sub(r"[^\w.-]+", "_", identity).encode(errors="ignore")[-LONGEST_NAME:].decode(errors="ignore").strip("._")
    )
    if name == identity != "":
        return name
    digits = sha256(identity.encode(errors="surrogatepass")).hexdigest()[:8]
    name = name.encode()[-LONGEST_NAME + 9 :].decode(errors="ignore").strip("._") or "picture"
    return f"{name}-{digits}"


def where(peak: tuple[int, int], size: Sequence[int]) -> str:
    """Say a place in words, such as "top left", "centre" or "bottom"."""
    row = ("top", "", "bottom")[min(2, 3 * peak[0] // size[0])]
    column = ("left", "", "right")[min(2, 3 * peak[1] // size[1])]
    return f"{row} {column}".strip() or "centre"


def _flag(signed: Float[Tensor, "h w"]) -> str:
    if not bool(torch.isfinite(signed).all()):
        return "non-finite"
    if not bool(signed.any()):
        return "zero"
    return "" if bool((signed > 0).any()) else "negative"
