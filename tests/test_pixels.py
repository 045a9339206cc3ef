import copy
import threading
from dataclasses import replace
from functools import partial

import captum.attr
import pytest
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import nn
from zennit.attribution import Gradient
from zennit.composites import DeconvNet, GuidedBackprop

from captioning.models import AttendAndTell, ShowAndTell
from captioning.task import CaptioningTask
from classification.task import ClassificationTask
from mmcam.engine import explain
from mmcam.errors import UserError
from mmcam.methods.occlusion import occlusion, row_scores
from mmcam.pixels import (
    channel_maximum,
    channel_sum,
    guided_grad_cam,
    integrated_gradients,
    own_targets,
    pixel_gradients,
    smooth_grad,
    times_maps,
)
from mmcam.task import Batch, Sample, Targets
from tests.reference import TASKS, WAYS, Small, alone, close, devices, make, pictures, ragged, unchecked, untouched
from vqa.models import NormProduct, StackedAttention
from vqa.task import VQATask

RULES = ("plain", "guided", "deconv")
METHODS = {
    "plain": pixel_gradients,
    "guided": partial(pixel_gradients, rule="guided"),
    "guided grad-cam": guided_grad_cam,
    "integrated gradients": partial(integrated_gradients, steps=4),
    "smooth grad": partial(smooth_grad, samples=3),
    "occlusion": partial(occlusion, window=4, stride=3),
}


def loop(task, batch, targets):
    """For every row of every picture one full forward and one ordinary backward, down to the pixels."""
    found = torch.zeros(len(batch), targets.rows.shape[1], *batch.images.shape[1:], dtype=batch.images.dtype)
    for i in range(len(batch)):
        one, mine = batch.take(torch.tensor([i])), alone(targets, i)
        for r, row in enumerate(mine.rows[0]):
            x = one.images.clone().requires_grad_()
            seen = replace(one, images=x, memo={})
            with torch.enable_grad():
                y = (task.scores(task.trunk(seen) + 0, seen, mine)[0] * row.to(x.dtype)).sum()
            found[i, r] = torch.autograd.grad(y, x)[0][0]
    return found


# Plain gradients


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("name", TASKS)
def test_all_rows_at_once_are_a_loop_over_rows(name, how):
    # The decoders' memo holds the picture's mean colour: a second way from the pixels to the scores.
    task, batch, targets = make(name, how=how), pictures(4), ragged()
    assert close(pixel_gradients(task, batch, targets), loop(task, batch, targets))


def test_the_memo_is_a_way_from_the_pixels_too():
    task, batch, targets = make("plain"), pictures(4), ragged()

    class Forgetful(type(task)):
        def trunk(self, batch):
            activations = super().trunk(batch)
            batch.memo["mean colour"]["x"] = batch.memo["mean colour"]["x"].detach()
            return activations

    forgetful = copy.copy(task)
    forgetful.__class__ = Forgetful
    assert not close(pixel_gradients(task, batch, targets), pixel_gradients(forgetful, batch, targets), 1e-3)


@devices
def test_finite_differences(device):
    task, batch, targets = make("attention", device), pictures(2, device), ragged((3, 1)).to(device)
    gradients, step = pixel_gradients(task, batch, targets), 1e-6
    for place in [(0, 0, 0), (1, 4, 6), (2, 9, 13)]:
        near, far = batch.images.clone(), batch.images.clone()
        near[:, *place] -= step
        far[:, *place] += step
        scores = [row_scores(task, replace(batch, images=x), targets) for x in (near, far)]
        assert torch.allclose(gradients[:, :, *place], (scores[1] - scores[0]) / (2 * step), atol=1e-7)


def test_rows_of_several_words_foils_and_padding():
    task, batch, targets = make("attention"), pictures(4), ragged()
    single = pixel_gradients(task, batch, targets)
    assert close(pixel_gradients(task, batch, targets.sentence())[:, 0], single.sum(1))
    assert close(pixel_gradients(task, batch, targets.negative()), -single)
    contrast = targets.rather_than((targets.ids + 1) % 11)
    assert close(pixel_gradients(task, batch, contrast), loop(task, batch, contrast))
    assert bool((single[1, 1:] == 0).all())
    assert bool(single[1, 0].any())


