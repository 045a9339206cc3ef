"""What the page's script reads: islands of pictures and maps, and one index of all words, scores and marks."""

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmcam.dumps.schema import FLAGS
from mmcam.errors import UserError
from mmcam.explanation import Explanation
from mmcam.report.shown import ABSENT, HIT, MISS, UNKNOWN, Shown

__all__ = ["COLOURS", "Index", "shrink"]

COLOURS = ("viridis", "cividis", "inferno", "jet")
"""Colour maps of the page; all but the last can be read by the colour-blind."""

QUALITY = 80
MOST_WORDS = 50  # in a table of failures


class Index:
    """Takes what is shown one by one, and keeps of each what it is searched, filtered and sorted by.

    Attributes:
        shown: Number of pictures, questions or captions.
        pictures: Number of different pictures.
        maps: Number of maps.
        missing: Number of things shown whose picture is absent.
        heard: Number of things shown with words heard.
    """

    def __init__(self, separator: str, side: int, map_side: int) -> None:
        """Start.

        Args:
            separator: See `mmcam.report.Facts`.
            side: Longest side of the pictures.
            map_side: Longest side of the maps.
        """
        self.shown = self.pictures = self.maps = self.missing = self.heard = 0
        self._separator, self._side, self._map_side = separator, side, map_side
        self._methods: tuple[str, ...] = ()
        self._known: dict[bytes, int] = {}
        self._vocabulary: dict[str, int] = {}
        self._columns: dict[str, list[Any]] = {
            name: [] for name in ("ids", "prompts", "pictures", "words", "scores", "flags", "marks")
        }
        self._right: list[float | None] = []

    def add(self, one: Shown) -> Iterator[dict[str, Any]]:
        """Take one more.

        Args:
            one: What is shown.

        Yields:
            Islands: the picture, unless an equal one came before, then the maps. Each has `kind`, `number`, `content`.

        Raises:
            UserError: The methods are not those of the others, or do not explain the same words.
        """
        first = one.first
        if not self.shown:
            self._methods = tuple(one.explanations)
        if tuple(one.explanations) != self._methods:
            raise UserError(
                f"{first.id}: expected maps by {', '.join(self._methods)}, got {', '.join(one.explanations)}"
            )
        if any(other.words != first.words for other in one.explanations.values()):
            raise UserError(f"{first.id}: expected the same words by every method, got others")
        if one.marks and len(one.marks) != len(first.words):
            raise UserError(f"{first.id}: expected {len(first.words)} marks, got {len(one.marks)}")
        picture = -1
        if one.image is None:
            self.missing += 1
        else:
            small = shrink(one.image, self._side)
            content = _jpeg(small)
            digest = hashlib.sha256(content).digest()
            picture = self._known.setdefault(digest, self.pictures)
            if picture == self.pictures:
                self.pictures += 1
                island = {"width": small.width, "height": small.height, "jpeg": _base64(content)}
                yield {"kind": "picture", "number": picture, "content": island}
        yield {"kind": "maps", "number": self.shown, "content": self._island(one)}
        values = {
            "ids": first.id,
            "prompts": first.prompt,
            "pictures": picture,
            "words": [self._vocabulary.setdefault(word, len(self._vocabulary)) for word in first.words],
            "scores": [_rounded(score) for score in first.scores.tolist()],
            "flags": _flags(first),
            "marks": one.marks,
        }
        for name, value in values.items():
            self._columns[name].append(value)
        self.shown += 1
        self.maps += len(first.words) * len(self._methods)

    def record(self, columns: Mapping[str, Sequence[float | None]]) -> dict[str, Any]:
        """The index.

        Args:
            columns: Values to sort by, one a thing shown; those of `right` are 1 or 0.

        Raises:
            UserError: A column is not as long as what is shown.
        """
        for name, values in columns.items():
            if len(values) != self.shown:
                raise UserError(f"column {name}: expected {self.shown} values, got {len(values)}")
        self._right = list(columns.get("right", []))
        return {
            "methods": self._methods,
            "separator": self._separator,
            "answers": "," in self._separator,
            "vocabulary": list(self._vocabulary),
            **self._columns,
            "right": self._right,
            "columns": {
                name: [None if value is None else _rounded(value) for value in values]
                for name, values in columns.items()
                if name != "right"
            },
            "colours": {name: _base64(_table(name)) for name in COLOURS},
        }

    def failures(self) -> dict[str, Any]:
        """What is to be looked at: numbers of things shown by kind of failure, and the words behind them.

        Returns:
            `counts` by filter of the page (`miss`, `absent`, `wrong`, `flagged`, `missing`); `missed`, of words whose
            maps miss most the word, the misses and the judged maps; `absent`, of words for what is not there the word
            and how often; `judged` and `right_known`, whether there was any truth; `questions`, whether these are
            answers to such; `method`, whose maps were judged. Complete after `record`.
        """
        marks, names = self._columns["marks"], list(self._vocabulary)
        by_mark: dict[str, Counter[int]] = {HIT: Counter(), MISS: Counter(), ABSENT: Counter(), UNKNOWN: Counter()}
        for words, letters in zip(self._columns["words"], marks, strict=True):
            for word, letter in zip(words, letters, strict=False):
                by_mark[letter][word] += 1
        missed = sorted(by_mark[MISS].items(), key=lambda pair: (-pair[1], names[pair[0]]))
        absent = sorted(by_mark[ABSENT].items(), key=lambda pair: (-pair[1], names[pair[0]]))
        return {
            "counts": {
                "miss": sum(MISS in letters for letters in marks),
                "absent": sum(ABSENT in letters for letters in marks),
                "wrong": sum(value == 0 for value in self._right),
                "flagged": sum(bool(letters.strip("0")) for letters in self._columns["flags"]),
                "missing": self.missing,
            },
            "missed": [(names[word], n, n + by_mark[HIT][word]) for word, n in missed[:MOST_WORDS]],
            "absent": [(names[word], n) for word, n in absent[:MOST_WORDS]],
            "judged": any(letters.strip(UNKNOWN) for letters in marks),
            "right_known": any(value is not None for value in self._right),
            "questions": "," in self._separator and any(self._columns["prompts"]),
            "method": next(iter(self._methods), ""),
        }

    def _island(self, one: Shown) -> dict[str, Any]:
        """The maps of one, by method, and what belongs to it but is not searched."""
        first = one.first
        (height, width), (top, left, bottom, right) = first.size, first.window
        window = [top / height, left / width, bottom / height, right / width]
        content: dict[str, Any] = {"size": [height, width], "window": [round(edge, 6) for edge in window], "maps": []}
        for explanation in one.explanations.values():
            maps = explanation.maps.float().nan_to_num(nan=0.0, posinf=0.0)
            peaks = maps.flatten(1).amax(1).tolist() if maps.numel() else []
            small = _reduced(maps, self._map_side)
            most = small.flatten(1).amax(1)[:, None, None] if small.numel() else small
            scaled = small / most.where(most > 0, 1.0)
            places = (scaled * 255).round().byte().numpy().tobytes()
            shape = list(small.shape[1:])
            content["maps"].append(
                {
                    "shape": shape,
                    "places": _base64(places),
                    "peaks": [float(f"{peak:.4g}") for peak in peaks],
                    "flags": _flags(explanation),
                }
            )
        if first.heard_scores is not None:
            self.heard += 1
            content["heard"] = list(first.heard)
            content["heard_scores"] = [[_rounded(value) for value in row] for row in first.heard_scores.tolist()]
        if first.image_shares is not None:
            content["seen"] = [_rounded(share) for share in first.image_shares.tolist()]
        if one.given:
            content["given"] = list(one.given)
        if one.missing:
            content["missing"] = one.missing
        return content


def shrink(image: Image.Image, side: int) -> Image.Image:
    """A picture of at most so many pixels a side; a long one is one pixel wide at least."""
    image = image.convert("RGB")
    factor = side / max(image.size)
    if factor >= 1:
        return image
    return image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))))


def _jpeg(image: Image.Image) -> bytes:
    stream = BytesIO()
    image.save(stream, "JPEG", quality=QUALITY, optimize=True)
    return stream.getvalue()


def _reduced(maps: Float[Tensor, "r h w"], side: int) -> Float[Tensor, "r h2 w2"]:
    """Maps of at most so many places a side, by averaging."""
    factor = side / max(maps.shape[1:])
    if factor >= 1 or not len(maps):
        return maps
    height, width = (max(1, round(n * factor)) for n in maps.shape[1:])
    return F.adaptive_avg_pool2d(maps[:, None], (height, width))[:, 0]


def _flags(explanation: Explanation) -> str:
    return "".join(str(FLAGS.index(flag)) for flag in explanation.flags)


def _table(name: str) -> bytes:
    """256 colours, each red, green and blue."""
    colours = matplotlib.colormaps[name](np.arange(256))[:, :3]
    return (colours * 255).round().astype(np.uint8).tobytes()


def _rounded(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
