"""Cutting a model: both halves are the model, whatever it does in between, and nothing of it changes."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from mmcam.errors import UserError
from mmcam.gradients import batched, looped, replicated
from mmcam.networks.split import Split
from mmcam.networks.twin import observe
from mmcam.task import Batch


def resnet18(**options):
    return torchvision.models.resnet18(num_classes=5, **options)


def images(b=2, h=48, w=64, dtype=torch.float64):
    return torch.randn(b, 3, h, w, dtype=dtype)


def hooked(model, layer, x):
    """The reference: output, activations and their gradient by an ordinary hook on the whole model."""
    kept = {}

    def keep(module, args, output):
        first = output if isinstance(output, torch.Tensor) else next(t for t in tree_leaves(output) if t is not None)
        kept["a"] = first
        return output.clone() if first is output else None  # a copy, as in-place layers may follow

    handle = model.get_submodule(layer).register_forward_hook(keep)
    y = model(x)
    handle.remove()
    (gradient,) = torch.autograd.grad(y.cos().sum(), kept["a"])
    return y.detach(), kept["a"].detach(), gradient


def check_halves(model, layer, x):
    model = model.double().eval()
    with torch.no_grad():
        for p in model.parameters():
            if not p.any():
                nn.init.normal_(p)
    y, a, gradient = hooked(model, layer, x)
    split = Split(model, layer)
    output, memo = split.below(x)
    torch.testing.assert_close(output, a)
    assert not output.requires_grad
    leaf = output.clone().requires_grad_()
    for _ in range(2):
        above = split.above(leaf, memo)
        torch.testing.assert_close(above.detach(), y)
        torch.testing.assert_close(torch.autograd.grad(above.cos().sum(), leaf)[0], gradient)
    with torch.no_grad():
        torch.testing.assert_close(split.above(output, memo), y)
    torch.testing.assert_close(output, a)  # in-place layers above have not written into it
    return memo


@pytest.mark.parametrize(
    "layer",
    [
        "conv1",
        "bn1",
        "maxpool",
        "layer1.0.conv1",
        "layer2.0.downsample",
        "layer3.1.bn2",
        "layer4.0",
        "layer4",
        "avgpool",
    ],
)
def test_any_layer_of_a_resnet(layer):
    check_halves(resnet18(), layer, images())


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("densenet121", "features"),  # then F.relu(…, inplace=True)
        ("densenet121", "features.denseblock3.denselayer2.conv2"),  # its inputs are lists of tensors
        ("swin_t", "features.5.1.norm1"),
        ("swin_t", "permute"),
        ("mobilenet_v3_small", "features.9.block.2.scale_activation"),
        ("shufflenet_v2_x0_5", "stage4.1.branch2"),
        ("googlenet", "inception5a.branch3"),
        ("squeezenet1_1", "classifier.1"),
    ],
)
def test_torchvision_models(name, layer):
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    check_halves(torchvision.models.get_model(name, num_classes=5, **options), layer, images(1, 64, 96))


@pytest.mark.parametrize(
    ("name", "layer", "options"),
    [
        ("convnext_atto", "stages.2.blocks.1.conv_dw", {}),
        ("vit_tiny_patch16_224", "blocks.10", {"img_size": (32, 48)}),
        ("vit_tiny_patch16_224", "blocks.11.norm1", {"img_size": (32, 48)}),
        ("swin_tiny_patch4_window7_224", "layers.2.blocks.3", {"img_size": (32, 48), "window_size": 2}),
    ],
)
def test_timm_models(name, layer, options):
    check_halves(timm.create_model(name, num_classes=5, **options), layer, images(1, 32, 48))


class Odd(nn.Module):
    """All that a forward may do between modules."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.mix = nn.Conv2d(4, 4, 3, padding=1)
        self.pair = Pair()
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.plain_list = [self.block]
        self.head = nn.Linear(4, 3)
        self.unused = nn.Conv2d(3, 3, 1)
        self.call = self.mixed  # a bound method among the attributes

    def mixed(self, x):
        return self.mix(x)

    def forward(self, images):
        x = self.stem(images)
        before = x.mean((2, 3))  # read before it is overwritten
        x = self.act(x)
        skip = x
        x += images.mean(1, keepdim=True)  # overwrites what a module left
        x = self.act(self.call(x) - 0.1)  # a module for the second time
        if x.mean() > -1e9:  # Python looks at numbers
            x = x * 1.5
        parts = self.pair(x)
        x = self.block(parts["first"]) + parts["others"][0]
        x = F.relu(x, inplace=True) + skip
        return self.head(x.mean((2, 3))) + before[:, :3]


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return {"first": self.conv(x), "others": (x.sigmoid(), None)}