def test_own_prediction():
    task, batch = make("attention"), pictures(3)
    targets = own_targets(task, batch)
    assert close(pixel_gradients(task, batch), pixel_gradients(task, batch, targets))
    scores = torch.stack([F.pad(e.scores, (0, targets.rows.shape[1] - len(e.scores))) for e in explain(task, batch)])
    assert close(row_scores(task, batch, targets), scores)


@pytest.mark.parametrize("method", METHODS)
def test_little_memory_gives_the_same(method):
    task, batch, targets = make("plain"), pictures(2), ragged((1, 3))
    expected = METHODS[method](task, batch, targets)
    for memory in (1, 1_500_000):
        assert close(METHODS[method](task, batch, targets, memory=memory), expected, 1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_to_explain(method):
    task, batch = make("attention"), pictures(2)
    found = METHODS[method](task, batch, Targets.of([[], []], [[], []]))
    assert found.shape[:2] == (2, 0)
    assert found.shape[-2:] == (10, 14)


def test_targets_of_other_samples_are_refused():
    with pytest.raises(UserError, match="targets for 3 samples, got them for 4"):
        pixel_gradients(make("plain"), pictures(3), ragged())


def test_a_trunk_without_a_graph_is_refused():
    class Closed(Small):
        @torch.no_grad()
        def trunk(self, batch):
            return super().trunk(batch)

        def logits(self, activations, batch):
            return activations.mean((2, 3))

    with pytest.raises(UserError, match="a trunk that keeps a graph"):
        pixel_gradients(Closed().double(), pictures(2), ragged((1, 1)))


# The three tasks


def samples(count=3, text=""):
    return [
        Sample(Image.effect_noise(size, 80).convert("RGB"), f"picture {i}", text)
        for i, size in enumerate([(40, 30), (20, 60), (33, 33)][:count])
    ]


def shaken(task, size=(24, 32)):
    """Something to say, in float64."""
    task.model.backbone.size = size
    for name, value in task.model.named_parameters():
        if not name.startswith("backbone"):
            nn.init.normal_(value, std=0.5)
    return task.double()


def captioning(cls, layer):
    words = ["a", "and", "cat", "dog", "dogs", "left", "of", "two"]
    task = shaken(CaptioningTask(cls(words, embedding=5, hidden=6), layer=layer))
    batch = task.collate(samples())
    return task, batch, task.given(["two dogs", "a cat left of a dog", "a dog"], batch)


def vqa(cls, layer):
    options = {"hidden": 8, **({"embedding": 5, "common": 7} if cls is NormProduct else {})}
    task = shaken(VQATask(cls(["is", "it", "red", "what"], ["yes", "no", "cat"], **options), layer=layer))
    batch = task.collate(samples(3, "is it red"))
    return task, batch, task.given(["yes, cat", "no", "cat"], batch)


@pytest.mark.parametrize("layer", [None, "features.10"])
@pytest.mark.parametrize(
    ("kind", "cls"),
    [(captioning, ShowAndTell), (captioning, AttendAndTell), (vqa, NormProduct), (vqa, StackedAttention)],
)
def test_captioning_and_vqa(kind, cls, layer):
    task, batch, targets = kind(cls, layer)
    batch = replace(batch, images=batch.images.double())
    with untouched(task):
        ours = pixel_gradients(task, batch, targets)
    assert close(ours, loop(task, batch, targets), 1e-8)
    assert bool(ours.flatten(3).any(-1)[targets.mask].all())
    assert not close(pixel_gradients(task, batch, targets, "guided"), ours, 0.1)


def test_where_the_image_embedding_belongs():
    task, batch, targets = captioning(AttendAndTell, None)
    batch = replace(batch, images=batch.images.double())
    assert list(task.seeing) == ["model.backbone", "model.see"]
    whole, trunk = (pixel_gradients(task, batch, targets, "guided", seeing) for seeing in (None, ["model.backbone"]))
    assert not close(whole, trunk, 1e-3)


# Classifiers of torchvision, small and with random weights


class Vgg(nn.Module):
    """VGG's form: rectifiers in place, and fully connected ones."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(2)
        self.classifier = nn.Sequential(
            *(nn.Linear(64, 20), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(20, 12), nn.ReLU(True)),
            nn.Linear(12, 5),
        )

    def forward(self, images):
        return self.classifier(self.avgpool(self.features(images)).flatten(1))


def resnet():
    return torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5)


def densenet():
    return torchvision.models.DenseNet(6, (2, 2), 8, num_classes=5)


def efficientnet():
    block = partial(torchvision.models.efficientnet.MBConvConfig, width_mult=1.0, depth_mult=1.0)
    setting = [block(1, 3, 1, 8, 8, 1), block(4, 3, 2, 8, 12, 2), block(4, 5, 2, 12, 16, 1)]
    return torchvision.models.EfficientNet(setting, 0.2, num_classes=5, last_channel=24)


def vit():
    torch.manual_seed(4)
    model = torchvision.models.VisionTransformer(32, 8, 2, 2, 12, 24, num_classes=5)
    nn.init.normal_(model.heads.head.weight)  # zeros at first
    return model


NETS = {"vgg": Vgg, "resnet": resnet, "densenet": densenet, "efficientnet": efficientnet, "vit": vit}


def classifier(name, layer=None):
    """A classifier in float64, of which two lively copies of anything are the same."""
    torch.manual_seed(1)
    model = NETS[name]()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return ClassificationTask(model.double().eval(), layer, size=32, crop=False)


def asked(count=2):
    """Noise, and four or two classes of each picture."""
    images = torch.randn(count, 3, 32, 32, dtype=torch.float64)
    ids = [[4, 0, 2, 1], [3, 2]][:count]
    return (
        Batch(images, tuple(f"picture {i}" for i in range(count)), ((32, 32),) * count),
        Targets.of(ids, [[str(i) for i in row] for row in ids]),
    )


def one_by_one(attribute, batch, targets):
    """A peer's answer for every row, zero for padding."""
    found = []
    for image, ids in zip(batch.images, targets.ids.tolist(), strict=True):
        found.append(torch.stack([attribute(image[None].clone(), target=c)[0].detach() for c in ids]))
    return torch.stack(found) * targets.mask[:, :, None, None, None]


class Written(nn.Module):
    """A rectifier with the rule written out, its derivative by autograd on a copy of its own."""

    def __init__(self, function, rule):
        super().__init__()
        self.function, self.rule = function, rule

    def forward(self, x):
        function = self.function

        class Rectifier(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                return function(x.clone())

            @staticmethod
            def backward(ctx, g):
                (x,) = ctx.saved_tensors
                with torch.enable_grad():
                    leaf = x.detach().requires_grad_()
                    slope = torch.autograd.grad(function(leaf.clone()).sum(), leaf)[0]
                keep = {"plain": slope * g, "guided": slope.clamp(min=0) * g.clamp(min=0), "deconv": g.clamp(min=0)}
                return keep[rule]

        rule = self.rule
        return Rectifier.apply(x)


def surgery(model, rule):
    """The peers' way, on a copy: every rectifier is replaced."""
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.ReLU | nn.SiLU | nn.GELU):
                setattr(parent, name, Written(copy.deepcopy(child), rule))
    return model


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("vgg", None),
        ("vgg", "features.4"),
        ("resnet", None),
        ("resnet", "layer2.0.bn2"),
        ("densenet", None),
        ("densenet", "features.denseblock1.denselayer1.conv2"),
        ("efficientnet", None),
        ("vit", None),
    ],
)
def test_classifiers_wherever_they_are_cut(name, layer, rule, monkeypatch):
    task, (batch, targets) = classifier(name, layer), asked()
    with untouched(task):
        ours = pixel_gradients(task, batch, targets, rule)
    model = surgery(task.model, rule)
    if name == "densenet":  # its last rectifier is a function
        monkeypatch.setattr(F, "relu", lambda x, inplace=False: Written(torch.relu, rule)(x))

    def attribute(x, target):
        x.requires_grad_()
        return torch.autograd.grad(model(x)[0, target], x)[0]

    assert close(ours, one_by_one(attribute, batch, targets), 1e-8)


