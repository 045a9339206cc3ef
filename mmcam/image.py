"""Pictures from the disk: read them upright in RGB, and turn them into what a network takes."""

import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmcam.errors import UserError
from mmcam.find import check_file, find_images

__all__ = ["Interpolation", "Window", "crop_to_tensor", "find_images", "read_image", "to_tensor"]

logger = logging.getLogger(__name__)

Window = tuple[float, float, float, float]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
"""How pixels are made while resizing; all but the first smooth what they shrink."""

# Not all that PIL knows: EPS starts Ghostscript, TGA has no magic number, icons hold pictures of other formats.
FORMATS = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF")
EXPECTED = "a picture (JPEG, PNG, GIF, WebP, BMP, TIFF, PPM, JPEG 2000 or AVIF)"
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTATION = 0x0112
SIGNATURES = {
    b"\x89PNG": "a damaged PNG file",
    b"\xff\xd8": "a damaged JPEG file",
    b"GIF8": "a damaged GIF file",
    b"RIFF": "a damaged WebP file or another RIFF file",
    b"II*\0": "a damaged or unusual TIFF file",
    b"MM\0*": "a damaged or unusual TIFF file",
    b"%PDF": "a PDF document",
    b"PK\3\4": "a zip archive",
    b"version https://git-lfs": "a Git LFS pointer in the picture's place",
}
# In pixels: up to here all is resized, as torchvision does; PIL's own cutting keeps only single precision.
LARGEST_RESIZED = 16_000_000
_settings = threading.Lock()


@runtime_checkable
class Stream(Protocol):
    """A file opened for reading bytes; `typing.IO` would do, but `io.BytesIO` is none at run time."""

    def read(self, size: int = ..., /) -> bytes | str: ...

    def seekable(self) -> bool: ...

    def seek(self, offset: int, /) -> int: ...


def read_image(source: Path | str | Stream, *, max_pixels: int = 100_000_000) -> Image.Image:
    """Read a picture as RGB, turned upright.

    Palettes, grey, CMYK and 16 bits a channel become 8-bit RGB, see-through parts are laid on white, the camera's
    EXIF rotation is applied and forgotten. Of an animation the first frame is read, and a warning logged.

    Args:
        source: A file's path, or a file opened for reading bytes.
        max_pixels: Larger pictures are refused by their header, before their pixels take any memory.

    Returns:
        The picture in mode RGB, in memory, without metadata.

    Raises:
        UserError: There is no such file, or it is no picture, damaged, cut short or too large.
    """
    name = str(source) if isinstance(source, str | Path) else str(getattr(source, "name", "the given stream"))
    try:
        if isinstance(source, str | Path):
            check_file(Path(source))
            with Path(source).open("rb") as stream:
                return _read(stream, name, max_pixels)
        if source.seekable():
            source.seek(0)
        data = source.read()
    except UserError:
        raise
    except (OSError, ValueError) as error:  # no permission, or a stream that is closed or no text of its encoding
        raise UserError(f"{name!r}: expected a readable file, got {error}; check that it can be opened") from error
    if isinstance(data, str):
        raise UserError(f"{name!r}: expected bytes, got text; open the file with mode 'rb'")
    return _read(BytesIO(data), name, max_pixels)


def to_tensor(
    image: Image.Image,
    size: tuple[int, int] | None,
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: Interpolation = "bilinear",
) -> Float[Tensor, "3 h w"]:
    """Turn a picture into a normalised tensor, squashed to a size.

    Args:
        image: The picture.
        size: Height and width wanted, in pixels (antialiased, the aspect is not kept); None keeps its own.
        mean: The mean of red, green and blue, for values in [0, 1].
        std: Their standard deviations.
        interpolation: How it is resized.

    Returns:
        (value - mean) / std, float32.
    """
    image = image.convert("RGB")
    if size is not None:
        image = image.resize((size[1], size[0]), Image.Resampling[interpolation.upper()])
    return _normalise(image, mean, std)


