"""The methods through `explain`, for every kind of head, held against one loop over pictures, rows and channels."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torchvision import models

from classification import ClassificationTask
from mmcam import gradients, load_task
from mmcam.engine import explain, explain_activations
from mmcam.errors import UserError
from mmcam.methods import subject
from mmcam.methods.full_grad import full_grad, parts
from mmcam.methods.pixel_maps import FROM_PIXELS
from mmcam.methods.smoothing import SEED
from mmcam.methods.subject import Subject
from mmcam.methods.table import FROM_ATTENTION, FROM_MODEL, names
from mmcam.task import Batch, Sample, Targets
from tests.reference import (
    TASKS,
    WAYS,
    Small,
    alone,
    close,
    devices,
    make,
    pictures,
    ragged,
    same_maps,
    untouched,
)

OTHERS = {*FROM_PIXELS, *FROM_ATTENTION}  # which have tests of their own
METHODS = tuple(name for name in names() if name != "cam" and name not in OTHERS)
CLASSLESS = ("activation_norm", "eigen_cam")


# The loop


def score(task, batch, targets, row, a):
    return (task.scores(a, batch, targets)[0] * row.to(a.dtype)).sum()


def gradient_of(task, batch, targets, row):
    """A and ∂y/∂A of one row of one picture, through an ordinary forward and backward of the whole model."""
    batch = replace(batch, images=batch.images.clone().requires_grad_(), memo={})
    with torch.enable_grad():
        a = task.trunk(batch)
        y = score(task, batch, targets, row, a + 0)
    (g,) = torch.autograd.grad(y, a)
    return a.detach()[0], g[0]


def score_of_picture(task, batch, targets, row, image):
    batch = replace(batch, images=image[None], memo={})
    with torch.no_grad():
        return score(task, batch, targets, row, task.trunk(batch))


def weighted(weights, a):
    return sum(float(weight) * channel for weight, channel in zip(weights, a, strict=True))


def loop_map(method, task, batch, targets, row):
    """One map by the formula of its paper, with loops over the channels."""
    a, g = gradient_of(task, batch, targets, row)
    k, h, w = a.shape
    image, memo = batch.images[0], replace(batch, memo={})
    task.trunk(memo)

    def head(x):
        with torch.no_grad():
            return score(task, memo, targets, row, x[None])

    if method == "unrectified_grad_cam":
        map = weighted(g.sum((1, 2)) / (h * w), a)
        return map - map.min()
    if method == "grad_cam":
        return weighted(g.sum((1, 2)) / (h * w), a)
    if method == "hires_cam":
        return sum(g[c] * a[c] for c in range(k))
    if method == "layer_cam":
        return sum(g[c].clamp(min=0) * a[c] for c in range(k))
    if method == "elementwise_grad_cam":
        return sum((g[c] * a[c]).clamp(min=0) for c in range(k))
    if method == "gradient_norm":
        return sum(g[c] ** 2 for c in range(k)).sqrt()
    if method == "activation_norm":
        return sum(a[c] ** 2 for c in range(k)).sqrt()
    if method == "max_pooled_grad_cam":
        return weighted([g[c].max() for c in range(k)], a)
    if method == "absolute_grad_cam":
        return weighted([g[c].abs().mean() for c in range(k)], a)
    if method == "xgrad_cam":
        return weighted([(g[c] * a[c]).sum() / a[c].sum() if a[c].sum() else 0 for c in range(k)], a)
    if method == "grad_cam_plus_plus":
        return weighted([plus_plus(g[c], g[c] ** 2, g[c] ** 3, a[c]) for c in range(k)], a)
    if method == "smooth_grad_cam_plus_plus":
        generator, sums = torch.Generator().manual_seed(SEED), [0, 0, 0]
        for _ in range(8):
            noise = torch.randn(image.shape, generator=generator, dtype=torch.float64)
            noisy = image + 0.15 * (image.max() - image.min()) * noise
            _, d = gradient_of(task, replace(batch, images=noisy[None]), targets, row)
            sums = [total + d**power for total, power in zip(sums, (1, 2, 3), strict=True)]
        return weighted([plus_plus(*(total[c] / 8 for total in sums), a[c]) for c in range(k)], a)
    if method == "ablation_cam":
        y = head(a.clone())
        return weighted([y - head(torch.stack([a[i] * (i != c) for i in range(k)])) for c in range(k)], a)
    if method == "score_cam":
        found = []
        for c in range(k):
            mask = F.interpolate(a[None, c : c + 1], image.shape[1:], mode="bilinear")[0, 0]
            span = mask.max() - mask.min()
            mask = (mask - mask.min()) / span if span else torch.zeros_like(mask)
            found.append(score_of_picture(task, batch, targets, row, image * mask).exp())
        return weighted([value / sum(found) for value in found], a)
    if method in ("eigen_cam", "eigen_grad_cam"):
        maps = a if method == "eigen_cam" else g * a
        maps = maps if method == "eigen_cam" else torch.stack([channel - channel.mean() for channel in maps])
        o = torch.stack([maps[:, i, j] for i in range(h) for j in range(w)])
        found = (o @ torch.linalg.svd(o, full_matrices=False)[2][0]).reshape(h, w)
        side = found.sum() if method == "eigen_cam" else (found * maps.sum(0)).sum()
        return found if side >= 0 else -found
    raise AssertionError(method)


def plus_plus(first, second, third, a):
    denominator = 2 * second + a.sum() * third
    alpha = torch.where(second == 0, 0, second / denominator)
    return (alpha * first.clamp(min=0)).sum()


@pytest.mark.parametrize("method", [method for method in METHODS if method != "full_grad"])
@pytest.mark.parametrize("name", ["convolved", "answerer", "attention", "lstm"])
def test_all_rows_of_all_pictures_are_the_papers_formula_one_by_one(name, method):
    task, batch, targets = make(name), pictures(2), ragged((1, 2))
    for i, explanation in enumerate(explain(task, batch, targets, method)):
        one, mine = batch.take(torch.tensor([i])), alone(targets, i)
        assert explanation.method == method
        for row, map in zip(mine.rows[0], explanation.signed, strict=True):
            assert close(map, loop_map(method, task, one, mine, row), rtol=1e-8)


# What holds for every method


@devices
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["convolved", "lstm"])
def test_a_sample_alone_is_the_sample_in_a_ragged_batch(name, method, device):
    task, batch, targets = make(name, device), pictures(3, device), ragged((3, 0, 2))
    together = explain(task, batch, targets, method)
    assert [len(explanation.words) for explanation in together] == [3, 0, 2]
    for i in range(3):
        one = batch.take(torch.tensor([i], device=device))
        assert same_maps(explain(task, one, alone(targets, i), method), together[i : i + 1], rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_a_sample_in_any_place_has_the_same_map(method):
    # Six passes of two samples are chunks as long as a batch of two: nothing may take them for the batch.
    task, batch, targets = make("plain"), pictures(2), ragged((2, 1))
    order = torch.tensor([1, 0])
    there = explain(task, batch.take(order), targets.take(order), method)
    assert same_maps(there, explain(task, batch, targets, method)[::-1], rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_passes_do_not_change_the_maps(method, monkeypatch):
    task, batch, targets = make("attention"), pictures(2), ragged((2, 3))
    whole = explain(task, batch, targets, method)
    monkeypatch.setattr(gradients, "MEMORY", 1)
    monkeypatch.setattr(subject, "PICTURES_AT_ONCE", 2)
    assert same_maps(explain(task, batch, targets, method), whole, rtol=1e-12)
    monkeypatch.setattr(subject, "PICTURES_AT_ONCE", 5)
    monkeypatch.setattr(gradients, "MEMORY", 5 * 4 * 6 * 5 * 7 * 8)
    assert same_maps(explain(task, batch, targets, method), whole, rtol=1e-12)


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("method", [method for method in FROM_MODEL if method not in OTHERS])
def test_nothing_of_the_model_or_the_surroundings_changes(method, how):
    task = make("classifier", how=how).train()
    list(task.modules())[2].eval()
    for parameter in task.parameters():
        parameter.grad = torch.randn_like(parameter)
    batch = pictures(2)
    images = batch.images.clone()
    with untouched(task):
        explain(task, batch, ragged((2, 1)), method)
    assert torch.equal(batch.images, images)
    assert batch.memo == {}


@pytest.mark.parametrize("method", [method for method in FROM_MODEL if method not in OTHERS])
def test_nothing_changes_when_the_model_fails_on_the_way(method, monkeypatch):
    task, batch, targets = make("classifier").train(), pictures(2), ragged((2, 1))
    original, calls = type(task).scores, []

    def scores(*arguments):
        calls.append(0)
        if len(calls) == 2:
            raise RuntimeError("second")
        return original(*arguments)

    monkeypatch.setattr(type(task), "scores", scores)
    for context in (torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)):
        calls[:] = [0] * (method == "eigen_cam")  # which asks only once
        with context(), untouched(task), pytest.raises(RuntimeError, match="second"):
            explain(task, batch, targets, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_the_callers_grad_mode_does_not_matter(method, context):
    task, batch, targets = make("attention"), pictures(2), ragged((2, 1))
    expected = explain(task, batch, targets, method)
    with context():
        assert same_maps(explain(task, batch, targets, method), expected)


@pytest.mark.parametrize("method", METHODS)
def test_autocast_is_near_float64_and_gives_float32(method):
    batch, targets = pictures(2), ragged((2, 3))
    exact = explain(make("attention"), batch, targets, method)
    batch = replace(batch, images=batch.images.float())
    with torch.autocast("cpu", torch.bfloat16):
        found = explain(make("attention", dtype=torch.float32), batch, targets, method)
    assert {explanation.signed.dtype for explanation in found} == {torch.float32}
    assert {explanation.scores.dtype for explanation in found} == {torch.float32}
    assert same_maps(found, exact, rtol=0.2)


@pytest.mark.parametrize("method", METHODS)
def test_no_words_no_maps(method):
    for lengths in ((2, 0), (0, 0)):
        for explanation, n in zip(explain(make("cell"), pictures(2), ragged(lengths), method), lengths, strict=True):
            assert explanation.signed.shape == (n, 5, 7)


@pytest.mark.parametrize("method", METHODS)
def test_a_score_that_does_not_depend_on_the_layer_is_never_nan(method):
    task = make("classifier")
    nn.init.zeros_(task.linear.weight)
    nn.init.zeros_(task.linear.bias)
    for explanation in explain(task, pictures(2), ragged((2, 1)), method):
        seen = method in (*CLASSLESS, "score_cam")  # equal scores are equal weights: the mean of the channels
        assert set(explanation.flags) == {"" if seen else "zero"}


@pytest.mark.parametrize("method", METHODS)
def test_pictures_that_nothing_sees_are_never_nan(method):
    task = make("convolved")
    task.cnn.append(nn.Threshold(1e9, 0.0))  # A = 0
    for explanation in explain(task, pictures(2), ragged((2, 1)), method):
        assert explanation.signed.isfinite().all()
        assert set(explanation.flags) == {"zero"} or method in ("gradient_norm", "full_grad")


@pytest.mark.parametrize("method", [*METHODS, "cam"])
def test_a_broken_model_is_flagged(method):
    task = make("classifier")
    with torch.no_grad():
        task.cnn[0].weight.fill_(torch.nan)
    for explanation in explain(task, pictures(2), ragged((2, 1)), method):
        assert set(explanation.flags) == {"non-finite"} or method == "gradient_norm"


def test_one_trunk_pass_serves_all_that_need_no_other_picture():
    task, batch, targets = make("convolved"), pictures(), ragged()
    a = task.trunk(batch).detach()
    for method in METHODS:
        explain_activations(task, a, batch, targets, method)
        assert task.calls["trunk"] == (
            1 if method not in ("score_cam", "smooth_grad_cam_plus_plus") else 1 + asked(method)
        )
        task.calls["trunk"] = 1


def asked(method):
    return 1 if method == "score_cam" else 8  # 24 masked pictures are one pass


# CAM and Ablation-CAM


def test_cam_is_the_weights_of_the_linear_layer():
    task, batch, targets = make("classifier"), pictures(), ragged()
    a = task.trunk(batch).detach()
    found, plain = explain(task, batch, targets, "cam"), explain(task, batch, targets)
    for i, explanation in enumerate(found):
        ids = targets.ids[i, : len(explanation.words)]
        assert close(explanation.signed, torch.einsum("ck,khw->chw", task.linear.weight.detach()[ids], a[i]))
        assert close(explanation.signed, 35 * plain[i].signed)
        assert close(explanation.signed.mean((1, 2)), explanation.scores - task.linear.bias.detach()[ids])


@pytest.mark.parametrize("name", [name for name in TASKS if name != "classifier"])
def test_cam_refuses_other_heads(name):
    task, batch, targets = make(name), pictures(), ragged()
    with untouched(task), pytest.raises(UserError, match="global average pooling and one linear layer"):
        explain(task, batch, targets, "cam")


class Headed(Small):
    """Any function of A as a head."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def scores(self, activations, batch, targets):
        self.calls["scores"] += 1
        return targets.pick(self.function(activations))


