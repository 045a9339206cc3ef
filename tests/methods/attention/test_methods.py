"""The attention methods by name, held against forwards of the same models that compute a softmax themselves."""

from dataclasses import replace
from functools import cache
from threading import Thread

import pytest
import timm
import torch
from PIL import Image
from torch import nn
from torchcam.methods import LeGrad
from torchvision.models.vision_transformer import VisionTransformer

from classification import ClassificationTask
from mmcam import gradients
from mmcam.engine import explain
from mmcam.errors import UserError
from mmcam.methods.attention import methods
from mmcam.methods.attention.methods import FROM_ATTENTION
from mmcam.task import Batch, Sample, Targets
from tests.reference import close, make, pictures, ragged, same_maps, untouched

CLASSES, LAYERS = 7, 3
TARGETS = Targets.of([[1, 2, 3], [4]], [["x", "y", "z"], ["w"]])


def images(size=(32, 32), count=2, dtype=torch.float64):
    noise = torch.randn(count, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return Batch(noise.to(dtype), ("a", "b", "c", "d")[:count], (size,) * count)


def awake(model):
    """Weights that let attention differ between tokens and heads."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(2)
        for parameter in model.parameters():
            parameter.normal_(std=0.2 if parameter.ndim > 1 else 0.3)
    return model.double().eval()


@cache
def torchvision_vit():
    return awake(VisionTransformer(32, 8, LAYERS, 4, 32, 64, num_classes=CLASSES))


@cache
def vit_task():
    """One for many tests: finding out how to cut takes most of their time."""
    return ClassificationTask(torchvision_vit(), size=32)


def timm_vit(size=(32, 32), **options):
    return awake(
        timm.create_model(
            "vit_tiny_patch16_224", img_size=size, patch_size=8, depth=LAYERS, num_classes=CLASSES, **options
        )
    )


# References: attention that models compute themselves, and one ordinary backward a row


def of_torchvision(model, x):
    """The forward written out by hand: probabilities, tokens after each block, logits."""
    x = model.conv_proj(x).flatten(2).mT
    x = torch.cat([model.class_token.expand(len(x), -1, -1), x], 1) + model.encoder.pos_embedding
    probabilities, tokens = [], []
    for block in model.encoder.layers:
        own = block.self_attention
        y = block.ln_1(x)
        q, k, v = (y @ own.in_proj_weight.T + own.in_proj_bias).unflatten(2, (3, 4, 8)).permute(2, 0, 3, 1, 4)
        probabilities.append((q @ k.mT / 8**0.5).exp())
        probabilities[-1] = probabilities[-1] / probabilities[-1].sum(-1, keepdim=True)
        x = x + own.out_proj((probabilities[-1] @ v).transpose(1, 2).flatten(2))
        x = x + block.mlp(block.ln_2(x))
        tokens.append(x)
    return probabilities, tokens, model.heads(model.encoder.ln(x)[:, 0])


def of_timm(model, x):
    """The forward without fused attention; its dropout sees the probabilities."""
    probabilities, handles = [], []
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    for block in model.blocks:
        handles.append(block.attn.attn_drop.register_forward_hook(lambda m, i, output: probabilities.append(output)))
    logits = model(x)
    for handle in handles:
        handle.remove()
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = True
    return probabilities, None, logits


def loop(method, probabilities, logits, i, row, reading, prefix):
    """One map of one row by the papers' formulas; `reading` are the tokens that the logits are read at."""
    gradients = torch.autograd.grad((logits[i] * row).sum(), probabilities, retain_graph=True)
    pairs = [(p[i].detach(), g[i]) for p, g in zip(probabilities, gradients, strict=True)]
    eye = total = torch.eye(pairs[0][0].shape[-1], dtype=torch.float64)
    if method == "gradient_attention":
        p, g = pairs[-1]
        return sum((p[h] * g[h]).clamp(min=0) for h in range(len(p))).sum(0)[prefix:] / len(p)
    for p, g in pairs:
        if method == "attention_rollout":
            total = (sum(p) / len(p) + eye) / 2 @ total
        else:
            total = total + sum((p[h] * g[h]).clamp(min=0) for h in range(len(p))) / len(p) @ total
    return sum(total[q] for q in reading)[prefix:] / len(reading)


NAMES = [name for name in FROM_ATTENTION if name != "legrad"]


def check(task, batch, forward, reading, prefix, grid=(4, 4), rtol=1e-9):
    probabilities, _, logits = forward(task.model, batch.images)
    for method in NAMES:
        for i, explanation in enumerate(explain(task, batch, TARGETS, method)):
            assert explanation.method == method
            for word, map in zip(explanation.words, explanation.signed, strict=True):
                row = torch.zeros(CLASSES, dtype=torch.float64)
                row[{"x": 1, "y": 2, "z": 3, "w": 4}[word]] = 1
                expected = loop(method, probabilities, logits, i, row, reading, prefix)
                assert close(map, expected.unflatten(0, grid), rtol)


def test_torchvision_vit_is_the_loop():
    check(vit_task(), images(), of_torchvision, [0], 1)


def test_timm_vit_is_the_loop():
    check(ClassificationTask(timm_vit(), size=32), images(), of_timm, [0], 1)


def test_registers_lie_nowhere():
    check(ClassificationTask(timm_vit(reg_tokens=4), size=32), images(), of_timm, [0], 5)


def test_pooled_tokens_are_all_read():
    model = timm_vit(global_pool="avg", class_token=False)
    check(ClassificationTask(model, size=32), images(), of_timm, list(range(16)), 0)


def test_grids_need_not_be_square():
    task = ClassificationTask(timm_vit((32, 48)), size=(32, 48))
    check(task, images((32, 48)), of_timm, [0], 1, (4, 6))


def test_legrad_is_the_loop():
    model, batch = torchvision_vit(), images()
    probabilities, tokens, _ = of_torchvision(model, batch.images)
    task = ClassificationTask(model, size=32)
    for i, explanation in enumerate(explain(task, batch, TARGETS, "legrad")):
        for word, map in zip(explanation.words, explanation.signed, strict=True):
            expected = 0
            for p, z in zip(probabilities, tokens, strict=True):
                y = model.heads(model.encoder.ln(z.mean(1)))[i, {"x": 1, "y": 2, "z": 3, "w": 4}[word]]
                (g,) = torch.autograd.grad(y, p, retain_graph=True)
                expected = expected + g[i].clamp(min=0).mean((0, 1))[1:].unflatten(0, (4, 4)) / LAYERS
            assert close(map, expected, rtol=1e-9)


def test_legrad_is_torchcams():
    model, batch = torchvision_vit(), images()
    found = explain(ClassificationTask(model, size=32), batch, TARGETS, "legrad")
    with LeGrad(model, list(model.encoder.layers)) as peer:
        logits = model(batch.images)
        (theirs,) = peer([1, 4], logits, normalized=False)
    assert close(torch.stack([found[0].signed[0], found[1].signed[0]]), theirs, rtol=1e-9)


def test_legrad_of_a_linear_head_in_closed_form():
    """One block without residual connections or an MLP: z = P V, s = w · mean(z), so ∂s/∂P_ij = w · V_j / n."""

    class Mixing(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(3, 1, batch_first=True)
            self.attention.in_proj_weight.data[6:] = torch.eye(3)
            self.attention.out_proj.weight.data = torch.eye(3)

        def forward(self, x):
            return self.attention(x, x, x)[0]

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Mixing()
            self.head = nn.Linear(3, CLASSES)

        def forward(self, images):
            return self.head(self.block(images.flatten(2).mT).mean(1))

    model, batch = Model().double().eval(), images((4, 4))
    found = explain(ClassificationTask(model, "block", size=4, crop=False), batch, TARGETS, "legrad")
    for i, explanation in enumerate(found):
        for c, map in zip((1, 2, 3) if i == 0 else (4,), explanation.signed, strict=True):
            expected = torch.einsum("c,chw->hw", model.head.weight.detach()[c], batch.images[i]) / 16
            assert close(map, expected.clamp(min=0))


# Attention pooling


def test_pooling_by_a_probe():
    model, batch = timm_vit(global_pool="map", class_token=False), images()
    task = ClassificationTask(model, size=32)
    own, seen = [], []
    for part in (*model.blocks, model.attn_pool):
        (part.attn if hasattr(part, "attn") else part).fused_attn = False
    for block in model.blocks:
        block.attn.attn_drop.register_forward_hook(lambda m, i, output: own.append(output))
    pool = model.attn_pool
    x = model.forward_features(batch.images)
    q = pool.q_norm((pool.q(pool.latent.expand(2, -1, -1))).unflatten(2, (pool.num_heads, -1)).transpose(1, 2))
    k, v = pool.kv(x).unflatten(2, (2, pool.num_heads, -1)).permute(2, 0, 3, 1, 4)
    p = (q * pool.scale @ pool.k_norm(k).mT).softmax(-1)
    y = pool.proj((p @ v).transpose(1, 2).flatten(2))
    y = model.head(model.fc_norm((y + pool.mlp(pool.norm(y)))[:, 0]))
    for part in (*model.blocks, model.attn_pool):
        (part.attn if hasattr(part, "attn") else part).fused_attn = True
    seen = [*own, p]
    for block in model.blocks:
        block.attn.attn_drop._forward_hooks.clear()
    assert close(y.detach(), model(batch.images).detach())
    grads = torch.autograd.grad(y[0, 1], seen)
    eye = total = rolled = torch.eye(16, dtype=torch.float64)
    for a, g in zip(own, grads, strict=False):
        total = total + (a[0].detach() * g[0]).clamp(min=0).mean(0) @ total
        rolled = (a[0].detach().mean(0) + eye) / 2 @ rolled
    rest = total - eye
    mixed = (p[0].detach() * grads[-1][0]).clamp(min=0).mean(0)
    expected = {
        "gradient_attention": mixed,
        "attention_rollout": p[0].detach().mean(0) @ rolled,
        "attention_relevance": mixed @ (rest / rest.sum(-1, keepdim=True) + eye),
    }
    for method, map in expected.items():
        assert close(explain(task, batch, TARGETS, method)[0].signed[0], map.unflatten(1, (4, 4))[0], rtol=1e-9)


# Hugging Face


@cache
def hugging_face(attention="sdpa"):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=LAYERS, num_attention_heads=4, intermediate_size=64, image_size=32,
        patch_size=8, num_labels=CLASSES, attn_implementation=attention,
    )  # fmt: skip
    return awake(transformers.ViTForImageClassification(config))


def of_hugging_face(model, x):
    found = hugging_face("eager")(x, output_attentions=True)
    return list(found.attentions), None, found.logits


def test_hugging_face_vit_is_its_eager_twin():
    task = ClassificationTask(hugging_face(), size=32)
    check(task, images(), of_hugging_face, [0], 1, rtol=1e-5)  # its softmax is in float32
    assert not any(e.flags[0] for e in explain(task, images(), TARGETS, "legrad"))


def test_eager_attention_is_refused_with_the_way_out():
    task = ClassificationTask(hugging_face("eager"), size=32)
    for method in FROM_ATTENTION:
        with untouched(task), pytest.raises(UserError, match="attn_implementation='sdpa'"):
            explain(task, images(), TARGETS, method)


# What holds for every method

EVERY = pytest.mark.parametrize("method", FROM_ATTENTION)


@EVERY
def test_the_explained_layer_does_not_matter(method):
    layers = ("conv_proj", "encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_2.ln_1", "encoder.ln")
    first, *others = (
        explain(ClassificationTask(torchvision_vit(), layer, size=32), images(), TARGETS, method) for layer in layers
    )
    for other in others:
        assert same_maps(other, first, rtol=1e-9)


@EVERY
def test_a_cut_inside_attention_counts_it_once(method):
    whole = explain(ClassificationTask(timm_vit(), size=32), images(), TARGETS, method)
    task = ClassificationTask(timm_vit(), "blocks.2.attn.proj", size=32)
    if method == "legrad":
        with pytest.raises(UserError, match="transformer of blocks"):
            explain(task, images(), TARGETS, method)
    else:
        assert same_maps(explain(task, images(), TARGETS, method), whole, rtol=1e-9)


@EVERY
def test_all_rows_of_all_pictures_are_each_alone(method, monkeypatch):
    task = vit_task()
    batch, targets = images(count=3), Targets.of([[1, 2, 3], [], [4, 0]], [["x", "y", "z"], [], ["w", "v"]])
    together = explain(task, batch, targets, method)
    assert [len(e.signed) for e in together] == [3, 0, 2]
    for i in (0, 2):
        one = batch.take(torch.tensor([i]))
        for word, c, map in zip(targets.words[i], targets.ids[i].tolist(), together[i].signed, strict=False):
            (alone,) = explain(task, one, Targets.of([[c]], [[word]]), method)
            assert close(alone.signed[0], map, rtol=1e-9)
    monkeypatch.setattr(methods, "PICTURES_AT_ONCE", 2)
    monkeypatch.setattr(gradients, "MEMORY", 1)
    assert same_maps(explain(task, batch, targets, method), together, rtol=1e-9)
    none = explain(task, batch, Targets.of([[], [], []], [[], [], []]), method)
    assert [tuple(e.signed.shape) for e in none] == [(0, 4, 4)] * 3


@EVERY
def test_contrasts_and_counterfactuals_are_other_rows(method):
    task, batch = vit_task(), images()
    plain = explain(task, batch, TARGETS, method)
    turned = explain(task, batch, TARGETS.negative(), method)
    assert same_maps(turned, [replace(e, scores=-e.scores) for e in plain]) == (method == "attention_rollout")
    (contrast,) = explain(task, images(count=1), task.given(["1 rather than 2"], images(count=1)), method)
    assert close(contrast.scores[0], plain[0].scores[0] - plain[0].scores[1])


@EVERY
def test_a_compiled_model_is_the_model(method):
    plain = explain(vit_task(), images(), TARGETS, method)
    task = ClassificationTask(torch.compile(torchvision_vit()), size=32)
    assert same_maps(explain(task, images(), TARGETS, method), plain)


@EVERY
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_the_task_and_its_surroundings_are_left_as_found(method, context):
    task = ClassificationTask(VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=CLASSES), size=32).double().train()
    awake(task.model).train()
    for parameter in task.parameters():
        parameter.grad = torch.ones_like(parameter)
    expected = explain(task, images(), TARGETS, method)
    with context(), untouched(task):
        assert same_maps(explain(task, images(), TARGETS, method), expected)
    for parameter in task.parameters():
        parameter.requires_grad_(False)
    with untouched(task):
        assert same_maps(explain(task, images(), TARGETS, method), expected)