@pytest.mark.parametrize("layer", ["mix", "pair.conv", "pair", "block.0", "block"])
def test_any_layer_of_an_odd_model(layer):
    check_halves(Odd(), layer, images())


class Encoder(nn.Module):
    """Runs as one fused kernel where no gradient is needed, unless someone looks inside."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), 2)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.encoder(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


@pytest.mark.parametrize("layer", ["encoder.layers.0", "encoder.layers.1.self_attn", "encoder.layers.1.norm1"])
def test_fused_transformer_layers_are_cut_inside(layer):
    check_halves(Encoder(), layer, images())


def test_first_tensor_of_several_is_cut_and_the_others_stay():
    model = Odd().double().eval()
    split = Split(model, "pair")
    output, memo = split.below(images())
    torch.testing.assert_close(split.above(output * 0, memo), model_without_pair(model, memo["split"]["images"]))


def model_without_pair(model, x):
    other = copy.deepcopy(model)
    nn.init.zeros_(other.pair.conv.weight)
    nn.init.zeros_(other.pair.conv.bias)
    other.call = other.mixed
    return other(x)


def kept(memo):
    return sorted({tuple(x.shape[1:]) for x in tree_leaves(memo["split"]["outputs"]) if isinstance(x, torch.Tensor)})


def test_only_what_is_read_is_kept():
    model = resnet18().double().eval()
    assert kept(Split(model, "layer4").below(images())[1]) == []
    assert kept(Split(model, "layer3.1.conv1").below(images())[1]) == [(256, 3, 4)]  # the block's input, for its skip


def test_what_is_left_follows_the_samples():
    model = Odd().double().eval()
    split = Split(model, "block")
    x = images(3)
    output, memo = split.below(x)
    batch = Batch(x, ("a", "b", "c"), ((48, 64),) * 3, memo=memo)
    index = torch.tensor([2, 0, 0, 1, 2])
    torch.testing.assert_close(split.above(output[index], batch.take(index).memo), model(x)[index])


@pytest.mark.parametrize("vjp", [batched, looped, replicated])
def test_every_way_to_differentiate(vjp):
    model = resnet18().double().eval()
    split, x = Split(model, "layer4.0"), images()
    output, memo = split.below(x)
    batch = Batch(x, ("a", "b"), ((48, 64),) * 2, memo=memo)
    rows = torch.randn(2, 4, 5, dtype=torch.float64)
    scores, gradients = vjp(lambda a, index: split.above(a, batch.take(index).memo), output, rows)
    torch.testing.assert_close(scores, model(x).detach())
    leaf = output.clone().requires_grad_()
    y = split.above(leaf, memo)
    for r in range(4):
        torch.testing.assert_close(
            gradients[:, r], torch.autograd.grad((rows[:, r] * y).sum(), leaf, retain_graph=True)[0]
        )


class Fork(nn.Module):
    """Bright pictures go another way than dark ones, and read what the others only hand on."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

    def forward(self, x):
        y = self.a(x)
        z = self.c(self.b(y))
        return (z + y if x.shape[3] > 50 else z).mean((2, 3))


def test_pictures_that_take_another_way_are_seen_and_done_again(caplog):
    model = Fork().double().eval()
    split = Split(model, "c")
    with caplog.at_level("INFO"):
        for x in (images(w=32), images(w=64), images(w=32), images(w=64)):
            torch.testing.assert_close(split.above(*split.below(x)), model(x))
    assert caplog.text.count("another way") == 1


