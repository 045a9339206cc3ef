from itertools import pairwise, product

import numpy as np
import pytest
import torch
from PIL import Image

from mmcam.draw import upsample
from mmcam.errors import UserError
from mmcam.huggingface.measure import View
from mmcam.huggingface.patches import flattened, packed
from mmcam.huggingface.tiling import Tiling, tiling
from mmcam.huggingface.windows import NOWHERE, views, windows

transformers = pytest.importorskip("transformers")

SQUARE = {"height": 32, "width": 32}
CROP = {"size": {"shortest_edge": 36}, "crop_size": SQUARE}
ANY = {"crop_size": SQUARE, "image_grid_pinpoints": [[32, 64], [64, 32], [64, 64], [96, 32], [32, 96]]}
SLICES = {"size": {"longest_edge": 96}, "max_image_size": {"longest_edge": 32}}
PAN = {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 8, "pan_and_scan_min_ratio_to_activate": 1.2}
PAGE = {"height": 40, "width": 32}
FAMILIES = {
    "CLIP": ("CLIPImageProcessor", {"size": {"shortest_edge": 32}, "crop_size": SQUARE}),
    "Florence-2": ("CLIPImageProcessor", {"size": SQUARE, "do_center_crop": False}),
    "SigLIP, PaliGemma": ("SiglipImageProcessor", {"size": SQUARE}),
    "BLIP": ("BlipImageProcessor", {"size": SQUARE}),
    "ViT": ("ViTImageProcessor", {"size": SQUARE}),
    "DeiT": ("DeiTImageProcessor", {"size": {"height": 36, "width": 36}, "crop_size": SQUARE}),
    "ConvNeXt": ("ConvNextImageProcessor", {"size": {"shortest_edge": 32}, "crop_pct": 0.875}),
    "BEiT": ("BeitImageProcessor", {"size": {"height": 36, "width": 40}, "crop_size": SQUARE, "do_center_crop": True}),
    "DINOv2": ("BitImageProcessor", CROP),
    "ViLT": ("ViltImageProcessor", {"size": {"shortest_edge": 64}}),
    "LLaVA": ("LlavaImageProcessor", CROP),
    "LLaVA, padded": ("LlavaImageProcessor", {**CROP, "size": {"shortest_edge": 32}, "do_pad": True}),
    "LLaVA-NeXT": ("LlavaNextImageProcessor", {**ANY, "size": {"shortest_edge": 32}}),
    "LLaVA-OneVision": ("LlavaOnevisionImageProcessor", {**ANY, "size": SQUARE}),
    "Idefics3": ("Idefics3ImageProcessor", SLICES),
    "SmolVLM": ("SmolVLMImageProcessor", SLICES),
    "InternVL": ("GotOcr2ImageProcessor", {"size": SQUARE, "crop_to_patches": True, "max_patches": 6}),
    "Mllama": ("MllamaImageProcessor", {"size": SQUARE, "max_image_tiles": 4}),
    "Gemma 3": ("Gemma3ImageProcessor", {"size": SQUARE}),
    "Gemma 3, pan and scan": ("Gemma3ImageProcessor", {"size": SQUARE, **PAN, "pan_and_scan_max_num_crops": 4}),
    "Donut": ("DonutImageProcessor", {"size": PAGE}),
    "Nougat": ("NougatImageProcessor", {"size": PAGE, "do_crop_margin": False}),
    "Kosmos-2": ("CLIPImageProcessor", {"size": SQUARE, "crop_size": SQUARE, "do_normalize": False}),
    "Pixtral": ("PixtralImageProcessor", {"size": {"longest_edge": 64}, "patch_size": 4}),
}
BUILT = [
    pytest.param(name + ending, options, id=f"{family}{', PIL' if ending else ''}")
    for family, (name, options) in FAMILIES.items()
    for ending in ("", "Pil")
    if hasattr(transformers, name + ending)
]
SIZES = [(96, 60), (151, 225)]


def build(name, **options):
    return getattr(transformers, name)(**options)


def pictures(processor, image):
    values = processor(images=image, return_tensors="pt")["pixel_values"]
    return torch.cat([part.reshape(-1, *part.shape[-3:]) for part in values]).double().numpy()


def near(window, expected, within=0.05):
    assert np.abs(np.subtract(window, expected)).max() <= within, (window, expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("name", "options"), BUILT)
