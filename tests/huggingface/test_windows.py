from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image

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
SIZES = [(96, 60), (60, 96), (151, 225)]


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
    for down, across in product((0.08, 0.33, 0.6, 0.84), repeat=2):
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
            reach = side / 2 * scale + 3 * np.maximum(scale, 1)
            if (expected - reach > 0).all() and (expected + reach < (view.height, view.width)).all():
                centre = [(changed.sum(1 - a) * (np.arange(n) + 0.5)).sum() for a, n in enumerate(changed.shape)]
                assert np.abs(np.array(centre) / changed.sum() - expected).max() < 0.6
                met.add(number)
            elif (expected + reach < 0).any() or (expected - reach > (view.height, view.width)).any():
                assert np.abs(changed).max() < 1e-6
    assert met, "no view of any square"