@pytest.mark.parametrize(
    "function",
    [
        lambda a: a.mean((2, 3)).relu() @ torch.ones(6, 11).double(),  # bias-free: linear along every ray from zero
        lambda a: a.mean((2, 3)).tanh() @ torch.ones(6, 11).double(),  # odd
        lambda a: a.amax((2, 3)) @ torch.ones(6, 11).double(),
        lambda a: (a * torch.arange(7)).mean((2, 3)) @ torch.ones(6, 11).double(),  # linear, but not pooled
    ],
)
def test_cam_is_not_taken_in(function):
    with pytest.raises(UserError, match="use grad_cam"):
        explain(Headed(function).double().eval(), pictures(), ragged(), "cam")


def test_ablation_cam_needs_no_pass_a_channel_where_the_head_is_affine():
    task, batch, targets = make("classifier"), pictures(), ragged()
    found = explain(task, batch, targets, "ablation_cam")
    assert task.calls["scores"] == 2  # the gradient's and the trial's
    # y - y_k = W_ck mean(A^k)
    for i, explanation in enumerate(found):
        a = task.trunk(batch).detach()[i]
        for row, c in zip(explanation.signed, targets.ids[i].tolist(), strict=False):
            weights = [float(task.linear.weight.detach()[c, k]) * float(a[k].mean()) for k in range(6)]
            assert close(row, weighted(weights, a))