@pytest.mark.parametrize("name", ["vgg", "resnet"])
@pytest.mark.parametrize(("rule", "peer"), [("guided", "GuidedBackprop"), ("deconv", "Deconvolution")])
@pytest.mark.filterwarnings("ignore:Setting backward hooks", "ignore:Input Tensor 0 did not")
def test_captum_s_rules(name, rule, peer):
    task, (batch, targets) = classifier(name), asked()
    theirs = getattr(captum.attr, peer)(task.model)
    assert close(pixel_gradients(task, batch, targets, rule), one_by_one(theirs.attribute, batch, targets), 1e-9)


@pytest.mark.parametrize(("rule", "composite"), [("guided", GuidedBackprop), ("deconv", DeconvNet)])
def test_zennit_s_rules(rule, composite):
    task, (batch, targets) = classifier("vgg"), asked()

    def attribute(x, target):
        with Gradient(task.model, composite=composite()) as attributor:
            return attributor(x, torch.eye(5, dtype=x.dtype)[[target]])[1]

    assert close(pixel_gradients(task, batch, targets, rule), one_by_one(attribute, batch, targets), 1e-9)


@pytest.mark.filterwarnings("ignore:Setting backward hooks", "ignore:Input Tensor 0 did not")
def test_captum_s_guided_grad_cam():
    task, (batch, targets) = classifier("vgg", "features.6"), asked()
    peer = captum.attr.GuidedGradCam(task.model, task.model.features[6])
    theirs = one_by_one(partial(peer.attribute, interpolate_mode="bilinear"), batch, targets)
    ours = guided_grad_cam(task, batch, targets)
    assert bool(ours.any())
    assert close(ours, theirs, 1e-9)


