"""Attention taken apart is the attention that was fused, and its gradients are those of loops."""

import logging
from threading import Barrier, Thread

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmcam import gradients
from mmcam.methods.attention.capture import Captured, attention_gradients, depending
from tests import reference
from tests.reference import surroundings, unchanged


def close(ours, theirs, rtol=1e-10):
    return reference.close(ours.detach(), theirs.detach(), rtol)


def numbers(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=torch.float64).to(dtype)


def slow_softmax(q, k, scale, mask):
    """Probabilities of one head of one picture, number by number."""
    rows = []
    for i in range(len(q)):
        logits = [float(q[i] @ k[j]) * scale + float(mask[i, j]) for j in range(len(k))]
        sizes = [torch.tensor(x, dtype=torch.float64).exp() for x in logits]
        rows.append(torch.stack(sizes) / sum(sizes) if sum(sizes) else torch.zeros(len(k)).double())
    return torch.stack(rows)


TRIANGLE = torch.ones(3, 5).bool().tril()
NONE_LEFT = torch.tensor([[True, False, True, False, True], [False] * 5, [True] * 5])
BIAS = torch.linspace(-2, 2, 15, dtype=torch.float64).view(3, 5)


@pytest.mark.parametrize(
    ("options", "added"),
    [
        ({}, torch.zeros(3, 5)),
        ({"scale": 0.7}, torch.zeros(3, 5)),
        ({"is_causal": True}, torch.zeros(3, 5).masked_fill(~TRIANGLE, -torch.inf)),
        ({"attn_mask": BIAS}, BIAS),
        ({"attn_mask": NONE_LEFT}, torch.zeros(3, 5).masked_fill(~NONE_LEFT, -torch.inf)),
        ({"attn_mask": BIAS.masked_fill(~TRIANGLE, -torch.inf)[None, None]}, BIAS.masked_fill(~TRIANGLE, -torch.inf)),
    ],
)
def test_probabilities_and_values_are_those_of_the_fused_call(options, added):
    q, k, v = numbers(2, 4, 3, 6), numbers(2, 4, 5, 6), numbers(2, 4, 5, 7)
    expected = F.scaled_dot_product_attention(q, k, v, **options)
    with torch.no_grad(), Captured() as captured:
        found = F.scaled_dot_product_attention(q, k, v, **options)
    assert close(found, expected)
    (p,) = captured.seen
    for i in range(2):
        for h in range(4):
            assert close(p[i, h], slow_softmax(q[i, h], k[i, h], options.get("scale", 6**-0.5), added))


def test_fewer_heads_of_keys_than_of_queries():
    q, k, v = numbers(2, 4, 3, 6), numbers(2, 2, 5, 6), numbers(2, 2, 5, 6)
    expected = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    with Captured() as captured:
        assert close(F.scaled_dot_product_attention(q, k, v, enable_gqa=True), expected)
    assert captured.seen[0].shape == (2, 4, 3, 5)


@pytest.mark.parametrize("wanted", [{"need_weights": False}, {}, {"average_attn_weights": False}])
@pytest.mark.parametrize(
    "made", [{"batch_first": True}, {}, {"kdim": 5, "vdim": 3}, {"add_bias_kv": True, "add_zero_attn": True}]
)
@pytest.mark.parametrize("masked", [False, True])
def test_multi_head_attention(made, wanted, masked):
    layer = nn.MultiheadAttention(8, 2, **made).double().eval()
    first = made.get("batch_first", False)
    q, k, v = (
        numbers(*((2, n) if first else (n, 2)), d)
        for n, d in ((4, 8), (6, made.get("kdim", 8)), (6, made.get("vdim", 8)))
    )
    masks = {}
    if masked:
        masks = {"key_padding_mask": torch.arange(6) > torch.tensor([[3], [5]]), "attn_mask": numbers(4, 6) > 1}
        masks["attn_mask"][:, 0] = False
    expected = layer(q, k, v, **wanted, **masks)
    explicit = layer(q, k, v, average_attn_weights=False, **masks)[1]
    with Captured() as captured:
        found = layer(q, k, v, **wanted, **masks)
    assert close(found[0], expected[0])
    assert (found[1] is None) == (expected[1] is None)
    assert found[1] is None or close(found[1], expected[1])
    assert close(captured.seen[0], explicit)


