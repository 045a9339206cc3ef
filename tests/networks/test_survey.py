"""Which layer is chosen, family by family, and why not the others; marked places prove the choice."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from classification import ClassificationTask
from classification.models import classifier
from mmcam.errors import UserError
from mmcam.networks.layout import Layout
from mmcam.networks.survey import last_map, survey
from mmcam.networks.twin import observe

torch.set_num_threads(1)


WIDE = (96, 160)


def make(name):
    """A small classifier by name; "timm/vit_tiny…", or with the arguments that make it small."""
    torch.manual_seed(0)
    if name == "vit_b_16, smaller":
        model = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3)
        nn.init.normal_(model.heads[-1].weight)
        return model.eval(), (32, 32)
    if name == "timm/eva02_tiny, with a head":
        return timm.create_model("eva02_tiny_patch14_224", img_size=56, num_classes=3).eval(), (56, 56)
    if name == "timm/naflexvit, smaller":
        model = timm.create_model("naflexvit_base_patch16_gap", embed_dim=32, depth=2, num_heads=2, num_classes=3)
        return model.eval(), (64, 64)
    if name == "swin_t":
        return torchvision.models.swin_t().eval(), WIDE
    if name == "one block":
        return torchvision.models.VisionTransformer(32, 8, 1, 2, 16, 32).eval(), (32, 32)  # with a head of zeros
    if name == "vgg11":
        return torchvision.models.vgg11(init_weights=False).eval(), WIDE
    found = classifier(name)
    return found.model, found.form.size if "/" in name and "resnet" not in name else WIDE


EXPECTED = {
    # the last maps before pooling
    "resnet18": ("layer4", "maps", (3, 5), 0),
    "timm/test_resnet": ("layer4", "maps", (3, 5), 0),
    "timm/test_nfnet": ("final_act", "maps", (5, 5), 0),
    "timm/test_efficientnet": ("bn2", "maps", (5, 5), 0),
    "timm/test_byobnet": ("stages", "maps", (5, 5), 0),
    "mobilenet_v3_small": ("features", "maps", (3, 5), 0),
    "mnasnet0_5": ("layers", "maps", (3, 5), 0),
    "shufflenet_v2_x0_5": ("conv5", "maps", (3, 5), 0),
    "regnet_y_400mf": ("trunk_output", "maps", (3, 5), 0),
    "vgg11": ("features", "maps", (3, 5), 0),  # after the last max pooling: features.19 is twice as fine
    "densenet121": ("features", "maps", (3, 5), 0),  # a ReLU in the forward follows
    "squeezenet1_1": ("classifier.2", "maps", (5, 9), 0),  # the maps of the classes, averaged afterwards
    "timm/mobilevit_xxs": ("final_conv", "maps", (8, 8), 0),
    "timm/test_coatnet": ("norm", "maps", (5, 5), 0),
    # channels last
    "timm/test_convnext": ("stages", "maps", (5, 5), 0),
    "timm/test_mambaout": ("stages", "channels last", (5, 5), 0),
    "swin_t": ("permute", "maps", (3, 5), 0),
    # transformers read at a class token: the norm before the last attention
    "vit_b_16, smaller": ("encoder.layers.encoder_layer_1.ln_1", "tokens", (4, 4), 1),
    "one block": ("encoder.layers.encoder_layer_0.ln_1", "tokens", (4, 4), 1),
    "timm/test_vit": ("blocks.5.norm1", "tokens", (10, 10), 1),
    "timm/deit_tiny_distilled_patch16_224": ("blocks.11.norm1", "tokens", (14, 14), 2),
    "timm/convit_tiny": ("blocks.11.norm1", "tokens", (14, 14), 1),
    "timm/pit_ti_224": ("transformers.2.blocks.3.norm1", "tokens", (7, 7), 1),
    # a class token that comes late: before it
    "timm/cait_xxs24_224": ("blocks", "tokens", (14, 14), 0),
    "timm/xcit_nano_12_p8_224": ("blocks.11", "tokens", (28, 28), 0),
    # averaged tokens: after the last norm, or the last block where the norm comes after averaging
    "timm/test_vit_relpos": ("blocks.8", "tokens", (10, 10), 0),
    "timm/eva02_tiny, with a head": ("blocks.11", "tokens", (4, 4), 1),
    "timm/gmlp_ti16_224": ("norm", "tokens", (14, 14), 0),
    "timm/levit_128s": ("stages", "tokens", (4, 4), 0),
    # no map anywhere: patches by a linear layer
    "timm/naflexvit, smaller": ("blocks.1", "tokens", (4, 4), 4),
    # beside it, nine states of a state space that are no places
    "timm/efficientvim_m1": ("norm.3", "maps", (4, 4), 0),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_layer_of_each_family(name):
    model, size = make(name)
    images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    layer, order, grid, prefix = EXPECTED[name]
    found = {entry.name: entry for entry in survey(model, images)}
    chosen = [entry.name for entry in found.values() if not (entry.refused or entry.passed)]
    assert chosen[-1] == layer
    assert found[layer].layout == Layout(order, grid, prefix)
    if name in MIXED:
        return
    # Where the pixels lie that move a corner of the layer: the further right the corner, the further right are they.
    source = images.requires_grad_()
    activations, _ = found[layer].layout.spread(dict(observe(model, source)[0])[layer])
    corners = [(0, 0), (0, -1), (-1, 0), (-1, -1)]
    centres = torch.tensor([centre(activations[0, :, row, column], source) for row, column in corners])
    for axis in (0, 1):
        sides = torch.tensor([float(corner[axis] == -1) for corner in corners])
        assert torch.corrcoef(torch.stack([sides, centres[:, axis]]))[0, 1] > 0.8


MIXED = ("timm/levit_128s", "timm/efficientvim_m1")
"""Untrained, all places of these see all of the picture alike."""


def centre(place, source):
    """Mean row and column of the squared gradients of some mixtures of a place's channels."""
    mass = torch.zeros(source.shape[2:])
    for step in (1.0, 2.0, 3.0):
        mix = (step * torch.arange(len(place))).cos()
        (gradient,) = torch.autograd.grad((place * mix).sum(), source, retain_graph=True)
        mass += gradient[0].square().sum(0) / gradient.square().sum() / 3
    height, width = mass.shape
    return [float(mass.sum(1) @ torch.arange(float(height))), float(mass.sum(0) @ torch.arange(float(width)))]


