"""Measure which part of a picture a function of pictures shows, by the waves that it leaves in synthetic ones.

Two plain pictures tell by their difference picture from padding and undo any normalisation; one grows from edge to
edge; two are of waves, a quarter of a wave apart. Resizing keeps the place of a wave to small parts of a pixel, however
coarse 8 bits are; the growing one tells which wave it is. A line fitted to the places, along the rows and along the
columns, gives the window: crops, padding and tiles of any kind.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from PIL import Image

from mmcam.errors import UserError
from mmcam.task import Window

__all__ = ["NOWHERE", "Picture", "Run", "View", "contrast", "measure"]

NOWHERE: Window = (0.0, 0.0, 0.0, 0.0)
"""The window of a tile that is all padding."""

DARK, LIGHT = 32, 224  # away from black and white: no kernel that overshoots is clipped
PADDING = 0.02  # of a picture's contrast: what shows less of the picture shows none of it
EDGES = (3.0, 2.0, 1.0)  # the half width of Lanczos', bicubic and bilinear kernels, in pixels of the coarser picture
LEAST = 6  # pixels in a line of which its slope is believed
WAVES = 16  # along a side, or fewer: 8 bits place a wave to a thousandth of its length
WAVELENGTH = 12.0  # in pixels of the coarser picture, at least, or the kernel would flatten it
UNEVEN = 0.05  # of the contrast: what a row may differ from another in a picture of columns alone
SMALLEST = 4  # pixels of a side in which there is something to measure
SQUARE = 64  # pixels: any picture would do that is as high as it is wide

Picture = Float[ndarray, "_ _ 3"]
Values = Float[ndarray, " _"]  # of any length: tiles differ
Run = Callable[[Image.Image], list[Picture]]


@dataclass(frozen=True)
class View:
    """One picture that the network gets.

    Attributes:
        window: The part of the original that it shows: top, left, bottom, right in pixels of the original. It reaches
            outside where the processor pads; `NOWHERE` if all is padding.
        height: Of the picture that the network gets, in its own pixels.
        width: Likewise.
    """

    window: Window
    height: int
    width: int

    def padded(self, height: int, width: int) -> "View":
        """Give the view after more padding below and to the right, as of a batch of pictures that differ in size."""
        top, left, bottom, right = self.window
        down, across = (bottom - top) / self.height, (right - left) / self.width
        return View((top, left, top + down * height, left + across * width), height, width)


@dataclass(frozen=True)
class _Line:
    """An axis of one picture that the network gets.

    Attributes:
        shown: How much of the original stands in every of its pixels, 0 to 1.
        at: Centres of the pixels that show it.
    """

    shown: Float[ndarray, " length"]
    at: Float[ndarray, " n"]

    def edges(self) -> tuple[float, float]:
        """Where the original begins and ends, or the picture if that is sooner, to parts of a pixel."""
        middle = int(self.at.mean())
        return float(middle - self.shown[:middle].sum()), float(middle + self.shown[middle:].sum())

    def own(self) -> tuple[float | None, float | None]:
        """Where the original begins and ends, if it is the original's edge, with padding beyond it."""
        low, high = self.edges()
        return low if low > PADDING / 2 else None, high if high < len(self.shown) - PADDING / 2 else None


@dataclass(frozen=True)
class _Fit:
    """Where the pixels of a line lie: `scale` times their centre, plus `start`; `on` are those it was measured on."""

    scale: float
    start: float
    on: Bool[ndarray, " n"] | None


class _Part:
    """One picture that the network gets, made of a dark picture and of a light one."""

    def __init__(self, dark: Picture, light: Picture, most: Float[ndarray, " 3"]) -> None:
        self.dark, self.contrast = dark, light - dark
        self.size = (dark.shape[0], dark.shape[1])
        shown = (self.contrast / most).mean(2)
        self.peak = float(shown.max())
        self.axes: tuple[_Line, _Line] | None = None
        if self.peak > PADDING:
            rows, columns = (np.flatnonzero(line > self.peak / 2) for line in (shown.max(1), shown.max(0)))
            down, across = np.median(shown[:, columns], 1), np.median(shown[rows], 0)
            # A strip thinner than a pixel shows less of itself everywhere; that is to be read across it alone.
            thin = min(self.peak, 1.0)
            down, across = (down / thin, across) if len(rows) > len(columns) else (down, across / thin)
            self.axes = _Line(down, rows + 0.5), _Line(across, columns + 0.5)

    def read(self, picture: Picture, name: str) -> tuple[Values, Values]:
        """Give the values, 0 dark and 1 light, that were painted along the rows and along the columns."""
        if self.axes is None:
            return np.empty(0), np.empty(0)
        block = np.ix_(*(line.at.astype(int) for line in self.axes))
        if not self.contrast[block].all():
            raise UserError(f"{name} shows this picture in another shape than a rectangle; such cannot be undone")
        values = (picture - self.dark)[block] / self.contrast[block]
        down, across = values[..., 1], values[..., 0]
        if max(np.ptp(down, 1).max(), np.ptp(across, 0).max()) * self.peak > UNEVEN:
            raise UserError(f"{name} turns or bends this picture; expected one that resizes, cuts, pads or tiles it")
        return down.mean(1), across.mean(0)