def test_a_marker_is_seen_where_the_window_says(name, options, size):
    """A bright square moves over the picture: in every view its centre is where it should be, or it is not there."""
    processor = build(name, **options)
    seen = views(processor, size)
    empty = pictures(processor, Image.new("RGB", size[::-1]))
    assert [view.window for view in seen] == list(windows(processor, size))
    assert [(view.height, view.width) for view in seen] == [picture.shape[1:] for picture in empty]
    side, met = 9, set()
    for down, across in product((0.1, 0.45, 0.86), repeat=2):
        row, column = round(down * (size[0] - side)), round(across * (size[1] - side))
        image = Image.new("RGB", size[::-1])
        image.paste("white", (column, row, column + side, row + side))
        for number, (view, after, before) in enumerate(zip(seen, pictures(processor, image), empty, strict=True)):
            changed = (after - before).mean(0)
            if view.window == NOWHERE:
                assert not changed.any()
                continue
            top, left, bottom, right = view.window
            scale = np.array([view.height / (bottom - top), view.width / (right - left)])
            expected = (np.array([row, column]) + side / 2 - (top, left)) * scale
            reach = side / 2 * scale + 1.5 * np.maximum(scale, 1)
            if (expected - reach > 0).all() and (expected + reach < (view.height, view.width)).all():
                centre = [(changed.sum(1 - a) * (np.arange(n) + 0.5)).sum() for a, n in enumerate(changed.shape)]
                assert np.abs(np.array(centre) / changed.sum() - expected).max() < 0.6
                met.add(number)
            elif (expected + 2 * reach < 0).any() or (expected - 2 * reach > (view.height, view.width)).any():
                assert np.abs(changed).max() < 1e-6
    shown = np.minimum([view.window[2:] for view in seen], size) - np.maximum([view.window[:2] for view in seen], 0)
    assert met >= set(np.flatnonzero((shown > 3 * side).all(1)))


def grid(rows, columns):
    """Windows of tiles, row by row, from where their edges lie."""
    return [(a, c, b, d) for a, b in pairwise(rows) for c, d in pairwise(columns)]


WHOLE = (0.0, 0.0, 60.0, 96.0)
# Of a picture of 60 x 96. CLIP: 32 x 51, of which columns 9 to 41 are kept. LLaVA: a square of 96, 18 above and below.
# LLaVA-NeXT: two by two tiles hold 40 x 64 with 12 above and below, at 1.5. Idefics3, InternVL: two rows of three.
# Mllama: 40 x 64, padded below to 64. Donut: 20 x 32 in the middle of 40 rows, at 3.
KNOWN = {
    "CLIP": [(0, 9 * 96 / 51, 60, 41 * 96 / 51)],
    "SigLIP, PaliGemma": [WHOLE],
    "ViLT": [WHOLE],
    "LLaVA, padded": [(-18, 0, 78, 96)],
    "LLaVA-NeXT": [WHOLE, *grid([-18, 30, 78], [0, 48, 96])],
    "LLaVA-OneVision": [WHOLE, *grid([-18, 30, 78], [0, 48, 96])],
    "Idefics3": [*grid([0, 30, 60], [0, 32, 64, 96]), WHOLE],
    "SmolVLM": [*grid([0, 30, 60], [0, 32, 64, 96]), WHOLE],
    "InternVL": [*grid([0, 30, 60], [0, 32, 64, 96]), WHOLE],
    "Mllama": grid([0, 48, 96], [0, 48, 96]),
    "Gemma 3": [WHOLE],
    "Gemma 3, pan and scan": [WHOLE, *grid([0, 60], [0, 48, 96])],
    "Donut": [(-30, 0, 90, 96)],
    "Pixtral": [WHOLE],
}


@pytest.mark.parametrize("family", KNOWN)
def test_windows_by_hand(family):
    name, options = FAMILIES[family]
    found = windows(build(name, **options), (60, 96))
    assert len(found) == len(KNOWN[family])
    for window, expected in zip(found, KNOWN[family], strict=True):
        near(window, expected, 0.06)
    turned = windows(build(name, **options), (96, 60))
    if len(found) == 1 and family not in ("Donut",):  # the page is no square
        near([turned[0][i] for i in (1, 0, 3, 2)], found[0], 1e-3)