def test_multi_head_attention_of_one_sentence():
    layer = nn.MultiheadAttention(8, 2).double().eval()
    x = numbers(4, 8)
    for wanted in ({}, {"average_attn_weights": False}):
        expected = layer(x, x, x, **wanted)
        with Captured() as captured:
            found = layer(x, x, x, **wanted)
        assert close(found[0], expected[0])
        assert close(found[1], expected[1])
        assert captured.seen[0].shape == (1, 2, 4, 4)


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_fused_encoder_layer_is_left_and_says_the_same(norm_first):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first).double().eval()
    x = numbers(2, 4, 8)
    with torch.no_grad():
        expected = layer(x)
        with Captured() as captured:
            assert close(layer(x), expected)
    assert captured.seen[0].shape == (2, 2, 4, 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    q, k, v = (numbers(2, 4, 5, 8, dtype=dtype) for _ in range(3))
    expected = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    with Captured() as captured:
        found = F.scaled_dot_product_attention(q, k, v)
    assert found.dtype == dtype
    assert captured.seen[0].dtype == torch.float32
    assert close(found.double(), expected, rtol=4 * torch.finfo(dtype).eps)
    assert close(captured.seen[0].sum(-1), torch.ones(2, 4, 5), rtol=1e-6)


def test_autocast():
    q, k, v = (numbers(2, 4, 5, 8, dtype=torch.float32) for _ in range(3))
    with torch.autocast("cpu", torch.bfloat16):
        expected = F.scaled_dot_product_attention(q, k, v)
        with Captured() as captured:
            found = F.scaled_dot_product_attention(q, k, v)
    assert found.dtype == expected.dtype == torch.bfloat16
    assert close(found.float(), expected.float(), rtol=0.02)
    assert captured.seen[0].dtype == torch.float32


# Nothing is left


def test_afterwards_nothing_is_captured_and_the_surroundings_are_the_same():
    layer, x = nn.MultiheadAttention(8, 2).double().eval(), numbers(4, 2, 8)
    before = surroundings()
    captured = Captured()

    def fail():
        with captured:
            layer(x, x, x)
            F.scaled_dot_product_attention(x, x[..., :1], x)

    with pytest.raises(RuntimeError):
        fail()
    layer(x, x, x)
    assert len(captured.seen) == 1
    unchanged(before, surroundings())


def test_a_thread_sees_only_its_own_attention():
    barrier, found = Barrier(2), {}

    def work(name, n):
        x = torch.ones(1, 1, n, 4)
        with Captured() as captured:
            for _ in range(20):
                barrier.wait(10)
                F.scaled_dot_product_attention(x, x, x)
        found[name] = {tuple(p.shape) for p in captured.seen}, len(captured.seen)

    threads = [Thread(target=work, args=pair) for pair in (("a", 3), ("b", 5))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == {"a": ({(1, 1, 3, 3)}, 20), "b": ({(1, 1, 5, 5)}, 20)}


# Gradients


def test_gradient_by_one_attention_in_closed_form():
    # y_t = Σ_ij W_tij (P V)_ij, so ∂y_t/∂P_ij = W_ti · V_j.
    q, k, v, w = numbers(2, 3, 4, 6), numbers(2, 3, 5, 6), numbers(2, 3, 5, 6), numbers(2, 7, 3, 4, 6)
    with Captured() as captured:
        y = torch.einsum("bthqd,bhqd->bt", w, F.scaled_dot_product_attention(q, k, v))
    rows = numbers(2, 2, 7)
    (found,) = (g for (g,) in attention_gradients(y, captured.seen, rows))
    assert close(found, torch.einsum("brt,bthqd,bhkd->brhqk", rows, w, v))


class Opaque(torch.autograd.Function):
    """Has no batching rule."""

    @staticmethod
    def forward(context, x):
        return x * 2

    @staticmethod
    def backward(context, gradient):
        return gradient * 2


def two_layers(x, between=lambda x: x):
    for _ in range(2):
        x = between(torch.tanh(x + F.scaled_dot_product_attention(x, x, x)))
    return x.mean((1, 2))


@pytest.mark.parametrize("memory", [1, 2 * 4 * 2 * 2 * 1 * 5 * 5 * 8, 2**30])
@pytest.mark.parametrize("between", [lambda x: x, Opaque.apply])
def test_all_rows_at_once_are_one_backward_each(memory, between, monkeypatch, caplog):
    monkeypatch.setattr(gradients, "MEMORY", memory)
    x, rows = numbers(2, 1, 5, 6), numbers(2, 3, 6)
    with Captured() as captured:
        y = two_layers(x, between)
    with caplog.at_level(logging.INFO):
        parts = list(attention_gradients(y, captured.seen, rows))
    assert len(parts) == {1: 3, 2**30: 1}.get(memory, 2)
    assert ("row by row" in caplog.text) == (between is Opaque.apply and memory > 1)
    found = [torch.cat(each, 1) for each in zip(*parts, strict=True)]
    for r in range(3):
        expected = torch.autograd.grad((y * rows[:, r]).sum(), captured.seen, retain_graph=True)
        for g, e in zip(found, expected, strict=True):
            assert close(g[:, r], e)


def test_only_what_scores_depend_on():
    x = numbers(1, 2, 4, 6)
    with Captured() as captured:
        F.scaled_dot_product_attention(x, x, x)
        y = F.scaled_dot_product_attention(x, x, x).sum((1, 2))
        F.scaled_dot_product_attention(x, x, x)
        assert depending(y, captured.seen) == [1]
        assert depending(y.detach(), captured.seen) == []
    found = [g for (g,) in attention_gradients(y.detach(), captured.seen[1:2], numbers(1, 2, 6))]
    assert found[0].shape == (1, 2, 2, 4, 4)
    assert not found[0].any()


def test_without_a_graph_there_is_none():
    x = numbers(1, 2, 4, 6)
    with torch.no_grad(), Captured() as captured:
        F.scaled_dot_product_attention(x, x, x)
    assert not captured.seen[0].requires_grad
