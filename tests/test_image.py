import io
import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from mmcam.errors import UserError
from mmcam.image import crop_to_tensor, read_image, to_tensor

WHOLE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # mean and standard deviation that leave the values in [0, 1]
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def levels(image):
    return np.asarray(image).astype(int)


def complaint(source, **options):
    """The one line that a failure gives; nothing else may be raised, and pytest turns warnings into failures."""
    with pytest.raises(UserError) as caught:
        read_image(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert "expected" in message
    assert ";" in message  # what came before it, the way out after it
    return message


def png_header(width, height):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_give_the_very_pixels(tmp_path, kind):
    image = noise(7, 5)
    path = tmp_path / "picture"
    path.write_bytes(encoded(image, kind))
    for source in (path, str(path), io.BytesIO(path.read_bytes())):
        read = read_image(source)
        assert read.mode == "RGB"
        assert (levels(read) == levels(image)).all()


def test_streams_are_read_from_their_start(tmp_path):
    stream = io.BytesIO()
    noise(3, 4).save(stream, "PNG")  # leaves the position at the end
    assert read_image(stream).size == (3, 4)
    path = tmp_path / "picture.png"
    path.write_bytes(stream.getvalue())
    with path.open("rb") as opened:
        assert read_image(opened).size == (3, 4)


def test_a_pipe_that_cannot_seek_is_read():
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

        def seek(self, *_):
            raise io.UnsupportedOperation

    assert read_image(Pipe(encoded(noise(3, 4), "PNG"))).size == (3, 4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_exif_rotation_is_undone_and_forgotten(kind, orientation):
    colours = [["red", "lime", "blue"], ["white", "black", "yellow"]]
    upright = Image.new("RGB", (48, 32))
    for row, names in enumerate(colours):
        for column, name in enumerate(names):
            upright.paste(name, (16 * column, 16 * row, 16 * column + 16, 16 * row + 16))
    # What the camera stores is the upright picture turned the other way.
    stored = {
        1: lambda i: i,
        2: lambda i: i.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda i: i.transpose(Image.Transpose.ROTATE_180),
        4: lambda i: i.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda i: i.transpose(Image.Transpose.TRANSPOSE),
        6: lambda i: i.transpose(Image.Transpose.ROTATE_90),
        7: lambda i: i.transpose(Image.Transpose.TRANSVERSE),
        8: lambda i: i.transpose(Image.Transpose.ROTATE_270),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    read = read_image(io.BytesIO(encoded(stored, kind, exif=exif)))
    assert read.size == upright.size
    centres = np.s_[8::16, 8::16]
    assert np.abs(levels(read)[centres] - levels(upright)[centres]).max() < 16
    assert read.getexif().get(0x0112) is None


def test_damaged_exif_does_not_lose_the_picture():
    data = encoded(noise(8, 8), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f\x12\x01garbage")
    assert read_image(io.BytesIO(data)).size == (8, 8)


def test_palette_gives_its_colours():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert levels(read_image(io.BytesIO(encoded(image, "PNG")))).tolist() == [[[10, 20, 30], [200, 100, 50]]]


@pytest.mark.parametrize("alphas", [0, bytes([0, 128])])
def test_see_through_palette_entries_lie_on_white(alphas):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    read = levels(read_image(io.BytesIO(encoded(image, "PNG", transparency=alphas))))[0]
    assert read[0].tolist() == [255, 255, 255]
    assert np.abs(read[1] - ([200, 100, 50] if alphas == 0 else [227, 177, 152])).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_and_bitmaps(mode):
    image = Image.new(mode, (2, 2), 255)
    image.putpixel((0, 1), 0)
    assert levels(read_image(io.BytesIO(encoded(image, "PNG")))).tolist() == [
        [[255] * 3, [255] * 3],
        [[0] * 3, [255] * 3],
    ]


def test_cmyk_jpeg_shows_its_colour():
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    read = levels(read_image(io.BytesIO(encoded(red, "JPEG"))))
    assert np.abs(read - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_down_and_not_clipped(kind):
    values = np.array([[0, 128, 257, 32896, 65535]], dtype=np.uint16)
    read = levels(read_image(io.BytesIO(encoded(Image.fromarray(values), kind))))
    assert read[0].tolist() == [[v] * 3 for v in (0, 0, 1, 128, 255)]


def test_big_endian_sixteen_bits():
    image = Image.frombytes("I;16B", (2, 1), np.array([32896, 65535], dtype=">u2").tobytes())
    assert levels(read_image(io.BytesIO(encoded(image, "TIFF"))))[0, :, 0].tolist() == [128, 255]


def test_see_through_grey_of_sixteen_bits_lies_on_white():
    image = Image.fromarray(np.array([[500, 32896]], dtype=np.uint16))
    assert levels(read_image(io.BytesIO(encoded(image, "PNG", transparency=500))))[0, :, 0].tolist() == [255, 128]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([-3.0, 0.0, 3.0], [0, 128, 255]),
        ([float("nan"), 0.2, float("inf")], [0, 51, 0]),
        ([7.0, 7.0, 7.0], [0, 0, 0]),
    ],
)
def test_float_pictures_are_unit_scaled_or_stretched(values, expected):
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert levels(read_image(io.BytesIO(encoded(image, "TIFF"))))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_on_white(mode):
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    image.putpixel((2, 0), (100, 100, 100, 51))
    read = levels(read_image(io.BytesIO(encoded(image.convert(mode), "PNG"))))
    assert np.abs(read[0, :, 0] - [255, 0, 224]).max() <= 1


def test_one_see_through_colour_is_laid_on_white():
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (40, 50, 60))
    read = read_image(io.BytesIO(encoded(image, "PNG", transparency=(1, 2, 3))))
    assert levels(read).tolist() == [[[255] * 3, [40, 50, 60]]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_read_with_a_warning(kind, caplog):
    frames = [Image.new("RGB", (8, 6), name) for name in ("red", "lime", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    with caplog.at_level(logging.WARNING):
        read = read_image(io.BytesIO(data))
    assert np.abs(levels(read) - [255, 0, 0]).max() <= 3
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "first" in caplog.text


def test_a_still_picture_gives_no_warning(caplog):
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        read_image(io.BytesIO(encoded(noise(8, 6), kind)))
    assert not caplog.records


@pytest.mark.parametrize("size", [(1, 1), (30_000, 10), (10, 30_000)])
def test_sizes_at_the_edge(tmp_path, size):
    image = noise(*size)
    path = tmp_path / "edge.png"
    image.save(path)
    assert (levels(read_image(path)) == levels(image)).all()


@pytest.mark.parametrize("side", [9_600, 12_000, 60_000, 2_000_000_000])
def test_decompression_bombs_are_refused_by_their_header(tmp_path, side):
    limit = Image.MAX_IMAGE_PIXELS
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(side, side))
    message = complaint(path, max_pixels=90_000_000)  # PIL warns above 89 million and raises above 178 million
    assert "bomb.png" in message
    assert f"{side} x {side}" in message
    assert "90,000,000" in message
    assert limit == Image.MAX_IMAGE_PIXELS


def test_the_limit_is_the_callers(tmp_path):
    path = tmp_path / "small.png"
    noise(20, 10).save(path)
    assert read_image(path, max_pixels=200).size == (20, 10)
    assert "20 x 10 = 200" in complaint(path, max_pixels=199)


def test_a_limit_above_pils_own_holds(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)  # PIL would raise above 100 and warn above 50
    for kind in ("PNG", "TIFF", "GIF", "WEBP"):
        assert read_image(io.BytesIO(encoded(noise(20, 10), kind))).size == (20, 10)
    assert Image.MAX_IMAGE_PIXELS == 50


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_files_cut_short(tmp_path, kind, share):
    data = encoded(noise(64, 64), kind)
    path = tmp_path / "cut"
    path.write_bytes(data[: int(share * len(data))])
    message = complaint(path)
    assert str(path) in message
    assert "again" in message


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_damaged_bytes_give_a_picture_or_one_line(kind):
    data = encoded(noise(24, 24), kind)
    random = np.random.default_rng(0)
    messages = []
    for _ in range(150):
        damaged = np.frombuffer(data, np.uint8).copy()
        head = min(len(data), 200)  # the header is where most decisions are made
        damaged[random.integers(0, head, 3)] = random.integers(0, 256, 3)
        try:
            read = read_image(io.BytesIO(damaged.tobytes()), max_pixels=1_000_000)
        except UserError as error:
            messages.append(str(error))
        else:
            assert read.mode == "RGB"
    assert messages
    assert "\n" not in "".join(messages)


@pytest.mark.parametrize(
    ("content", "came"),
    [
        (b"", "an empty file"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"<!DOCTYPE html><title>404</title>", "web page"),
        ("Größe ".encode() * 200, "text"),
        (b"%PDF-1.7", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"\x89PNG\r\n\x1a\n\0\0", "a damaged PNG"),
        (bytes(range(256)), "something else"),
        (b"\xff\xfe\x00\x01" * 200, "something else"),
    ],
)
def test_a_file_that_is_no_picture_is_named_for_what_it_is(tmp_path, content, came):
    path = tmp_path / "thing.jpg"
    path.write_bytes(content)
    message = complaint(path)
    assert f"got {came}" in message or f"got a {came}" in message or f"got an {came}" in message
    assert "thing.jpg" in message
    assert "PNG" in message


def test_missing_files_are_named_with_their_neighbours(tmp_path):
    (tmp_path / "kitten.jpg").touch()
    message = complaint(tmp_path / "kiten.jpg")
    assert "kiten.jpg" in message
    assert "did you mean 'kitten.jpg'" in message
    assert "no such file" in complaint(tmp_path / "nowhere" / "a.jpg")
    assert "check the path" in complaint("x" * 5000)
    assert "check the path" in complaint("zero\0byte")


def test_folders_and_devices_are_no_pictures(tmp_path):
    assert "got a folder" in complaint(tmp_path)
    assert "got a device" in complaint(Path("/dev/null"))


def test_a_file_without_permission(tmp_path, monkeypatch):
    path = tmp_path / "locked.png"
    noise(2, 2).save(path)

    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything, so the mode would not do
    message = complaint(path)
    assert "Permission denied" in message
    assert "locked.png" in message


def test_a_stream_of_text_or_a_closed_one(tmp_path):
    assert "mode 'rb'" in complaint(io.StringIO("hello"))
    path = tmp_path / "picture.png"
    noise(2, 2).save(path)
    with path.open() as text:
        assert "picture.png" in complaint(text)
    with path.open("rb") as closed:
        pass
    assert "closed" in complaint(closed)


def test_to_tensor_without_resizing_is_exact():
    image = noise(6, 4)
    tensor = to_tensor(image, None, *WHOLE)
    assert tensor.dtype == torch.float32
    assert torch.equal((tensor * 255).round().byte(), torch.from_numpy(np.array(image)).permute(2, 0, 1))
    normal = to_tensor(image, None, *IMAGENET)
    assert torch.allclose(normal[1], (tensor[1] - 0.456) / 0.224)


def test_to_tensor_of_grey():
    assert torch.allclose(to_tensor(Image.new("L", (2, 3), 51), (1, 1), *WHOLE), torch.full((3, 1, 1), 0.2))


@pytest.mark.parametrize("size", [(8, 8), (96, 128), (224, 224)])
@pytest.mark.parametrize("original", [(100, 37), (64, 200), (1, 1)])
def test_squashing_equals_torchvision(original, size):
    image = noise(*original)
    transform = v2.Resize(size, antialias=True)
    ours = to_tensor(image, size, *WHOLE) * 255
    assert (ours - v2.functional.pil_to_tensor(transform(image))).abs().max() < 0.001
    assert (ours - transform(v2.functional.pil_to_tensor(image))).abs().max() < 1.001


@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (232, 224), (64, 64), (33, 20), (20, 33), (48, 90)])
@pytest.mark.parametrize("original", [(100, 37), (37, 101), (320, 240), (61, 61), (1, 1), (500, 9)])
def test_cropping_equals_torchvision(original, resize, crop):
    image = noise(*original)
    transform = v2.Compose([v2.Resize(resize, antialias=True), v2.CenterCrop(crop)])
    ours = crop_to_tensor(image, resize, crop, *WHOLE)[0] * 255
    assert ours.shape == (3, crop, crop)
    assert (ours - v2.functional.pil_to_tensor(transform(image))).abs().max() < 0.001
    assert (ours - transform(v2.functional.pil_to_tensor(image))).abs().max() < 1.001


@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (64, 64), (20, 33)])
@pytest.mark.parametrize("original", [(100, 37), (37, 101), (500, 9)])
def test_resizing_only_what_is_kept_gives_the_same(monkeypatch, original, resize, crop):
    image = Image.linear_gradient("L").resize(original).convert("RGB")
    whole, window = crop_to_tensor(image, resize, crop, *WHOLE)
    monkeypatch.setattr("mmcam.image.LARGEST_RESIZED", 0)
    part, same = crop_to_tensor(image, resize, crop, *WHOLE)
    assert same == window
    assert (part - whole).abs().max() * 255 < 1.001