@pytest.mark.parametrize(
    ("family", "base", "rows", "columns"),
    [
        ("LLaVA-NeXT", 0, 2, 2),
        ("LLaVA-OneVision", 0, 2, 2),
        ("Idefics3", 6, 2, 3),
        ("InternVL", 6, 2, 3),
        ("Mllama", None, 2, 2),
        ("Gemma 3, pan and scan", 0, 1, 2),
        ("CLIP", None, 1, 1),
    ],
)
def test_tiles_lie_row_by_row_before_or_after_the_whole(family, base, rows, columns):
    name, options = FAMILIES[family]
    cells = list(product(range(rows), range(columns)))
    if base is not None:
        cells.insert(base, None)
    found = tiling(views(build(name, **options), (60, 96)), (60, 96))
    assert found == Tiling(base, rows, columns, tuple(cells))


def test_tiles_that_are_all_padding_show_nothing():
    """Mllama makes as many tiles of a small picture as of a large one."""
    processor = build("MllamaImageProcessor", size=SQUARE, max_image_tiles=4)
    seen = views(processor, (20, 30))
    near(seen[0].window, (0, 0, 20 / 21 * 32, 30))  # made 21 x 32
    assert [view.window for view in seen[1:]] == [NOWHERE] * 3
    assert tiling(seen, (20, 30)) == Tiling(None, 1, 1, ((0, 0), None, None, None))
    assert upsample(torch.ones(1, 4, 4), (20, 30), NOWHERE).count_nonzero() == 0


def test_what_overlaps_as_no_grid_does_is_refused():
    same = View((0.0, 0.0, 10.0, 10.0), 32, 32)
    with pytest.raises(UserError, match="expected tiles that lie in a grid, got 2 in 1 places"):
        tiling([same, same], (20, 20))


@pytest.mark.parametrize("family", ["CLIP", "LLaVA, padded", "LLaVA-NeXT", "Idefics3", "Mllama", "Donut"])
def test_maps_return_to_where_the_marker_was(family):
    """What the network sees of a square, taken for a map, lies on the square in the original: tiles laid together."""
    size, (row, column), side = (90, 141), (33, 61), 20
    processor = build(FAMILIES[family][0], **FAMILIES[family][1])
    image = Image.new("RGB", size[::-1])
    empty = pictures(processor, image)
    image.paste("white", (column, row, column + side, row + side))
    changed = torch.from_numpy(pictures(processor, image) - empty).mean(1)
    seen = views(processor, size)
    cells = tiling(seen, size).cells
    for chosen in (
        [i for i, cell in enumerate(cells) if cell is None],
        [i for i, cell in enumerate(cells) if cell is not None],
    ):
        if chosen:
            full = sum(upsample(changed[i : i + 1], size, seen[i].window)[0] for i in chosen)
            mass = full / full.sum()
            rows, columns = torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5
            assert abs((mass.sum(1) * rows).sum() - (row + side / 2)) < 0.7
            assert abs((mass.sum(0) * columns).sum() - (column + side / 2)) < 0.7


def test_twelve_million_pixels_are_measured_to_a_twentieth_of_one():
    """CLIP: 224 x 298, of which columns 37 to 261 are kept."""
    (window,) = windows(build("CLIPImageProcessor"), (3000, 4000))
    near(window, (0, 37 * 4000 / 298, 3000, 261 * 4000 / 298), 0.05)


def test_pictures_of_few_pixels():
    squash = build("SiglipImageProcessor", size=SQUARE)
    for size in [(1, 1), (1, 40), (2, 3), (5, 7), (40, 6)]:
        assert windows(squash, size) == ((0.0, 0.0, *map(float, size)),)
    padded = build("LlavaImageProcessor", **FAMILIES["LLaVA, padded"][1])
    near(windows(padded, (20, 500))[0], (-240, 0, 260, 500), 0.5)  # 1.3 of 32 rows show it
    tiles = windows(build("LlavaNextImageProcessor", **FAMILIES["LLaVA-NeXT"][1]), (20, 400))
    for window, expected in zip(tiles, [(0, 0, 20, 400), *grid([-52, 76], [0, 400 / 3, 800 / 3, 400])], strict=True):
        near(window, expected, 0.1)
    with pytest.raises(UserError, match="at least one pixel, got 0 x 5"):
        windows(squash, (0, 5))


