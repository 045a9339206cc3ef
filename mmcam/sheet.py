"""Sheets: a picture beside its maps, one panel a word, and lines of words on the colour of what they add."""

from collections.abc import Sequence
from functools import cache
from math import ceil
from pathlib import Path
from typing import Literal

import matplotlib
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mmcam.draw import check_size, colour, overlay, resize
from mmcam.errors import UserError, unknown

__all__ = ["SIGNED", "ink_on", "strip", "word_strip"]

MOST_IN_ROW = 6
LEAST_SIDE = 8  # a strip of 30,000 x 10 pixels is drawn thicker than it is, or nobody would see it
SMALLEST_PANEL = 32
LONGEST_TEXT = 300  # of no use in a panel, and measuring a text is linear in its length
INK, PAPER = (20, 20, 20), (255, 255, 255)
FAINT = (110, 110, 110)
SIGNED = "RdBu_r"  # ColorBrewer's, told apart by the colour-blind: blue against, white neither, red for


def strip(
    image: Image.Image,
    panels: Sequence[tuple[str, str, Float[Tensor, "h w"]]],
    width_per_panel: int = 224,
    colours: str = "jet",
    opacity: float = 0.5,
    first: str = "",
) -> Image.Image:
    """Draw the word strip: the picture, then its overlay for every word, in rows of at most six.

    Args:
        image: The original picture.
        panels: For every word its title, a note under the title (its score, say) and its map as for `overlay`.
        width_per_panel: In pixels; text grows with it.
        colours: A colour map of matplotlib.
        opacity: The map's share of each pixel.
        first: The title of the picture itself (the question or caption); it may take two lines.

    Returns:
        The strip, RGB on white. Pictures keep their aspect, but for very long ones, and fit their panels.

    Raises:
        UserError: As for `overlay`, or the panels are narrower than 32 pixels.
    """
    if width_per_panel < SMALLEST_PANEL:
        raise UserError(f"expected panels of at least {SMALLEST_PANEL} pixels, got {width_per_panel}; make them wider")
    for _, _, map in panels:
        check_size(image, map)
    # All is drawn at the panel's size: a map of 12 million pixels need not be coloured to fill 224 of them.
    width, height = _fit(image.size, width_per_panel)
    small = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    title, note = _font(max(9, round(width_per_panel / 13))), _font(max(8, round(width_per_panel / 17)))
    gap = max(4, width_per_panel // 28)
    line, second = round(1.35 * title.size), round(1.4 * note.size)
    head = line + (second if first or any(text for _, text, _ in panels) else 0) + gap // 2
    columns = min(MOST_IN_ROW, 1 + len(panels))
    cell = (width_per_panel + gap, head + height + gap)
    sheet = Image.new("RGB", (columns * cell[0] + gap, ceil((1 + len(panels)) / columns) * cell[1] + gap), "white")
    draw = ImageDraw.Draw(sheet)
    start, rest = _two_lines(first, title, width_per_panel)
    for index, (label, remark, map) in enumerate([(start, rest, None), *panels]):
        left, top = gap + index % columns * cell[0], gap + index // columns * cell[1]
        middle = left + width_per_panel / 2
        draw.text((middle, top), _shorten(label, title, width_per_panel), INK, title, anchor="ma")
        draw.text((middle, top + line), _shorten(remark, note, width_per_panel), FAINT, note, anchor="ma")
        picture = small
        if map is not None:
            reduced = resize(map[None].float().cpu(), (height, width), antialias=True)[0]
            picture = overlay(small, reduced, opacity, colours)
        sheet.paste(picture, (left + (width_per_panel - width) // 2, top + head))
    return sheet


def word_strip(
    sheet: Image.Image,
    names: Sequence[str],
    heard: Sequence[str],
    scores: Float[Tensor, "r l"],
    how: Literal["own", "joint", "none"] = "own",
    size: int = 16,
    colours: str = SIGNED,
) -> Image.Image:
    """Put lines of words under a sheet: for every row all words heard, on the colour of what each adds to its score.

    Args:
        sheet: What the lines go under, such as a `strip`; they are as wide and break where it ends.
        names: Of each row.
        heard: The words.
        scores: What each word adds to each row; negative where it speaks against. What is not finite is drawn as 0.
        how: As for `scale`, by the largest magnitude.
        size: Of the letters, in pixels.
        colours: A colour map of matplotlib with nothing in its middle.

    Returns:
        Sheet and lines, RGB on white; without rows or words the sheet alone.

    Raises:
        UserError: `how` or the colour map is unknown.
    """
    if how not in ("own", "joint", "none"):
        raise unknown("scaling", how, ("own", "joint", "none"))
    if not names or not heard:
        return sheet
    scores = scores.float().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    if how != "none":
        most = scores.abs().amax(1, keepdim=True) if how == "own" else scores.abs().amax()
        scores = scores / torch.where(most > 0, most, 1)
    painted = (colour(((scores + 1) / 2)[:, None], colours)[..., 0, :] * 255).round().int()  # (r, 3, l)
    font, gap = _font(size), size // 2
    line = round(1.7 * size)
    indent = min(ceil(max(map(font.getlength, names))), sheet.width // 4)
    cells = [_shorten(word, font, sheet.width - indent - 5 * gap) for word in heard]
    places = _flow([round(font.getlength(cell)) + gap for cell in cells], indent + 3 * gap, sheet.width - gap)
    lines = 1 + places[-1][1]
    picture = Image.new("RGB", (sheet.width, sheet.height + len(names) * (lines * line + gap) + line + gap), "white")
    picture.paste(sheet)
    draw, top = ImageDraw.Draw(picture), sheet.height
    draw.text((gap, top + line / 2), "words heard: red speaks for it, blue against", FAINT, font, anchor="lm")
    top += line
    for name, row in zip(names, painted.movedim(2, 1).tolist(), strict=True):
        draw.text((gap, top + line / 2), _shorten(name, font, indent), INK, font, anchor="lm")
        for cell, (left, down), ground in zip(cells, places, row, strict=True):
            y = top + down * line
            draw.rectangle((left, y + 1, left + round(font.getlength(cell)) + gap - 2, y + line - 2), tuple(ground))
            draw.text((left + gap / 2, y + line / 2), cell, ink_on(ground), font, anchor="lm")
        top += lines * line + gap
    return picture


def ink_on(ground: Sequence[int]) -> tuple[int, int, int]:
    """Black or white letters, whichever have the greater contrast.

    Args:
        ground: Red, green and blue behind them, 0 to 255.
    """
    return INK if _luminance(ground) > 0.195 else PAPER  # where both have the same contrast


def _flow(widths: Sequence[int], left: int, right: int) -> list[tuple[int, int]]:
    """Lay cells out like running text: where each begins, and in which line."""
    places, at, line = [], left, 0
    for width in widths:
        if at > left and at + width > right:
            at, line = left, line + 1
        places.append((at, line))
        at += width
    return places


def _luminance(colour: Sequence[int]) -> float:
    """Relative luminance of an sRGB colour (WCAG 2), 0 to 1."""
    parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _fit(size: tuple[int, int], panel: int) -> tuple[int, int]:
    """Give width and height in a panel that is as wide as asked and at most half as high again."""
    ratio = min(panel / size[0], 1.5 * panel / size[1])
    return max(LEAST_SIDE, round(size[0] * ratio)), max(LEAST_SIDE, round(size[1] * ratio))


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Cut a text to a width in pixels, with an ellipsis where something is missing."""
    text = " ".join(text.split())
    if len(text) <= LONGEST_TEXT and font.getlength(text) <= width:
        return text
    text = text[:LONGEST_TEXT]
    while text and font.getlength(text.rstrip() + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _two_lines(text: str, font: ImageFont.FreeTypeFont, width: int) -> tuple[str, str]:
    """Break a text after the last word that fits the first line."""
    words = text[:LONGEST_TEXT].split()
    fitting = 0
    while fitting < len(words) and font.getlength(" ".join(words[: fitting + 1])) <= width:
        fitting += 1
    fitting = max(fitting, 1)
    return " ".join(words[:fitting]), " ".join(words[fitting:])