def test_cropping_normalises_as_torchvision_does():
    image = noise(80, 60)
    transform = v2.Compose(
        [
            v2.Resize(32),
            v2.CenterCrop(28),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(*IMAGENET),
        ]
    )
    ours, _ = crop_to_tensor(image, 32, 28, *IMAGENET)
    assert torch.allclose(ours, transform(image), atol=1e-6)


@pytest.mark.parametrize(
    ("size", "resize", "crop", "window"),
    [
        ((200, 100), 50, 50, (0, 50, 100, 150)),  # halved; the middle 50 of 100
        ((100, 200), 50, 40, (60, 10, 140, 90)),
        ((100, 100), 100, 100, (0, 0, 100, 100)),
        ((30, 20), 40, 20, (5, 10, 15, 20)),  # doubled
        ((20, 20), 20, 30, (-5, -5, 25, 25)),  # padded
    ],
)
def test_the_window_is_what_the_crop_covers(size, resize, crop, window):
    _, covered = crop_to_tensor(noise(*size), resize, crop, *WHOLE)
    assert covered == pytest.approx(window)


def test_what_lies_in_the_window_lies_in_the_crop():
    image = Image.new("RGB", (173, 90))
    _, (top, left, bottom, right) = crop_to_tensor(image, 64, 56, *WHOLE)
    # The window's own middle half painted white is the crop's middle half.
    height, width = bottom - top, right - left
    start = round(left + width / 4), round(top + height / 4)
    image.paste("white", (*start, round(right - width / 4), round(bottom - height / 4)))
    seen, _ = crop_to_tensor(image, 64, 56, *WHOLE)
    assert seen[:, 16:40, 16:40].min() > 0.9
    assert seen[:, :12].max() < 0.1
    assert seen[:, :, :12].max() < 0.1
    assert seen[:, 44:].max() < 0.1
    assert seen[:, :, 44:].max() < 0.1


@pytest.mark.parametrize("size", [(30_000, 10), (10, 30_000)])
def test_a_very_long_picture_is_cropped_without_being_resized_whole(size):
    image = noise(*size)
    seen, window = crop_to_tensor(image, 256, 224, *WHOLE)  # whole, it would be 256 x 768,000
    assert seen.shape == (3, 224, 224)
    top, left, bottom, right = window
    assert (bottom - top, right - left) == pytest.approx((8.75, 8.75))
    assert (top + bottom, left + right) == pytest.approx((size[1], size[0]))
    centre = image.crop((14_900, 0, 15_100, 10) if size[0] > size[1] else (0, 14_900, 10, 15_100))
    expected, _ = crop_to_tensor(centre, 256, 224, *WHOLE)
    assert (seen - expected).abs().max() * 255 <= 2.001  # PIL keeps a box in single precision