@pytest.mark.parametrize(("name", "after"), [("timm/test_resnet", "layer4"), ("timm/test_vit", "blocks.5.norm1")])
def test_scores_depend_on_the_layer_at_all_its_places(name, after):
    """By a plain hook, and not by what the survey is made of."""
    model, size = make(name)
    nn.init.normal_([m for m in model.modules() if isinstance(m, nn.Linear)][-1].weight)
    kept = []
    model.get_submodule(after).register_forward_hook(lambda module, inputs, output: kept.append(output))
    scores = model(torch.rand(1, 3, *size))
    (gradient,) = torch.autograd.grad(scores.cos().sum(), kept[0])
    assert last_map(model, torch.rand(1, 3, *size)) == after
    assert gradient.flatten(2).ne(0).any(2 if gradient.ndim == 3 else 1).all()


def test_it_leaves_no_trace():
    model = torchvision.models.resnet18().train()
    frozen = [p.requires_grad_(False) for p in model.parameters()]
    rng = torch.get_rng_state()
    with torch.no_grad():
        assert last_map(model, torch.empty(2, 3, 64, 96)) == "layer4"
    assert torch.equal(rng, torch.get_rng_state())
    assert model.training
    assert not any(p.requires_grad or p.grad is not None for p in frozen)


def test_a_model_without_maps_has_no_last_one():
    message = (
        r"found no layer with maps that the output of Sequential depends on: of most, gives a vector, without places"
    )
    with pytest.raises(UserError, match=message):
        last_map(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), torch.empty(1, 3, 4, 4))


def test_why_layers_of_a_cnn_are_refused():
    found = {layer.name: layer for layer in survey(torchvision.models.resnet18(), torch.empty(2, 3, 64, 96))}
    assert found["layer4"].shape == (1, 512, 2, 3)
    assert found["layer4"].kind == "Sequential"
    assert found["layer4"].layout.grid == (2, 3)
    good = {name for name, layer in found.items() if not layer.refused}
    assert {"conv1", "layer2.0.downsample", "layer3.1.bn2", "layer4"} <= good
    assert found["avgpool"].refused == "is 1 x 1, after pooling"
    assert found["fc"].refused == "gives a vector, without places"
    assert found["layer1.0.relu"].refused == "runs 2 times in a forward"
    assert all(layer.layout is None for layer in found.values() if layer.refused)


def test_why_layers_of_a_transformer_are_refused():
    model = timm.create_model("test_vit", img_size=32, num_classes=3)
    found = {layer.name: layer for layer in survey(model, torch.empty(1, 3, 32, 32))}
    assert found["blocks.5"].refused == "the output does not depend on its places"
    assert found["norm"].refused == "the output does not depend on its places"
    assert (found["blocks.5.norm1"].refused, found["blocks.5.norm1"].passed) == ("", "")
    assert found["blocks.5.attn.qkv"].passed == "is a part of an attention"
    assert found["blocks.4.drop_path1"].passed == "hands on what it gets"
    assert found["fc_norm"].refused == "gives a vector, without places"


class Odd(nn.Module):
    """Has one layer of each kind that is refused for its shape."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Conv2d(3, 4, 4, 4)
        self.windows, self.tokens, self.states, self.row, self.cube, self.text, self.unused = (
            nn.Unflatten(0, (-1,)), nn.Identity(), nn.Identity(), nn.Identity(), nn.Identity(), Text(), nn.ReLU(),
        )  # fmt: skip
        self.pairs, self.last = nn.Identity(), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.maps(x)  # 4 x 4
        self.windows(x.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).reshape(4, 4, 2, 2))
        tokens = self.tokens(x.flatten(2).mT)  # 16
        self.states(tokens[:, :9])
        self.row(x[:, :, :2])
        self.cube(x[..., None])
        self.text(x)
        pairs = self.pairs((tokens @ tokens.mT)[:, None])
        return self.last(x).mean((2, 3)) + pairs.mean((2, 3))


class Text(nn.Module):
    def forward(self, x):
        return "text"


def test_why_odd_layers_are_refused():
    found = {layer.name: layer for layer in survey(Odd(), torch.empty(1, 3, 16, 16))}
    assert {name: layer.refused for name, layer in found.items()} == {
        "maps": "",
        "windows": "gives windows or other parts, several for one picture",
        "tokens": "",
        "states": "its 9 tokens lie on no grid that the network has",
        "row": "its grid of 2 x 4 has not the picture's aspect",
        "cube": "gives neither maps nor tokens",
        "text": "gives no tensor",
        "pairs": "gives pairs of tokens, or heads",
        "last": "",
        "unused": "does not run, or not through the module tree",
    }


def test_the_choice_can_be_overridden():
    assert ClassificationTask("resnet18", size=64).layer == "layer4"
    assert ClassificationTask("resnet18", "layer3", size=64).layer == "layer3"