def contrast(run: Run, name: str) -> Float[ndarray, " 3"]:
    """Tell how far light is from dark in every channel, where nothing is padded: in a square picture.

    Args:
        run: See `measure`.
        name: Likewise.

    Returns:
        Of red, green and blue.

    Raises:
        UserError: The two look the same.
    """
    found = np.concatenate(
        [(light - dark).reshape(-1, 3) for dark, light in zip(*_plain(run, (SQUARE, SQUARE), name), strict=True)]
    )
    most = np.abs(found).max(0)
    if not (most > 0).all():
        raise UserError(f"{name} makes the same of a dark picture and a light one; expected one that shows the picture")
    return np.array([np.median(found[np.abs(found[:, c]) > most[c] / 2, c]) for c in range(3)])


def measure(run: Run, size: tuple[int, int], most: Float[ndarray, " 3"], name: str) -> tuple[View, ...]:
    """Measure what every picture shows that a function makes of one.

    Args:
        run: The function.
        size: Height and width of the picture that it is given.
        most: See `contrast`.
        name: Of the function, for errors.

    Returns:
        One view a picture.

    Raises:
        UserError: It turns, mirrors or bends pictures, or cuts them by what they show.
    """
    parts = [_Part(dark, light, most) for dark, light in zip(*_plain(run, size, name), strict=True)]

    def read(*painted: Values) -> list[tuple[Values, Values]]:
        made = run(_paint(*painted))
        _check_shapes(made, [part.dark for part in parts], name)
        return [part.read(picture, name) for part, picture in zip(parts, made, strict=True)]

    centres = [np.arange(side) + 0.5 for side in size]
    lines = [[part.axes[axis] for part in parts if part.axes] for axis in (0, 1)]
    grown = _by_axis(read(*(c / side for c, side in zip(centres, size, strict=True))))
    fits = [_rough(lines[axis], grown[axis], size[axis], name) for axis in (0, 1)]
    waves = [
        max(WAVELENGTH * max([1.0, *(fit.scale for fit in found)]), side / WAVES)
        for found, side in zip(fits, size, strict=True)
    ]
    turns = [2 * np.pi * c / wave for c, wave in zip(centres, waves, strict=True)]
    cosines, sines = (_by_axis(read(*(0.5 + 0.5 * f(turn) for turn in turns))) for f in (np.cos, np.sin))
    for axis in (0, 1):
        phases = [np.arctan2(s - 0.5, c - 0.5) for c, s in zip(cosines[axis], sines[axis], strict=True)]
        fits[axis] = [
            _finer(fit, line, phase / (2 * np.pi) * waves[axis], waves[axis], size[axis], name)
            for fit, line, phase in zip(fits[axis], lines[axis], phases, strict=True)
        ]
    pairs = iter(zip(*fits, strict=True))
    return tuple(_view(part.size, next(pairs) if part.axes else None, size) for part in parts)


def _paint(down: Float[ndarray, " h"], across: Float[ndarray, " w"]) -> Image.Image:
    """Make a picture whose green tells the row and whose red and blue, which some processors swap, the column."""
    levels = [np.round(DARK + (LIGHT - DARK) * values).astype(np.uint8) for values in (down, across)]
    picture = np.empty((len(down), len(across), 3), np.uint8)
    picture[..., 1] = levels[0][:, None]
    picture[..., ::2] = levels[1][None, :, None]
    return Image.fromarray(picture)


def _plain(run: Run, size: tuple[int, int], name: str) -> tuple[list[Picture], list[Picture]]:
    dark, light = (run(_paint(*(np.full(side, level) for side in size))) for level in (0.0, 1.0))
    _check_shapes(light, dark, name)
    return dark, light