def crop_to_tensor(
    image: Image.Image,
    resize: int,
    crop: int,
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: Interpolation = "bilinear",
) -> tuple[Float[Tensor, "3 crop crop"], Window]:
    """Resize the short side, crop the centre and normalise, as torchvision's classifiers are evaluated.

    Gives torchvision's `Resize(resize)`, `CenterCrop(crop)`. Of a very long picture only the kept part is resized,
    so that one of 30,000 x 10 pixels costs no more than another.

    Args:
        image: The picture.
        resize: The short side after resizing, in pixels.
        crop: The side of the square cut from the centre, in pixels; what lies outside the picture is black.
        mean: The mean of red, green and blue, for values in [0, 1].
        std: Their standard deviations.
        interpolation: How it is resized.

    Returns:
        The normalised crop, and the window of the original that it covers: top, left, bottom, right in pixels of the
        original. The window reaches outside the picture where `crop` is larger than the resized picture.
    """
    image = image.convert("RGB")
    short = min(image.size)
    # The same integer arithmetic as torchvision's; width first, as in PIL.
    full = [int(resize * side / short) for side in image.size]
    # One that does not fit is padded, with the odd pixel at the far side; one that fits is cut at the rounded centre.
    start = [round((side - crop) / 2) if side >= crop else -((crop - side) // 2) for side in full]
    near, far = [0, 0], full
    if full[0] * full[1] > LARGEST_RESIZED:
        near = [max(0, s) for s in start]
        far = [min(side, s + crop) for side, s in zip(full, start, strict=True)]
    across, down = (original / side for original, side in zip(image.size, full, strict=True))
    box = (near[0] * across, near[1] * down, min(far[0] * across, image.width), min(far[1] * down, image.height))
    resized = image.resize((far[0] - near[0], far[1] - near[1]), Image.Resampling[interpolation.upper()], box=box)
    left, top = start[0] - near[0], start[1] - near[1]
    seen = resized.crop((left, top, left + crop, top + crop))  # black where it reaches outside
    window = (start[1] * down, start[0] * across, (start[1] + crop) * down, (start[0] + crop) * across)
    return _normalise(seen, mean, std), window


def _normalise(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> Float[Tensor, "3 h w"]:
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float() / 255
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


@contextmanager
def _quiet(limit: int | None = None) -> Iterator[None]:
    """Replace PIL's size alarm and hold back its warnings for a moment: both are settings of the whole process."""
    with _settings, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, limit
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _read(stream: BufferedReader | BytesIO, name: str, max_pixels: int) -> Image.Image:
    head = stream.read(512)
    try:
        with _quiet():
            Image.init()
            image = Image.open(stream, formats=[f for f in FORMATS if f in Image.OPEN])
    except Exception as error:  # a damaged header makes PIL raise almost anything
        way_out = "save or download it again as PNG or JPEG"
        raise UserError(f"{name!r}: expected {EXPECTED}, got {_describe(head)}; {way_out}") from error
    width, height = image.size
    if width * height > max_pixels:
        came = f"{width} x {height} = {width * height:,}"
        raise UserError(f"{name!r}: expected at most {max_pixels:,} pixels, got {came}; make the picture smaller first")
    try:
        # Only here does a TIFF file say how large its tiles are; PIL's alarm is an error at twice its limit.
        with _quiet(max_pixels // 2) if image.format == "TIFF" else nullcontext():
            image.load()
        upright = _rgb(image)
        orientation = _about(image, lambda i: i.getexif().get(ORIENTATION))
        if orientation in TURNS:
            upright = upright.transpose(TURNS[orientation])
    except Exception as error:  # as above
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{name!r}: expected a whole {image.format} picture, got one that is damaged or cut short ({reason}); "
            "copy or download it again"
        ) from error
    # A camera's second picture (MPO) is a preview or the other eye's view, nothing that the user would miss.
    if image.format != "MPO" and _about(image, lambda i: getattr(i, "is_animated", False)):
        logger.warning("%s has several frames: only the first is read", name)
    upright.info = {}
    return upright


def _about(image: Image.Image, question: Callable[[Image.Image], int | None]) -> int | None:
    """Ask for metadata; None where they are damaged, which is no reason to refuse a whole picture."""
    try:
        with _quiet():
            return question(image)
    except Exception as error:  # damaged metadata make PIL raise almost anything
        logger.debug("metadata passed over: %r", error)
        return None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _eight_bits(image).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        return white.convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Bring grey of 16 or 32 bits to 8: 0..65535 is the scale of integers, 0..1 of floats; others are stretched."""
    exact = np.float32 if image.mode.startswith("I;") else np.float64
    values = np.nan_to_num(np.asarray(image).astype(exact), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = (0.0, 1.0) if image.mode == "F" else (0.0, 65535.0)
    if values.min() < low or values.max() > high:
        low, high = float(values.min()), float(values.max())
    grey = np.round((values - low) * (255 / ((high - low) or 1))).astype(np.uint8)
    if isinstance(see_through := image.info.get("transparency"), int):
        grey[values == see_through] = 255
    return Image.fromarray(grey)


def _describe(head: bytes) -> str:
    """Say what a file that is no picture is instead."""
    for start, kind in SIGNATURES.items():
        if head.startswith(start):
            return kind
    if not head:
        return "an empty file"
    if b"<svg" in head:
        return "an SVG drawing"
    if head.lower().lstrip().startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if head[4:8] == b"ftyp":
        return "a HEIC picture or a film"
    # The last character may be cut in the middle.
    text = head.decode(errors="replace").removesuffix("\ufffd")
    return "text" if all(c.isprintable() or c.isspace() for c in text) and "\ufffd" not in text else "something else"