@pytest.mark.parametrize("rule", ["guided", "deconv"])
def test_guided_grad_cam_is_the_product_of_two(rule):
    task, batch, targets = captioning(AttendAndTell, None)
    batch = replace(batch, images=batch.images.double())
    maps = torch.zeros(3, targets.rows.shape[1], 12, 16, dtype=torch.float64)
    for i, explanation in enumerate(explain(task, batch, targets)):
        maps[i, : len(explanation.words)] = F.interpolate(explanation.maps[None], (24, 32), mode="bilinear")[
            0, :, ::2, ::2
        ]
    product = guided_grad_cam(task, batch, targets, rule)
    plain = pixel_gradients(task, batch, targets, rule)
    # At the places where bilinear interpolation was asked for; the others follow.
    assert close(product[..., ::2, ::2], plain[..., ::2, ::2] * maps[:, :, None], 1e-9)
    assert bool(product.any())


def test_maps_are_rectified_and_brought_to_the_input_s_size():
    gradients = torch.full((1, 1, 3, 2, 4), -2.0)
    maps = torch.tensor([[[[1.0, -5.0]]]])
    # Bilinear, half-pixel centres: 1, .75, .25, 0
    assert times_maps(gradients, maps)[0, 0, 1].tolist() == [[-2.0, -1.5, -0.5, 0.0]] * 2


# Integrated gradients, SmoothGrad, occlusion


@pytest.mark.parametrize("name", ["efficientnet", "vit"])
def test_captum_s_integrated_gradients(name):
    task, (batch, targets) = classifier(name), asked()
    peer = partial(captum.attr.IntegratedGradients(task.model).attribute, baselines=0.25, n_steps=6)
    ours = integrated_gradients(task, batch, targets, 0.25, 6)
    assert close(ours, one_by_one(peer, batch, targets), 1e-6)  # captum's weights are float32


