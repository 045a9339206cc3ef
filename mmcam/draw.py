"""Maps on pictures: back to the original size, scaled, coloured, laid over the picture."""

from functools import cache
from typing import Literal

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int
from PIL import Image
from torch import Tensor

from mmcam.errors import UserError, unknown

__all__ = ["check_size", "colour", "highlight", "overlay", "resize", "scale", "soften", "upsample"]

GREY = 0.7  # how far `highlight` takes a picture towards its brightness (ITU-R BT.601, as PIL has it)


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
        return resize(maps, size)
    if window[2] <= 0 or window[3] <= 0 or window[0] >= size[0] or window[1] >= size[1]:
        return maps.new_zeros((maps.shape[0], *size))
    if window[0] < 0 or window[1] < 0 or window[2] > size[0] or window[3] > size[1]:
        return _cut(maps, size, window)
    top, bottom = _whole(window[0], window[2], size[0])
    left, right = _whole(window[1], window[3], size[1])
    full = maps.new_zeros((maps.shape[0], *size))
    full[:, top:bottom, left:right] = resize(maps, (bottom - top, right - left))
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
    _check_opacity(opacity)
    check_size(image, map)
    painted = (colour(map[None].float().cpu(), colours)[0] * 255).round().to(torch.uint8)
    return Image.blend(image.convert("RGB"), Image.fromarray(painted.movedim(0, -1).numpy()), opacity)


def soften(maps: Float[Tensor, "r H W"], cells: int = 24) -> Float[Tensor, "r H W"]:
    """Take means over places, so that maps of single pixels can be seen; for showing, never for measuring.

    Args:
        maps: One map a row.
        cells: The longer side is seen as through so many cells: the mean is that of a Gaussian with a standard
            deviation of half a cell.

    Returns:
        Maps of the same size; constant ones stay as they are.
    """
    sigma = max(maps.shape[1:]) / cells / 2
    for side in (1, 2):
        reach = min(round(3 * sigma), maps.shape[side] - 1)
        places = torch.arange(-reach, reach + 1, device=maps.device, dtype=maps.dtype)
        weights = torch.exp(-((places / sigma) ** 2) / 2)
        lines = maps.movedim(side, -1)
        padded = F.pad(lines.flatten(0, 1)[:, None], (reach, reach), mode="reflect")
        maps = F.conv1d(padded, (weights / weights.sum())[None, None]).view(lines.shape).movedim(-1, side)
    return maps


def highlight(
    image: Image.Image, map: Float[Tensor, "h w"], opacity: float = 0.8, colours: str = "viridis"
) -> Image.Image:
    """Paint a map over the picture in grey, the more the greater it is: where it is zero, the picture can be seen.

    Args:
        image: The original picture.
        map: As for `overlay`.
        opacity: The map's share of the pixel where the map is 1; elsewhere it falls with 1 − (1 − map)².
        colours: A colour map of matplotlib.

    Returns:
        An RGB picture of the same size.

    Raises:
        UserError: As for `overlay`.
    """
    _check_opacity(opacity)
    check_size(image, map)
    map = map.float().cpu().nan_to_num(nan=0.0).clamp(0, 1)
    # In whole levels by PIL: a click on a page draws this, and torch takes three times as long.
    painted = Image.fromarray((map * 255).round().to(torch.uint8).numpy())
    levels = colour(torch.linspace(0, 1, 256)[None, None], colours)[0, :, 0].T
    painted.putpalette((levels * 255).round().to(torch.uint8).flatten().tolist())
    share = Image.fromarray((map * (2 - map) * (255 * opacity)).round().to(torch.uint8).numpy())
    ground = Image.blend(image.convert("RGB"), image.convert("L").convert("RGB"), GREY)
    return Image.composite(painted.convert("RGB"), ground, share)


def resize(maps: Float[Tensor, "r h w"], size: tuple[int, int], antialias: bool = False) -> Float[Tensor, "r H W"]:
    """Interpolate maps bilinearly, none too.

    Args:
        maps: One map a row.
        size: Height and width to have.
        antialias: Whether all pixels count where the maps shrink.
    """
    if maps.shape[0] == 0:
        return maps.new_zeros((0, *size))
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False, antialias=antialias)[:, 0]


def check_size(image: Image.Image, map: Float[Tensor, "h w"]) -> None:
    """Refuse a map of another size than its picture.

    Raises:
        UserError: They differ.
    """
    if tuple(map.shape) != (image.height, image.width):
        came = " x ".join(str(side) for side in map.shape)
        raise UserError(
            f"expected a map of {image.height} x {image.width} (height x width), got {came}; upsample it first"
        )


def _check_opacity(opacity: float) -> None:
    if not 0 <= opacity <= 1:
        raise UserError(f"expected an opacity between 0 (the picture) and 1 (the map), got {opacity}; try 0.5")


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


@cache
def _colours(name: str) -> Float32[Tensor, "n 3"]:
    if name not in matplotlib.colormaps:
        raise unknown("colour map", name, matplotlib.colormaps)
    table = matplotlib.colormaps[name]
    return torch.from_numpy(table(np.arange(table.N))[:, :3]).float()