def test_ablation_cam_by_hand():
    # y = a₁ a₂ at the first place: (3 · 2) = 6, without either 0; so both weigh 6.
    images = torch.tensor([[[[3.0, 1.0], [0.0, 0.0]], [[2.0, 0.0], [0.0, 5.0]], [[7.0, 7.0], [7.0, 7.0]]]]).double()

    class Product(Headed):
        def trunk(self, batch):
            return batch.images

    task = Product(lambda a: (a[:, 0, 0, 0] * a[:, 1, 0, 0])[:, None])
    (found,) = explain(task, Batch(images, ("x",), ((2, 2),)), Targets.of([[0]], [["word"]]), "ablation_cam")
    assert found.scores.tolist() == [6]
    assert found.signed.tolist() == [[[30, 6], [0, 30]]]


# Score-CAM


def test_score_cam_by_hand():
    # A is the picture of 2 x 2, so the masks are its channels: 0 … 4 → 0 … 1, and one that is the same everywhere.
    images = torch.tensor([[[[0.0, 4.0], [2.0, 4.0]], [[3.0, 3.0], [3.0, 3.0]]]]).double()

    class Sum(Headed):
        def trunk(self, batch):
            return batch.images

    task = Sum(lambda a: a[:, :1].sum((2, 3)) / 9)
    (found,) = explain(task, Batch(images, ("x",), ((2, 2),)), Targets.of([[0]], [["word"]]), "score_cam")
    # Through the first: 0 + 4 + 1 + 4 = 9, y = 1. Through the second: nothing, y = 0.
    first = torch.tensor(1.0).double().sigmoid()
    assert close(found.signed[0], first * images[0, 0] + (1 - first) * images[0, 1])