def test_integrated_gradients_are_complete():
    task, batch, targets = make("attention"), pictures(4), ragged()
    baseline = torch.randn(4, 3, 10, 14, dtype=torch.float64)
    parts = integrated_gradients(task, batch, targets, baseline, 200)
    whole = row_scores(task, batch, targets) - row_scores(task, replace(batch, images=baseline), targets)
    assert close(parts.sum((2, 3, 4)), whole, 1e-3)


def test_smooth_grad_is_the_mean_over_noisy_copies():
    task, batch, targets = make("attention"), pictures(4), ragged()
    with untouched(task):
        ours = smooth_grad(task, batch, targets, samples=3, noise=0.2, seed=5)
    generator = torch.Generator().manual_seed(5)
    spread = torch.stack([0.2 * (x.max() - x.min()) for x in batch.images])[:, None, None, None]
    copies = [batch.images + spread * torch.randn(3, 10, 14, generator=generator) for _ in range(3)]
    expected = sum(loop(task, replace(batch, images=x), targets) for x in copies) / 3
    assert close(ours, expected)
    assert close(
        smooth_grad(task, batch.take(torch.tensor([2])), alone(targets, 2), samples=3, noise=0.2, seed=5)[0], ours[2]
    )
    assert close(smooth_grad(task, batch, targets, samples=2, noise=0.0), loop(task, batch, targets))


def test_captum_s_occlusion():
    task, (batch, targets) = classifier("vgg"), asked()
    peer = captum.attr.Occlusion(task.model)
    options = {"sliding_window_shapes": (3, 9, 7), "strides": (3, 4, 5), "baselines": 0.5}
    theirs = one_by_one(partial(peer.attribute, **options), batch, targets)
    ours = occlusion(task, batch, targets, (9, 7), (4, 5), 0.5)
    assert close(ours * targets.mask[:, :, None, None], theirs[:, :, 0], 1e-6)  # captum adds in float32


def test_numbers_of_copies_are_positive():
    task, batch, targets = make("plain"), pictures(2), ragged((1, 1))
    with pytest.raises(UserError, match="steps of at least 1, got 0"):
        integrated_gradients(task, batch, targets, steps=0)
    with pytest.raises(UserError, match="samples of at least 1"):
        smooth_grad(task, batch, targets, samples=-1)


def test_maps_of_channels():
    gradients = torch.tensor([1.0, -4.0, 2.0]).view(1, 1, 3, 1, 1).expand(1, 1, 3, 2, 2)
    assert channel_sum(gradients).tolist() == [[[[-1.0, -1.0]] * 2]]
    assert channel_maximum(gradients).tolist() == [[[[4.0, 4.0]] * 2]]


# Traps


class Halves(Small):
    """A head whose fully connected rectifier is the CNN's and whose last one is the language half's."""

    def __init__(self):
        super().__init__()
        self.upper = nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 8))
        self.language = nn.Sequential(nn.Linear(8, 9), nn.ReLU(inplace=True), nn.Linear(9, 11))

    def logits(self, activations, batch):
        return self.language(self.upper(activations.mean((2, 3))))


@pytest.mark.parametrize("how", WAYS)
def test_the_language_half_keeps_its_derivative(how):
    from mmcam import gradients

    task, batch, targets = Halves().double().eval(), pictures(4), ragged()
    task.vjp = getattr(gradients, how)
    whole = surgery(task, "guided")
    half = copy.deepcopy(whole)
    half.language = task.language
    trunk = copy.deepcopy(half)
    trunk.upper = task.upper
    names = {"whole": ["upper", "language"], "half": ["upper"], "trunk": []}
    found = []
    for expected, seeing in zip((whole, half, trunk), names.values(), strict=True):
        with untouched(task):
            found.append(pixel_gradients(task, batch, targets, "guided", seeing))
        assert close(found[-1], loop(expected, batch, targets))
    assert not close(found[0], found[1], 0.01)
    assert not close(found[1], found[2], 0.01)
    task.seeing = ("upper",)
    assert close(pixel_gradients(task, batch, targets, "guided"), found[1])
    with unchecked(), pytest.raises(UserError, match=r"unknown module 'uper'.*upper"):
        pixel_gradients(task, batch, targets, "guided", ["uper"])