@EVERY
def test_and_when_the_model_fails_on_the_way(method, monkeypatch):
    task, calls = ClassificationTask(torchvision_vit(), size=32).train(), []
    original = ClassificationTask.scores

    def scores(*arguments):
        calls.append(original(*arguments))
        raise RuntimeError("late")

    monkeypatch.setattr(ClassificationTask, "scores", scores)
    with untouched(task), pytest.raises(RuntimeError, match="late"):
        explain(task, images(), TARGETS, method)
    assert calls


@EVERY
def test_threads_may_share_a_model(method):
    task = vit_task()
    batches = [images(count=1), images()]
    targets = [TARGETS.take(torch.arange(len(batch))) for batch in batches]
    expected = [explain(task, *pair, method) for pair in zip(batches, targets, strict=True)]
    found = {}

    def work(i):
        for _ in range(3):
            found[i] = explain(task, batches[i], targets[i], method)

    threads = [Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all(same_maps(found[i], expected[i]) for i in range(2))


@EVERY
def test_half_precision_and_autocast_are_near(method):
    exact = explain(vit_task(), images(), TARGETS, method)
    model = VisionTransformer(32, 8, LAYERS, 4, 32, 64, num_classes=CLASSES).eval()
    model.load_state_dict(torchvision_vit().state_dict())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = explain(ClassificationTask(model, size=32), images(dtype=torch.float32), TARGETS, method)
    half = explain(ClassificationTask(model.bfloat16(), size=32), images(dtype=torch.bfloat16), TARGETS, method)
    for found in (mixed, half):
        assert {e.signed.dtype for e in found} == {torch.float32}
        for ours, theirs in zip(found, exact, strict=True):
            for a, b in zip(ours.signed.double(), theirs.signed, strict=True):
                assert float(torch.cosine_similarity(a.flatten(), b.flatten(), dim=0)) > 0.98


@EVERY
def test_scores_that_see_nothing_have_maps_of_zero(method):
    model = VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=CLASSES).double().eval()  # its head is all zeros
    for explanation in explain(ClassificationTask(model, "encoder.ln", size=32), images(), TARGETS, method):
        assert set(explanation.flags) == {"zero"}


