"""Maps on pictures: back to the original size, scaled, coloured, laid over the picture, one panel a word."""

from collections.abc import Sequence
from functools import cache
from math import ceil
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mmcam.errors import UserError, unknown

MOST_IN_ROW = 6
LEAST_SIDE = 8  # a strip of 30,000 x 10 pixels is drawn thicker than it is, or nobody would see it
SMALLEST_PANEL = 32
LONGEST_TEXT = 300  # of no use in a panel, and measuring a text is linear in its length
INK = (20, 20, 20)
FAINT = (110, 110, 110)
SIGNED = "RdBu_r"  # ColorBrewer's, told apart by the colour-blind: blue against, white neither, red for


def upsample(
    maps: Float[Tensor, "r h w"],
    size: tuple[int, int],
    window: tuple[float, float, float, float] | None = None,
) -> Float[Tensor, "r H W"]:
    """Bring maps to the size of the original picture, bilinearly with `align_corners=False`.

    Args:
        maps: One map a row, of any resolution.
        size: Height and width of the original, in pixels.
        window: The part of the original that the maps cover: top, left, bottom, right in pixels of the original; it
            is rounded to whole pixels, one at least. Where it reaches outside the original, the maps are cut without
            rounding it; one that lies outside altogether shows nothing. None means all of it.

    Returns:
        The maps on the original's pixels, zero outside the window.
    """
    if window is None:
        return _resize(maps, size)
    if window[2] <= 0 or window[3] <= 0 or window[0] >= size[0] or window[1] >= size[1]:
        return maps.new_zeros((maps.shape[0], *size))
    if window[0] < 0 or window[1] < 0 or window[2] > size[0] or window[3] > size[1]:
        return _cut(maps, size, window)
    top, bottom = _whole(window[0], window[2], size[0])
    left, right = _whole(window[1], window[3], size[1])
    full = maps.new_zeros((maps.shape[0], *size))
    full[:, top:bottom, left:right] = _resize(maps, (bottom - top, right - left))
    return full


def scale(maps: Float[Tensor, "r h w"], how: Literal["own", "joint", "none"]) -> Float[Tensor, "r h w"]:
    """Divide maps by their maximum for showing; nothing is squared, shifted or clamped.

    Args:
        maps: One map a row. Pixels that are not finite become 0.
        how: "own": each map by its own maximum; "joint": all by the greatest of them, so that the words of a caption
            can be compared; "none": left as they are.

    Returns:
        The scaled maps. One without a positive value is left as it is: a zero map stays zero.

    Raises:
        UserError: `how` is another word.
    """
    if how not in ("own", "joint", "none"):
        raise unknown("scaling", how, ("own", "joint", "none"))
    maps = maps.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    if how == "none" or maps.numel() == 0:
        return maps
    peaks = maps.amax(dim=(1, 2), keepdim=True)
    if how == "joint":
        peaks = peaks.amax(dim=0, keepdim=True)
    return maps / torch.where(peaks > 0, peaks, 1)


def colour(maps: Float[Tensor, "r h w"], name: str = "jet") -> Float[Tensor, "r 3 h w"]:
    """Colour maps by one of matplotlib's colour maps.

    Args:
        maps: One map a row, in [0, 1]; what lies outside is clamped, NaN is 0.
        name: A name that matplotlib knows.

    Returns:
        Red, green and blue in [0, 1].

    Raises:
        UserError: matplotlib has no such colour map; the nearest names are told.
    """
    colours = _colours(name).to(maps)
    steps = len(colours)
    index = (maps.nan_to_num(nan=0.0).clamp(0, 1) * steps).long().clamp(max=steps - 1)
    return colours[index].movedim(-1, 1)


def overlay(image: Image.Image, map: Float[Tensor, "h w"], opacity: float = 0.5, colours: str = "jet") -> Image.Image:
    """Blend a coloured map over the picture.

    Args:
        image: The original picture.
        map: Its map in [0, 1], of the picture's size; see `upsample` and `scale`.
        opacity: The map's share of each pixel: 0 shows the picture alone, 1 the map alone.
        colours: A colour map of matplotlib.

    Returns:
        An RGB picture of the same size.

    Raises:
        UserError: The sizes differ, the opacity is outside [0, 1] or the colour map unknown.
    """
    if not 0 <= opacity <= 1:
        raise UserError(f"expected an opacity between 0 (the picture) and 1 (the map), got {opacity}; try 0.5")
    _check_size(image, map)
    painted = (colour(map[None].float().cpu(), colours)[0] * 255).round().to(torch.uint8)
    return Image.blend(image.convert("RGB"), Image.fromarray(painted.movedim(0, -1).numpy()), opacity)


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
        _check_size(image, map)
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
            reduced = _resize(map[None].float().cpu(), (height, width), antialias=True)[0]
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
            ink = INK if _luminance(ground) > 0.195 else (255, 255, 255)  # where both have the same contrast
            draw.text((left + gap / 2, y + line / 2), cell, ink, font, anchor="lm")
        top += lines * line + gap
    return picture


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


def _resize(maps: Float[Tensor, "r h w"], size: tuple[int, int], antialias: bool = False) -> Float[Tensor, "r H W"]:
    if maps.shape[0] == 0:
        return maps.new_zeros((0, *size))
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False, antialias=antialias)[:, 0]


def _cut(
    maps: Float[Tensor, "r h w"], size: tuple[int, int], window: tuple[float, float, float, float]
) -> Float[Tensor, "r H W"]:
    """Bring maps to a picture that shows a part of them; only that part is ever made."""
    rows, above, below, down = _between(maps, maps.shape[1], window[0], window[2], size[0])
    columns, left, right, across = _between(maps, maps.shape[2], window[1], window[3], size[1])
    lines = torch.lerp(maps[:, above], maps[:, below], down[:, None])
    full = maps.new_zeros((maps.shape[0], *size))
    full[:, rows, columns] = torch.lerp(lines[..., left], lines[..., right], across)
    return full


def _between(
    maps: Float[Tensor, "r h w"], cells: int, near: float, far: float, side: int
) -> tuple[slice, Int[Tensor, " n"], Int[Tensor, " n"], Float[Tensor, " n"]]:
    """Tell which pixels of a side a window holds, the two cells that each lies between, and the second one's share."""
    start, stop = _whole(near, far, side)
    pixels = slice(max(start, 0), min(stop, side))
    centres = torch.arange(pixels.start, pixels.stop, dtype=torch.float64, device=maps.device) + 0.5
    places = ((centres - near) * (cells / (far - near)) - 0.5).clamp(0, cells - 1)
    first = places.long()
    return pixels, first, (first + 1).clamp(max=cells - 1), (places - first).to(maps)


def _whole(near: float, far: float, side: int) -> tuple[int, int]:
    """Round an interval to whole pixels of which at least one lies on the picture."""
    start = min(round(near), side - 1)
    return start, max(round(far), start + 1, 1)


def _check_size(image: Image.Image, map: Float[Tensor, "h w"]) -> None:
    if tuple(map.shape) != (image.height, image.width):
        came = " x ".join(str(side) for side in map.shape)
        raise UserError(
            f"expected a map of {image.height} x {image.width} (height x width), got {came}; upsample it first"
        )


@cache
def _colours(name: str) -> Float32[Tensor, "n 3"]:
    if name not in matplotlib.colormaps:
        raise unknown("colour map", name, matplotlib.colormaps)
    table = matplotlib.colormaps[name]
    return torch.from_numpy(table(np.arange(table.N))[:, :3]).float()


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