@pytest.mark.parametrize("where", ["trunk", "head", "backward"])
def test_an_exception_in_the_middle_leaves_nothing(where):
    class Breaking(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            raise KeyError("backward")

    class Failing(Halves):
        def trunk(self, batch):
            if where == "trunk":
                raise KeyError(where)
            return super().trunk(
                replace(batch, images=Breaking.apply(batch.images) if where == "backward" else batch.images)
            )

        def logits(self, activations, batch):
            found = super().logits(activations, batch)
            if where == "head":
                raise KeyError(where)
            return found

    task, batch, targets = Failing().double().train(), pictures(2), ragged((2, 1))
    with untouched(task), pytest.raises(KeyError):
        pixel_gradients(task, batch, targets, "guided", ["upper"])


def test_modes_gradients_and_frozen_parameters_are_left_alone():
    task, batch, targets = Halves().double(), pictures(2), ragged((2, 1))
    expected = pixel_gradients(task.eval(), batch, targets, "guided", ["upper"])
    task.train()
    task.upper.eval()
    for parameter in task.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    with untouched(task):
        assert close(pixel_gradients(task, batch, targets, "guided", ["upper"]), expected)
    task.requires_grad_(False)
    with untouched(task):
        assert close(pixel_gradients(task, batch, targets, "guided", ["upper"]), expected)
    assert not batch.memo
    assert not batch.images.requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("method", METHODS)
def test_callers_without_grad(method, mode):
    task, batch, targets = make("attention"), pictures(2), ragged((2, 1))
    expected = METHODS[method](task, batch, targets)
    with mode():
        images = batch.images.clone()
        assert close(METHODS[method](task, replace(batch, images=images), targets), expected)


def test_two_threads():
    task, (batch, targets) = classifier("vgg"), asked()
    expected = {rule: pixel_gradients(task, batch, targets, rule) for rule in RULES}
    wrong, barrier = [], threading.Barrier(len(RULES))

    def work(rule):
        barrier.wait(10)
        for _ in range(2):
            if not torch.equal(pixel_gradients(task, batch, targets, rule), expected[rule]):
                wrong.append(rule)

    with unchecked():  # the type checks are not for threads
        threads = [threading.Thread(target=work, args=(rule,)) for rule in RULES]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


@pytest.mark.parametrize("rule", RULES)
def test_half_precision(rule):
    task, batch, targets = Halves().eval(), pictures(4, dtype=torch.float32), ragged()
    expected = pixel_gradients(task, batch, targets, rule, ["upper"])
    half = copy.deepcopy(task).to(torch.bfloat16)
    found = pixel_gradients(half, batch, targets, rule, ["upper"])
    assert found.dtype == torch.float32
    assert bool(((found - expected).norm() / expected.norm() < 0.15).all())
    with torch.autocast("cpu", torch.bfloat16):
        found = pixel_gradients(task, batch, targets, rule, ["upper"])
    assert bool(((found - expected).norm() / expected.norm() < 0.15).all())


def test_a_compiled_model_runs_as_plain_python():
    task, (batch, targets) = classifier("vgg"), asked()
    compiled = ClassificationTask(torch.compile(task.model), size=32, crop=False)
    for rule in RULES:
        assert close(pixel_gradients(compiled, batch, targets, rule), pixel_gradients(task, batch, targets, rule))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # what dynamo warns of would fail inside of it
def test_a_compiled_part_is_refused_where_a_rule_is_wanted():
    task, batch, targets = Halves().eval(), pictures(2, dtype=torch.float32), ragged((2, 1))
    expected = pixel_gradients(task, batch, targets)
    task.cnn = torch.compile(task.cnn)
    try:
        task.cnn(batch.images)
    except Exception as error:
        pytest.skip(f"no compiler: {error}")
    assert close(pixel_gradients(task, batch, targets), expected, 1e-4)
    with pytest.raises(UserError, match=r"compiled by torch\.compile"):
        pixel_gradients(task, batch, targets, "guided")
