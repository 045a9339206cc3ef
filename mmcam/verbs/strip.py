"""What `mmcam explain` shows of one picture: a table on the screen, a strip and a JSON file in the folder."""

from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mmcam.verbs import table
from mmcam.verbs.explained import Explained

if TYPE_CHECKING:
    from PIL import Image

    from mmcam.explanation import Explanation

Scale = Literal["own", "joint", "none"]
LARGEST_DRAWN = 1024  # pixels a side; a panel has 224
MOST_HEARD = 3  # words in the table; the strip has all


def report(one: Explained, image: "Image.Image", out: Path, scale: Scale, colours: str) -> str:
    """Write the files of one picture, and say in a table what they show.

    Args:
        one: The explanation.
        image: The picture.
        out: The folder.
        scale: As for `Explanation.overlay`.
        colours: As for `Explanation.overlay`.

    Returns:
        The question or what was said, the table and the path of the strip.
    """
    from mmcam.explanation import file_name, where

    explanation = one.explanation
    explanation.save(out)
    small, picture = _shrink(explanation, image)
    title = explanation.prompt or one.said
    strip = out / f"{file_name(explanation.id)}.png"
    replace(small, prompt=title).overlay(picture, scale=scale, colours=colours).save(strip)
    rows = [
        (word, f"{score:.3f}", flag or (where(peak, small.size) if peak else "nowhere"))
        for word, score, flag, peak in zip(
            small.words, small.scores.tolist(), explanation.flags, small.peaks(), strict=True
        )
    ]
    header, more = ("word", "score", "where"), _heard(explanation)
    if more:
        header = (*header, "unseen", "seen", "heard")
        rows = [(*row, *cells) for row, cells in zip(rows, more, strict=True)]
    shown = table(header, rows) if rows else f"  nothing to explain in {one.said!r}"
    return f"{explanation.id}: {title}\n{shown}\n  {strip}"


def _heard(explanation: "Explanation") -> list[tuple[str, str, str]]:
    """Of each row the score without the picture, how much is seen, and the words that speak most for it or against."""
    e = explanation
    if e.heard_scores is None or e.image_shares is None or e.without_picture is None:
        return []
    cells = []
    for unseen, share, row in zip(
        e.without_picture.tolist(), e.image_shares.tolist(), e.heard_scores.tolist(), strict=True
    ):
        most = sorted(zip(e.heard, row, strict=True), key=lambda pair: -abs(pair[1]))[:MOST_HEARD]
        words = ", ".join(f"{word} {value:+.2f}" for word, value in most if value)
        cells.append((f"{unseen:.3f}", "-" if isnan(share) else f"{share:.0%}", words))
    return cells


def _shrink(explanation: "Explanation", image: "Image.Image") -> "tuple[Explanation, Image.Image]":
    """Bring a large picture near a panel's size: maps of 12 million pixels need not be made to fill 224 of them."""
    factor = min(1.0, LARGEST_DRAWN / max(image.size))
    if factor == 1:
        return explanation, image
    width, height = (max(1, round(side * factor)) for side in image.size)
    down, across = height / image.height, width / image.width
    top, left, bottom, right = explanation.window
    window = (top * down, left * across, bottom * down, right * across)
    return replace(explanation, size=(height, width), window=window), image.resize((width, height))