def _check_shapes(made: list[Picture], before: list[Picture], name: str) -> None:
    if [picture.shape for picture in made] != [picture.shape for picture in before]:
        raise UserError(f"{name} cuts pictures by what they show; expected one that looks at their size alone")


def _by_axis(read: list[tuple[Values, Values]]) -> list[list[Values]]:
    """Sort what was read by axis, without parts that are all padding."""
    return [[values[axis] for values in read if len(values[axis])] for axis in (0, 1)]


def _rough(lines: list[_Line], grown: list[Values], side: int, name: str) -> list[_Fit]:
    """Fit every line of an axis to the picture that grows from edge to edge: right to a small part of a wave."""
    places = [values * side for values in grown]
    fits = [_fitted(line, x, side, name) for line, x in zip(lines, places, strict=True)]
    good = [fit.scale for fit in fits if fit]
    return [fit or _anchored(line, x, good, side) for fit, line, x in zip(fits, lines, places, strict=True)]


def _fitted(line: _Line, places: Float[ndarray, " n"], side: int, name: str) -> _Fit | None:
    """Fit one line away from the original's edges, where kernels are cut; None if too little of it is left."""
    if len(places) < LEAST or side < SMALLEST:
        return None
    scale = np.polyfit(line.at, places, 1)[0]
    if scale <= 0:
        raise UserError(f"{name} mirrors this picture; expected one that resizes, cuts, pads or tiles it")
    for reach in EDGES:
        margin = min(reach * max(1.0, scale), side / 4)
        on = (places > margin) & (places < side - margin)
        if on.sum() >= LEAST:
            scale, start = np.polyfit(line.at[on], places[on], 1)
            return _Fit(float(scale), float(start), on)
    return None


def _anchored(line: _Line, places: Float[ndarray, " n"], good: list[float], side: int) -> _Fit:
    """Lay a line of a few pixels by the original's edges in it, at the scale of the tile beside it."""
    low, high = line.edges()
    begins, ends = line.own()
    if not good or (begins is not None and ends is not None):
        scale = side / max(high - low, PADDING)
    elif len(places) < 3:
        scale = min(good)  # that of the tiles: one that shows all of the picture is coarser
    else:
        own = max(float(np.polyfit(line.at, places, 1)[0]), 1e-6)
        scale = min(good, key=lambda other: abs(np.log(other / own)))
    if begins is not None or not good:
        return _Fit(scale, -scale * low, None)
    return _Fit(scale, side - scale * high if ends is not None else float((places - scale * line.at).mean()), None)


def _finer(fit: _Fit, line: _Line, places: Float[ndarray, " n"], wave: float, side: int, name: str) -> _Fit:
    """Correct a fit by places that are known but for whole waves, and by the original's edges where they are seen."""
    if fit.on is None:
        return fit
    at = line.at[fit.on]
    off = (places[fit.on] - fit.scale * at - fit.start + wave / 2) % wave - wave / 2
    if np.abs(off).max() > wave / 3 or np.abs(off - np.polyval(np.polyfit(at, off, 1), at)).max() > wave / 12:
        raise UserError(f"{name} bends this picture or cuts it by what it shows; expected one that looks at its size")
    edges = [(u, own) for u, own in zip(line.own(), (0, side), strict=True) if u is not None]
    at = np.append(at, [u for u, _ in edges])
    off = np.append(off, [own - fit.scale * u - fit.start for u, own in edges])
    more = np.polyfit(at, off, 1)
    return _Fit(fit.scale + float(more[0]), fit.start + float(more[1]), fit.on)


def _view(shape: tuple[int, int], fits: tuple[_Fit, ...] | None, size: tuple[int, int]) -> View:
    if fits is None:
        return View(NOWHERE, *shape)
    (top, bottom), (left, right) = (
        (_settled(fit.start, fit.scale, side), _settled(fit.start + fit.scale * length, fit.scale, side))
        for fit, length, side in zip(fits, shape, size, strict=True)
    )
    return View((top, left, bottom, right), *shape)


def _settled(edge: float, scale: float, side: int) -> float:
    """Take an edge for the original's own where it is as near to it as can be measured."""
    near = max(0.05, 0.02 * scale)
    return next((float(own) for own in (0, side) if abs(edge - own) < near), edge)