@EVERY
def test_a_broken_model_is_flagged(method):
    model = awake(VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=CLASSES))
    task = ClassificationTask(model, "encoder.ln", size=32)
    task.trunk(images())  # it is cut while it is whole
    with torch.no_grad():
        model.encoder.layers[0].mlp[0].weight[0, 0] = torch.nan
    for explanation in explain(task, images(), TARGETS, method):
        assert set(explanation.flags) == {"non-finite"}


# What has no map


@EVERY
def test_models_without_attention_are_refused(method):
    task, batch, targets = make("classifier"), pictures(2), ragged((2, 1))
    with untouched(task), pytest.raises(UserError, match="expected a model with attention"):
        explain(task, batch, targets, method)


class Windows(nn.Module):
    """Attention in windows of 2 x 2 pixels, as of Swin."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 4, 4, stride=4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        x = self.embed(x).unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 4, 5, 1).flatten(3, 4).flatten(0, 2)
        return self.head(self.attention(x, x, x)[0].mean(1).unflatten(0, (-1, 16)).mean(1))


@EVERY
def test_windows_are_refused(method):
    task = ClassificationTask(Windows().double().eval(), "embed", size=32)
    with untouched(task), pytest.raises(UserError, match="as of windows"):
        explain(task, images(), TARGETS, method)


def test_a_trunk_that_keeps_no_graph_is_refused():
    class Blind(ClassificationTask):
        @torch.no_grad()
        def trunk(self, batch):
            return super().trunk(batch)

    task = Blind(torchvision_vit(), size=32)
    with untouched(task), pytest.raises(UserError, match="take no_grad, detach and the like"):
        explain(task, images(), TARGETS, "attention_relevance")


def test_the_layer_of_the_shipped_vit_b_16():
    model = awake(VisionTransformer(48, 16, 12, 2, 16, 32, num_classes=CLASSES))
    task = ClassificationTask(model, "encoder.layers.encoder_layer_11.ln_1", size=48)
    batch = task.collate([Sample(Image.effect_noise((60, 50), 80).convert("RGB"), "noise")])
    for method in FROM_ATTENTION:
        (explanation,) = explain(task, batch, method=method)
        assert explanation.signed.shape == (1, 3, 3)
        assert set(explanation.flags) == {""}


@pytest.mark.parametrize("method", FROM_ATTENTION)
def test_the_trunk_runs_once(method, monkeypatch):
    task, calls = vit_task(), []
    explain(task, images(), TARGETS, method)  # finds out how to cut
    trunk = type(task).trunk
    monkeypatch.setattr(type(task), "trunk", lambda *a: calls.append(0) or trunk(*a))
    found = explain(task, images(), TARGETS, method)
    assert len(calls) == 1
    expected = explain(task, images(), TARGETS)
    assert all(close(ours.scores, theirs.scores, 1e-9) for ours, theirs in zip(found, expected, strict=True))
    # In parts, whose places on the layer one more pass tells.
    monkeypatch.setattr(methods, "PICTURES_AT_ONCE", 1)
    calls.clear()
    assert same_maps(explain(task, images(), TARGETS, method), found)
    assert len(calls) == 3