def state(model):
    """All that could change, down to the objects in every module's dictionary."""
    return {
        name: {
            key: dict(value) if isinstance(value, dict) else list(value) if isinstance(value, list) else value
            for key, value in vars(module).items()
        }
        for name, module in model.named_modules()
    }


def same(a, b):
    return all(
        a[name].keys() == attributes.keys()
        and all(
            x is a[name][key] or (isinstance(x, dict | list | bool) and x == a[name][key])
            for key, x in attributes.items()
        )
        for name, attributes in b.items()
    )


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_not_touched(training, fails):
    model = resnet18().double().train(training)
    model.layer1.eval()
    for p in model.layer2.parameters():
        p.requires_grad_(False)
    model.fc.weight.grad = torch.ones_like(model.fc.weight)
    x, split = images(), Split(model, "layer3")
    before, numbers, rng = state(model), copy.deepcopy(model.state_dict()), torch.get_rng_state()
    if fails:
        with pytest.raises(RuntimeError):
            split.below(x[:, :2])
    output, memo = split.below(x)
    if fails:
        with pytest.raises(RuntimeError):
            split.above(output[:, :7], memo)
    torch.autograd.grad(split.above(output.requires_grad_(), memo).sum(), output)
    observe(model, x)
    assert same(before, state(model))
    assert all(torch.equal(x, numbers[name]) for name, x in model.state_dict().items())
    assert torch.equal(rng, torch.get_rng_state())
    assert [p.grad is not None for p in model.parameters()] == [p is model.fc.weight for p in model.parameters()]


def halves(model, x, layer="layer3"):
    split = Split(model, layer)
    return split.above(*split.below(x))


def test_modes_do_not_matter():
    model, x = resnet18().double(), images()
    expected = model.eval()(x)
    torch.testing.assert_close(halves(model.train(), x), expected)


@pytest.mark.parametrize("layer", ["conv1", "layer3.0.conv1", "layer4"])
def test_the_gradient_of_the_images_is_that_of_the_whole_model(layer):
    model, x = resnet18().double().eval(), images().requires_grad_()
    split = Split(model, layer)
    output, memo = split.below(x)
    (gradient,) = torch.autograd.grad(split.above(output, memo).cos().sum(), x)
    (expected,) = torch.autograd.grad(model(x).cos().sum(), x)
    torch.testing.assert_close(gradient, expected)
    with torch.no_grad():
        assert not split.below(x)[0].requires_grad


def test_callers_in_inference_mode_get_tensors_for_a_graph():
    model = resnet18().double().eval()
    split = Split(model, "layer3.0.conv1")
    with torch.inference_mode():
        x = images()
        output, memo = split.below(x)
    assert split.above(output.clone().requires_grad_(), memo).requires_grad


def test_threads_share_a_model():
    model = resnet18().double().eval()
    splits = [Split(model, layer) for layer in ("layer1", "layer2.1.conv1", "layer3", "layer4")] * 3
    inputs = [images() for _ in splits]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda split, x: split.above(*split.below(x)), splits, inputs))
    for x, y in zip(inputs, results, strict=True):
        torch.testing.assert_close(y, model(x))


def test_hooks_of_the_user_stay_in_force():
    model, x = resnet18().double().eval(), images()
    model.layer2.register_forward_hook(lambda module, args, output: output * 2)
    model.layer4.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    torch.testing.assert_close(halves(model, x), model(x))
    torch.testing.assert_close(halves(model, x, "layer2"), model(x))


def test_parts_replaced_after_the_cut_are_used():
    model, x = resnet18().double().eval(), images()
    split = Split(model, "layer3")
    split.below(x)
    model.fc = nn.Linear(512, 2).double()
    torch.testing.assert_close(split.above(*split.below(x)), model(x))


def test_a_copy_of_the_cut_uses_the_copied_model():
    model, x = resnet18().double().eval(), images()
    both = copy.deepcopy({"model": model, "split": Split(model, "layer3")})
    nn.init.zeros_(both["model"].fc.weight)
    torch.testing.assert_close(both["split"].above(*both["split"].below(x)), both["model"](x))