def test_score_cam_sees_every_picture_once_for_all_rows(monkeypatch):
    monkeypatch.setattr(subject, "PICTURES_AT_ONCE", 4)
    task, batch, targets = make("plain"), pictures(2), ragged((4, 3))
    explain(task, batch, targets, "score_cam")
    assert task.calls == {"trunk": 1 + 3, "scores": 1 + 3}


def test_smooth_grad_cam_plus_plus_without_noise_is_grad_cam_plus_plus():
    task, batch, targets = make("attention"), pictures(2), ragged((2, 1))
    plain = explain(task, batch, targets, "grad_cam_plus_plus")
    flat = replace(batch, images=torch.ones_like(batch.images))  # no range, no noise
    assert same_maps(
        explain(task, flat, targets, "smooth_grad_cam_plus_plus"), explain(task, flat, targets, "grad_cam_plus_plus")
    )
    assert not same_maps(explain(task, batch, targets, "smooth_grad_cam_plus_plus"), plain, rtol=1e-3)


# FullGrad


class Piecewise(Small):
    """A head of convolutions, batch norms and ReLUs: its full gradients sum to the score."""

    def __init__(self, last_bias=False):
        super().__init__()
        self.tail = nn.Sequential(
            nn.Conv2d(6, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 4, 2, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 11, bias=last_bias),
        )
        for norm in (self.tail[1], self.tail[5]):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            nn.init.normal_(norm.bias)

    def logits(self, activations, batch):
        return self.tail(activations)


