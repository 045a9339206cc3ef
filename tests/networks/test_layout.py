"""Layers' outputs as maps: every grid is proved by moving one patch of the picture, and every way back is exact."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from mmcam.errors import UserError
from mmcam.networks.layout import Layout, find_layout
from mmcam.networks.split import Split


def vit(size=(32, 48), **options):
    return timm.create_model("vit_tiny_patch16_224", img_size=size, num_classes=3, depth=2, **options).eval()


def torchvision_vit(size=32):
    model = torchvision.models.VisionTransformer(size, 8, 2, 2, 16, 32, num_classes=3).eval()
    nn.init.normal_(model.heads[-1].weight)
    return model


def spread(model, layer, x, prefix=None):
    output, _ = Split(model, layer).below(x)
    layout = find_layout(output, (x.shape[2], x.shape[3]), model, prefix, layer)
    activations, rest = layout.spread(output)
    assert torch.equal(layout.gather(activations, rest), output)
    return layout, activations


@pytest.mark.parametrize(
    ("model", "layer", "size", "expected"),
    [
        (lambda: vit(), "blocks.0.norm1", (32, 48), Layout("tokens", (2, 3), 1)),
        (lambda: vit((96, 32), reg_tokens=4), "blocks.0.norm1", (96, 32), Layout("tokens", (6, 2), 5)),
        (lambda: vit(class_token=False, global_pool="avg"), "blocks.0.norm1", (32, 48), Layout("tokens", (2, 3), 0)),
        (lambda: torchvision_vit(), "encoder.layers.encoder_layer_0.ln_1", (32, 32), Layout("tokens", (4, 4), 1)),
        (lambda: torchvision.models.swin_t(), "features.0", (64, 96), Layout("channels last", (16, 24))),
        (lambda: torchvision.models.swin_t(), "features.2.norm", (64, 96), Layout("channels last", (8, 12))),
        (lambda: torchvision_vit(), "conv_proj", (32, 32), Layout("maps", (4, 4))),
        (
            lambda: timm.create_model("swin_tiny_patch4_window7_224", img_size=(64, 96)),
            "patch_embed",
            (64, 96),
            Layout("channels last", (16, 24)),
        ),
    ],
)
def test_a_patch_of_the_picture_moves_its_own_cell(model, layer, size, expected):
    model, x = model().eval(), torch.randn(1, 3, *size)
    layout, before = spread(model, layer, x)
    assert layout == expected
    side = size[0] // layout.grid[0]
    row, column = layout.grid[0] - 1, layout.grid[1] // 2
    x[:, :, row * side : (row + 1) * side, column * side : (column + 1) * side] += 1
    _, after = spread(model, layer, x)
    moved = (after - before).abs().sum(1)[0]
    assert divmod(int(moved.argmax()), layout.grid[1]) == (row, column)


def test_tokens_of_an_unknown_model_fill_the_smallest_prefix_that_leaves_a_grid():
    tokens = torch.zeros(1, 11, 4)
    assert find_layout(tokens, (64, 160), nn.Identity()) == Layout("tokens", (2, 5), 1)
    assert find_layout(tokens, (64, 64), nn.Identity(), prefix=2) == Layout("tokens", (3, 3), 2)
    assert find_layout(torch.zeros(1, 12, 4), (37, 50), nn.Identity()) == Layout(
        "tokens", (3, 4), 0
    )  # cut last patches


def test_channels_last_is_told_from_maps_by_the_aspect_and_if_need_be_by_the_model():
    x = torch.zeros(1, 16, 16, 16)
    assert find_layout(x, (64, 64), nn.Identity()).order == "maps"
    assert find_layout(x, (64, 64), torchvision.models.swin_t()).order == "channels last"
    assert find_layout(torch.zeros(1, 8, 4, 6), (64, 96), nn.Identity()).order == "maps"
    assert find_layout(torch.zeros(1, 4, 6, 8), (64, 96), nn.Identity()).order == "channels last"
    assert find_layout(torch.zeros(1, 8, 1, 26), (32, 100), nn.Identity()).order == "maps"  # anisotropic strides


@pytest.mark.parametrize(
    ("shape", "prefix", "message"),
    [
        (
            (2, 8, 5),
            1,
            r"layer 'x' gives \(2, 8, 5\): 1 prefix tokens and 8 tokens fill no grid on a picture of 64 x 96",
        ),
        ((2, 2, 5), 3, "fill no grid"),
        ((2, 7), None, "choose one before pooling"),
        ((2, 7, 3, 3, 3), None, "must give maps"),
    ],
)
def test_what_is_no_grid_is_refused(shape, prefix, message):
    with pytest.raises(UserError, match=message):
        find_layout(torch.zeros(shape), (64, 96), nn.Identity(), prefix, "x")