class Other:
    """An image processor of somebody else's: does with the picture what it is told; its calls are counted."""

    def __init__(self, change):
        self.change = change

    def __call__(self, images, return_tensors):
        Other.count += 1
        return {"pixel_values": self.change(torch.from_numpy(np.array(images)).double())[None]}

    count = 0


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[4:36, 10:42],
        lambda x: x[4:36, 10:42].movedim(-1, 0),
        lambda x: x[4:36, 10:42].movedim(-1, 0).flip(0),
        lambda x: x[4:36, 10:42].movedim(-1, 0).float() / 255,
        lambda x: 2.5 - 4 * x[4:36, 10:42].movedim(-1, 0).to(torch.bfloat16).float(),
    ],
    ids=["channels last", "channels first", "blue first", "single precision", "negative"],
)
def test_channels_and_numbers_of_any_kind(change):
    near(windows(Other(change), (60, 96))[0], (4, 10, 36, 42))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda x: x.movedim(-1, 0).flip(1), "Other mirrors"),
        (lambda x: x.movedim(-1, 0).flip(2), "Other mirrors"),
        (lambda x: x.movedim(-1, 0).transpose(1, 2), "Other turns or bends"),
        (lambda x: x.movedim(-1, 0)[:, :, torch.arange(x.shape[1]) ** 2 // x.shape[1]], "Other bends"),
        (lambda x: x.movedim(-1, 0)[:, : 20 + int(x[0, 0, 0]) % 7], "Other cuts pictures by what they show"),
        (lambda x: x.movedim(-1, 0)[:, :60, :60] * torch.ones(60, 60).tril(), "another shape than a rectangle"),
        (lambda x: torch.zeros(3, 32, 32), "makes the same of a dark picture and a light one"),
        (lambda x: x.mean(2)[None], r"three channels in pixel_values, got the shape \(1, 1, "),
    ],
)
def test_what_cannot_be_undone_by_a_window_is_refused(change, error):
    with pytest.raises(UserError, match=error):
        windows(Other(change), (60, 96))


def test_pages_that_are_turned_or_trimmed_are_refused():
    turning = build("DonutImageProcessor", size=PAGE, do_align_long_axis=True)
    near(windows(turning, (96, 60))[0], (0, -7.2, 96, 69.6))
    with pytest.raises(UserError, match="turns or bends this picture"):
        windows(turning, (60, 96))
    trimming = build("NougatImageProcessor", size=PAGE)
    with pytest.raises(UserError, match="set do_crop_margin=False"):
        windows(trimming, (60, 96))
    assert windows(trimming, (60, 96), do_crop_margin=False)


def test_a_picture_is_measured_once():
    processor = Other(lambda x: x[:32, :32].movedim(-1, 0))
    first, start = windows(processor, (60, 96)), Other.count
    assert windows(processor, (60, 96)) == first
    assert Other.count == start
    windows(processor, (96, 60))
    assert Other.count == start + 5
    processor.change = lambda x: x[8:40, :32].movedim(-1, 0)
    near(windows(processor, (60, 96))[0], (8, 0, 40, 32))


def test_options_of_the_call_count():
    processor = build("GotOcr2ImageProcessor", size=SQUARE)
    assert [len(windows(processor, (60, 96), crop_to_patches=split)) for split in (False, True, False)] == [1, 7, 1]


def test_a_processor_of_texts_and_pictures_has_one_of_pictures():
    class Both:
        image_processor = build("SiglipImageProcessor", size=SQUARE)

    assert windows(Both(), (60, 96)) == (WHOLE,)


def test_padding_of_a_batch_is_padding_too():
    """ViLT: a picture beside a larger one gets the same pixels, and more padding below and to the right."""
    processor = build("ViltImageProcessor", size={"shortest_edge": 64})
    one, other = Image.new("RGB", (96, 60)), Image.new("RGB", (60, 96))
    both = processor(images=[one, other], return_tensors="pt")["pixel_values"]
    (view,) = views(processor, (60, 96))
    assert (view.height, view.width) == (64, 96)
    assert tuple(both.shape[-2:]) == (96, 96)
    near(view.padded(96, 96).window, (0, 0, 90, 96))