@pytest.fixture
def piecewise():
    task, batch, targets = Piecewise().double().eval(), pictures(3), ragged((3, 1, 2))
    batch = batch.to("cpu")
    return task, batch, targets, Subject(task, task.trunk(batch).detach(), batch, targets)


def test_full_gradients_sum_to_the_score(piecewise):
    *_, asked = piecewise
    found = parts(asked)
    assert [part.shape[2:] for part in found] == [(6, 5, 7), (8, 5, 7), (8, 5, 7), (4, 1, 2)]
    total = sum(part.sum((2, 3, 4)) for part in found)
    assert close(total, asked.scores())
    assert not close(found[0].sum((2, 3, 4)), asked.scores(), rtol=0.01)


@pytest.mark.parametrize("how", WAYS)
def test_full_grad_is_the_authors_with_hooks_on_modules(piecewise, how):
    task, batch, targets, _ = piecewise
    task.vjp = getattr(gradients, how)
    for i, explanation in enumerate(explain(task, batch, targets, "full_grad")):
        one, mine = batch.take(torch.tensor([i])), alone(targets, i)
        for row, map in zip(mine.rows[0], explanation.signed, strict=True):
            assert close(map, hooked(task, one, mine, row))


def hooked(task, batch, targets, row):
    """`FullGrad.saliency`: for each layer |gradient of its output times its bias|, to 0 … 1, resized, summed."""
    outputs = []
    handles = [
        module.register_forward_hook(lambda module, inputs, output: outputs.append((module, output)) or output.clone())
        for module in task.tail
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ]
    a = task.trunk(batch).detach().requires_grad_()
    y = score(task, batch, targets, row, a)
    for handle in handles:
        handle.remove()
    total = 0
    for module, z in [(None, a), *outputs]:
        (g,) = torch.autograd.grad(y, z, retain_graph=True)
        if module is None:
            bias = a.detach()
        elif isinstance(module, nn.BatchNorm2d):
            bias = module.bias - module.weight * module.running_mean / (module.running_var + module.eps).sqrt()
            bias = bias[:, None, None]
        elif module.bias is None:
            continue
        else:
            bias = module.bias[:, None, None]
        size = (g * bias).detach().abs()
        size = (size - size.min()) / (size.max() - size.min()) if size.max() > size.min() else size * 0
        total = total + F.interpolate(size.sum(1, keepdim=True), (5, 7), mode="bilinear")[0, 0]
    return total


def test_full_grad_of_a_head_without_places_is_the_layers_own_term():
    task, batch, targets = make("classifier"), pictures(1), ragged((1,))
    batch = batch.to("cpu")
    asked = Subject(task, task.trunk(batch).detach(), batch, targets)
    product = (asked.gradients() * asked.activations[:, None]).abs()
    expected = (product - product.min()) / (product.max() - product.min())
    assert close(full_grad(asked), expected.sum(2))


@pytest.mark.parametrize("layer", ["conv1", "layer2.0", "layer4"])
def test_full_gradients_of_a_resnet_cut_anywhere(layer):
    torch.manual_seed(0)
    model = models.resnet18(num_classes=5).double().eval()
    with torch.no_grad():
        for name, values in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith(("bias", "running_mean")):
                values.normal_(std=0.1)
    task = ClassificationTask(model, layer)
    batch = Batch(torch.randn(2, 3, 64, 64, dtype=torch.float64), ("a", "b"), ((64, 64),) * 2)
    targets = Targets.of([[0, 3], [1]], [["a", "b"], ["c"]])
    asked = Subject(task, task.trunk(batch).detach(), batch, targets)
    total = sum(part.sum((2, 3, 4)) for part in parts(asked))
    places = torch.tensor([[1, 1], [1, 0]])
    bias = model.fc.bias.detach()[torch.tensor([[0, 3], [1, 1]])]  # the one bias without places
    assert close(total + bias * places, asked.scores(), rtol=1e-9)


@pytest.mark.parametrize("name", ["captioning/scenes", "vqa/scenes", "classification/scenes"])
def test_every_method_on_the_shipped_models(name):
    task = load_task(name)
    question = "what is above the dog?" if name.startswith("vqa") else ""
    batch = task.collate([Sample(Image.effect_noise((96, 96), 80).convert("RGB"), "noise", question)])
    for method in METHODS:
        (explanation,) = explain(task, batch, method=method)
        assert explanation.signed.isfinite().all()
        assert len(explanation.signed) == len(explanation.words) > 0