def test_compiled_and_parallel_models_are_cut_inside():
    model, x = resnet18().double().eval(), images()
    expected = model(x)
    compiled = torch.compile(model, backend="eager")
    for layer in ("layer3", "_orig_mod.layer3"):
        torch.testing.assert_close(halves(compiled, x, layer), expected)
    parallel = nn.DataParallel(model, device_ids=[])
    torch.testing.assert_close(halves(parallel, x, "module.layer3"), expected)
    model.layer2 = torch.compile(model.layer2, backend="eager")
    model.layer3.compile(backend="eager")
    for layer in ("layer2.0.conv1", "layer2", "layer3", "layer3.0"):
        torch.testing.assert_close(halves(model, x, layer), expected)


class Shared(nn.Module):
    """One layer runs several times, one never, one under two names, one scripted, one outside the module tree."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.twice = nn.Conv2d(3, 3, 3, padding=1)
        self.never = nn.Conv2d(3, 3, 3, padding=1)
        self.also = self.conv
        self.hidden = nn.Conv2d(3, 3, 3, padding=1)
        self.outside = [self.hidden]
        self.noise = nn.Dropout(0.5)

    def forward(self, x):
        return self.twice(self.outside[0](self.twice(self.also(x)).relu())).mean((2, 3))


def test_a_layer_with_two_names_has_both():
    model, x = Shared().double().eval(), images()
    assert Split(model, "also").layer == "conv"
    torch.testing.assert_close(halves(model, x, "also"), model(x))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("convv", "unknown layer 'convv': did you mean 'conv'"),
        ("", "unknown layer ''"),
        ("twice", "layer 'twice' runs several times"),
        ("never", "layer 'never' does not run"),
        ("hidden", "layer 'hidden' does not run .* not through the module tree"),
    ],
)
def test_layers_that_cannot_be_cut(layer, message):
    with pytest.raises(UserError, match=message):
        Split(Shared().eval(), layer).below(images(dtype=torch.float32))


def test_a_repeated_part_names_the_block_around_it():
    with pytest.raises(UserError, match=r"'layer4.1.relu' runs several times .* such as 'layer4.1'"):
        Split(resnet18().double().eval(), "layer4.1.relu").below(images())


class Random(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 3, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.conv(x + torch.randn_like(x)).relu().mean((2, 3)) * torch.rand(3))


def test_random_forwards_are_refused():
    with pytest.raises(UserError, match="random numbers"):
        Split(Random().eval(), "conv").below(images(dtype=torch.float32))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_scripted_models_are_refused_but_scripted_parts_run():
    model, x = resnet18().double().eval(), images()
    expected = model(x)
    with pytest.raises(UserError, match="scripted"):
        Split(torch.jit.script(model), "layer4")
    model.layer2[0], model.layer4[1] = torch.jit.script(model.layer2[0]), torch.jit.script(model.layer4[1])
    for layer in ("layer2.1.conv1", "layer4.0"):
        torch.testing.assert_close(halves(model, x, layer), expected)


def test_layers_without_tensors_are_refused():
    class Sizes(nn.Module):
        def forward(self, x):
            return [*x.shape]

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.sizes, self.fc = Sizes(), nn.Linear(3, 2)

        def forward(self, x):
            return self.fc(x.mean((2, 3))) * len(self.sizes(x))

    with pytest.raises(UserError, match="gives no tensor but list"):
        Split(Model(), "sizes").below(images(dtype=torch.float32))


def test_observe_sees_every_call_in_order():
    model = Shared().eval()
    seen, result = observe(model, images(dtype=torch.float32))
    assert [name for name, _ in seen] == ["conv", "twice", "twice"]
    torch.testing.assert_close(seen[-1][1].mean((2, 3)), result)


def test_a_model_broken_before_the_cut_is_cut_all_the_same():
    """NaN everywhere is the same NaN again: the maps will be flagged, which says more than an error about the cut."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(16, 2)).eval()
    with torch.no_grad():
        model[0].weight.fill_(float("nan"))
    split = Split(model, "2")
    maps, memo = split.below(torch.zeros(1, 3, 6, 6))
    assert bool(split.above(maps, memo).isnan().all())