def test_packed_patches_are_the_whole_picture():
    """Qwen2-VL: the patch with a marker is the one at its place; blocks of merged patches lie together."""
    size, (row, column) = (90, 150), (60, 30)
    processor = build("Qwen2VLImageProcessor", patch_size=4, size={"shortest_edge": 64, "longest_edge": 40 * 64})
    image = Image.new("RGB", size[::-1])
    image.paste("white", (column, row, column + 6, row + 6))
    out = processor(images=image, return_tensors="pt")
    with pytest.raises(UserError, match=r"for packed patches see mmcam\.huggingface\.patches"):
        windows(processor, size)
    (patches,) = packed(out["image_grid_thw"], [size])
    (merged,) = packed(out["image_grid_thw"], [size], merge=2)
    assert patches.window == merged.window == (0.0, 0.0, 90.0, 150.0)
    assert (patches.rows, patches.columns) == (2 * merged.rows, 2 * merged.columns)
    assert patches.rows * patches.columns == len(out["pixel_values"])
    light = out["pixel_values"].mean(1).view(merged.rows, merged.columns, 2, 2).movedim(2, 1)
    cell = light.reshape(patches.rows, patches.columns).argmax().item()
    down, across = divmod(cell, patches.columns)
    assert down == int((row + 3) / 90 * patches.rows)
    assert across == int((column + 3) / 150 * patches.columns)


def test_packed_patches_that_are_none_of_a_picture():
    with pytest.raises(UserError, match="got a film of 3 frames"):
        packed(torch.tensor([[3, 4, 4]]), [(60, 96)])
    with pytest.raises(UserError, match="a grid that 2 divides, got 3 x 4"):
        packed(torch.tensor([[1, 3, 4]]), [(60, 96)], merge=2)
    with pytest.raises(UserError, match=r"of 2 pictures, got numbers of shape \(1, 3\)"):
        packed(torch.tensor([[1, 4, 4]]), [(60, 96)] * 2)
    assert packed(torch.tensor([[3, 5]]), [(60, 96)])[0].columns == 5  # SigLIP 2 has no frames


@pytest.mark.parametrize("size", [(90, 150), (200, 50)])
def test_flattened_patches_are_the_whole_picture(size):
    """Pix2Struct: the patch with a marker is the one at its place."""
    processor = build("Pix2StructImageProcessor", patch_size={"height": 8, "width": 8}, max_patches=40)
    row, column = size[0] * 2 // 3, size[1] // 5
    image = Image.new("RGB", size[::-1])
    image.paste("white", (column, row, column + 6, row + 6))
    values = processor(images=image, return_tensors="pt", max_patches=40)["flattened_patches"]
    with pytest.raises(UserError, match="expected pixel_values of Pix2StructImageProcessor, got flattened_patches"):
        windows(processor, size)
    (patches,) = flattened(values, [size])
    assert patches.window == (0.0, 0.0, *map(float, size))
    assert 20 < patches.rows * patches.columns <= 40
    most = values[0, :, 2:].mean(1)[: patches.rows * patches.columns].argmax().item()
    assert most // patches.columns == int((row + 3) / size[0] * patches.rows)
    assert most % patches.columns == int((column + 3) / size[1] * patches.columns)
    with pytest.raises(UserError, match="patches by their rows and columns, got"):
        flattened(values[:, 3:], [size])


@pytest.mark.parametrize(("size", "header"), [((90, 150), (46, 400)), ((300, 700), (46, 350))])
def test_a_question_over_the_picture_moves_it_down(size, header, monkeypatch):
    """Pix2Struct draws a question of its own size over the picture and makes the two as wide."""
    if not hasattr(transformers.Pix2StructImageProcessor, "render_header"):
        pytest.skip("this transformers draws questions by other means")
    module = transformers.models.pix2struct.image_processing_pix2struct
    monkeypatch.setattr(module, "render_text", lambda *_, **__: Image.new("RGB", header[::-1], "black"))
    white = torch.full((3, *size), 255, dtype=torch.uint8)
    drawn = build("Pix2StructImageProcessor").render_header(white, "who?")
    begins = int((drawn[0, :, 0] > 128).nonzero()[0, 0])  # of the picture, in rows of the drawing
    values = torch.ones(1, 1, 5)
    (patches,) = flattened(values, [size], [header])
    top, left, bottom, right = patches.window
    assert (left, bottom, right) == (0.0, size[0], size[1])
    assert -top / (bottom - top) == pytest.approx(begins / drawn.shape[1], abs=1 / drawn.shape[1])
