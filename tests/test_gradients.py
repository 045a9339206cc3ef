from collections import Counter
from contextlib import nullcontext
from math import ceil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._C import _functorch
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import gelu, layer_norm
from torch.utils._python_dispatch import TorchDispatchMode

from mmcam import gradients
from mmcam.gradients import channel_weights, full_gradients
from tests.reference import (
    CHANNELS,
    TASKS,
    WAYS,
    close,
    devices,
    differences,
    loop,
    make,
    pictures,
    ragged,
    unchecked,
    untouched,
)


def way(how):
    return getattr(gradients, how)


def head_of(task, batch, targets):
    """Activations, head and rows."""
    targets = targets.to(task.device)
    with torch.no_grad():
        activations = task.trunk(batch)

    def head(x, index):
        return task.scores(x, batch.take(index), targets.take(index))

    return activations, head, targets.rows.double()


def prepared(name, lengths=(3, 1, 4, 2), device="cpu"):
    return head_of(make(name, device), pictures(len(lengths), device), ragged(lengths))


@pytest.fixture
def backwards(monkeypatch):
    """The calls of `torch.autograd.grad`: for each, how many rows it was asked for at once."""
    calls, original = [], torch.autograd.grad

    def counted(outputs, inputs, cotangents, **rest):
        batched = _functorch.is_batchedtensor(cotangents)
        calls.append(len(_functorch.get_unwrapped(cotangents)) if batched else None)
        return original(outputs, inputs, cotangents, **rest)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    return calls


class Item(Function):
    """3 x, whose backward looks at a number: no vmap can do that."""

    @staticmethod
    def forward(ctx, x):
        return 3 * x

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return gradient * (3 if gradient.sum().item() < 1e9 else 0)


class Broken(Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("this layer has no backward")


class Refusing(Function):
    """What cuDNN's recurrent kernels do in eval mode."""

    @staticmethod
    def forward(ctx, x):
        ctx.cudnn = torch.backends.cudnn.enabled
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        if ctx.cudnn:
            raise RuntimeError("cudnn RNN backward can only be called in training mode")
        return 2 * gradient


# The same numbers whichever way, and the numbers are right


@devices
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("name", TASKS)
def test_each_way_is_one_forward_and_one_backward_a_word(name, how, device):
    task, batch, targets = make(name, device), pictures(4, device), ragged()
    activations, head, rows = head_of(task, batch, targets)
    y, weights = channel_weights(head, activations, rows, way(how))
    _, full = full_gradients(head, activations, rows, way(how))
    for i, (scores, alphas, _) in enumerate(loop(task, batch, targets)):
        r = len(scores)
        assert close(y[i, :r].cpu(), scores)
        assert close(weights[i, :r].cpu(), alphas)
        assert close(full[i, :r].mean((-2, -1)).cpu(), alphas)
        assert not weights[i, r:].any()
        assert not full[i, r:].any()


@devices
@pytest.mark.parametrize("name", TASKS)
def test_the_probe_agrees_with_finite_differences(name, device):
    task, batch, targets = make(name, device), pictures(3, device), ragged((2, 3, 1)).to(device)
    activations, head, rows = head_of(task, batch, targets)
    _, weights = channel_weights(head, activations, rows, gradients.batched)
    assert close(weights * activations.shape[2:].numel(), differences(task, batch, targets), rtol=1e-6)


@pytest.mark.parametrize("how", WAYS)
def test_a_gradient_by_hand(how):
    # y_0 = a² + 3b, y_1 = a·b + c at A = [[1, 2], [3, 4]] as a, b, c, d; rows y_0, y_1 and y_0 - 2 y_1.
    activations = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]], dtype=torch.float64)

    def head(x, index):
        a, b, c, _ = x.flatten(1).unbind(1)
        return torch.stack([a**2 + 3 * b, a * b + c], 1)

    rows = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, -2.0]]], dtype=torch.float64)
    y, full = full_gradients(head, activations, rows, way(how))
    assert y.tolist() == [[7.0, 5.0]]
    assert full[0, :, 0].tolist() == [[[2, 3], [0, 0]], [[2, 1], [1, 0]], [[-2, 1], [-2, 0]]]
    _, weights = channel_weights(head, activations, rows, way(how))
    assert weights[0, :, 0].tolist() == [5 / 4, 4 / 4, -3 / 4]


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31), factors=st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)))
def test_gradients_are_linear_in_the_rows(seed, factors):
    activations, head, _ = prepared("convolved", (2, 2))
    random = torch.Generator().manual_seed(seed)
    one, two = torch.randn(2, 2, 3, 2, dtype=torch.float64, generator=random)
    mixed = factors[0] * one + factors[1] * two
    for vjp in (gradients.batched, gradients.replicated):
        parts = [channel_weights(head, activations, rows, vjp)[1] for rows in (one, two, mixed)]
        assert torch.allclose(parts[2], factors[0] * parts[0] + factors[1] * parts[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("how", WAYS)
def test_scaling_the_score_scales_its_gradient(how):
    activations, head, rows = prepared("attention")
    _, weights = channel_weights(head, activations, rows, way(how))
    _, scaled = channel_weights(lambda x, index: -7 * head(x, index), activations, rows, way(how))
    assert close(scaled, -7 * weights, rtol=1e-13)


@pytest.mark.parametrize("how", WAYS)
def test_scaling_the_activations_of_a_linear_head_changes_no_weight(how):
    activations, head, rows = prepared("classifier")
    assert close(
        channel_weights(head, 5 * activations, rows, way(how))[1], channel_weights(head, activations, rows, way(how))[1]
    )


# What it costs


def test_batched_runs_the_head_once_and_one_backward(backwards):
    for name in TASKS:
        activations, head, rows = prepared(name)
        calls = []
        channel_weights(lambda x, index: calls.append(0) or head(x, index), activations, rows, gradients.batched)  # noqa: B023
        assert len(calls) == 1
        assert backwards == [4], name  # not [4, None, None, None, None], which is what falling back looks like
        backwards.clear()


def test_looped_runs_one_backward_a_row_and_replicated_one(backwards):
    activations, head, rows = prepared("plain")
    calls = []
    for vjp in (gradients.looped, gradients.replicated):
        channel_weights(lambda x, index: calls.append(len(x)) or head(x, index), activations, rows, vjp)
    assert calls == [4, 16]
    assert backwards == [None] * 5


def test_one_row_needs_no_vmap(backwards):
    activations, head, rows = prepared("plain")
    channel_weights(head, activations, rows.sum(1, keepdim=True), gradients.batched)
    assert backwards == [None]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("name", ["convolved", "plain"])
@pytest.mark.parametrize("rows_at_once", [1, 2, 3])
def test_passes_do_not_change_the_numbers(name, how, rows_at_once, monkeypatch):
    activations, head, rows = prepared(name)
    whole = [f(head, activations, rows, way(how)) for f in (channel_weights, full_gradients)]
    monkeypatch.setattr(gradients, "MEMORY", rows_at_once * 4 * 8 * activations.numel())
    parts = [f(head, activations, rows, way(how)) for f in (channel_weights, full_gradients)]
    for (y, ours), (z, theirs) in zip(whole, parts, strict=True):
        assert close(y, z, rtol=1e-13)
        assert close(ours, theirs, rtol=1e-13)


@pytest.mark.parametrize("differentiate", [channel_weights, full_gradients])
def test_a_pass_holds_no_more_rows_than_fit(differentiate, monkeypatch, backwards):
    # What counts is A, also where only the probe is differentiated: its gradient passes through ∂y/∂A.
    activations, head, rows = prepared("classifier", (5, 4))
    monkeypatch.setattr(gradients, "MEMORY", 2 * 4 * 8 * activations.numel())
    differentiate(head, activations, rows, gradients.batched)
    assert backwards == [2, 2, 1]
    sizes = []
    differentiate(lambda x, index: sizes.append(len(x)) or head(x, index), activations, rows, gradients.replicated)
    assert sizes == [4, 4, 2]
    assert len(sizes) == ceil(5 / 2)


def test_a_pass_holds_one_row_at_least(monkeypatch, backwards):
    activations, head, rows = prepared("classifier")
    monkeypatch.setattr(gradients, "MEMORY", 0)
    channel_weights(head, activations, rows, gradients.batched)
    assert backwards == [1] * 4


# Heads that vmap, cuDNN or autograd do not like


def test_batched_falls_back_to_the_loop_without_a_warning(backwards):
    activations, head, rows = prepared("classifier")

    def odd(x, index):
        return Item.apply(head(x, index))

    with untouched():
        _, ours = channel_weights(odd, activations, rows, gradients.batched)
    assert backwards == [4, None, None, None, None]
    assert close(ours, channel_weights(odd, activations, rows, gradients.looped)[1])
    assert close(ours, 3 * channel_weights(head, activations, rows, gradients.looped)[1])


class Count(TorchDispatchMode):
    """How often each operation runs."""

    def __init__(self):
        super().__init__()
        self.times = Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.times[operation.overloadpacket.__name__] += 1
        return operation(*args, **(kwargs or {}))


def test_batched_loops_over_no_operation(backwards):
    activations, head, rows = prepared("classifier")

    def curved(x, index):
        return gelu(layer_norm(head(x, index).tanh().softmax(1), (4,)))

    with Count() as count:
        _, ours = channel_weights(curved, activations, rows, gradients.batched)
    assert backwards == [4]
    slopes = "tanh_backward", "_softmax_backward_data", "gelu_backward"
    assert [count.times[slope] for slope in slopes] == [1, 1, 1]
    assert close(ours, channel_weights(curved, activations, rows, gradients.looped)[1])


@pytest.mark.parametrize("enabled", [True, False])
def test_the_switch_of_vmap_is_as_it_was(enabled):
    activations, head, rows = prepared("classifier")
    before = _functorch._is_vmap_fallback_enabled()
    _functorch._set_vmap_fallback_enabled(enabled)
    try:
        for function in (head, lambda x, index: Item.apply(head(x, index))):
            channel_weights(function, activations, rows, gradients.batched)
            assert _functorch._is_vmap_fallback_enabled() == enabled
    finally:
        _functorch._set_vmap_fallback_enabled(before)


@pytest.mark.parametrize("how", WAYS)
def test_an_error_of_the_head_is_its_own(how):
    activations, head, rows = prepared("classifier")
    with untouched(), pytest.raises(RuntimeError, match="this layer has no backward"):
        channel_weights(lambda x, index: Broken.apply(head(x, index)), activations, rows, way(how))


@pytest.mark.parametrize("how", WAYS)
def test_scores_that_are_not_one_an_id_are_refused(how):
    activations, head, rows = prepared("classifier")
    with unchecked(), pytest.raises(ValueError, match=r"scores must be \(b, t\) = \(\d+, 4\).* got \(\d+, 3\)"):
        channel_weights(lambda x, index: head(x, index)[:, 1:], activations, rows, way(how))


@pytest.mark.parametrize("how", WAYS)
def test_without_cudnn_only_where_it_refuses(how, monkeypatch):
    activations, head, rows = prepared("classifier")
    monkeypatch.setattr(torch.backends.cudnn, "enabled", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    seen = []

    def refusing(x, index):
        seen.append((torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32))
        return Refusing.apply(head(x, index))

    with untouched():
        _, weights = channel_weights(refusing, activations, rows, way(how))
    assert seen == [(True, False), (False, False)]
    assert close(weights, 2 * channel_weights(head, activations, rows, way(how))[1])
    with untouched(), pytest.raises(ZeroDivisionError):  # in the second run
        channel_weights(lambda x, index: refusing(x, index) / (1 // seen[-1][0]), activations, rows, way(how))


@pytest.mark.parametrize("name", ["lstm", "gru", "answerer"])
def test_fused_kernels_on_the_cpu(name):
    # In float32 an LSTM is one operation, for which vmap has no rule; in float64 it is made of ordinary ones.
    task, batch, targets = make(name, dtype=torch.float32), pictures(dtype=torch.float32), ragged()
    activations, head, rows = head_of(task, batch, targets)
    found = [channel_weights(head, activations, rows.float(), way(how))[1] for how in WAYS]
    assert close(found[0], found[1], rtol=1e-5)
    assert close(found[2], found[1], rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("name", ["lstm", "gru", "answerer"])
def test_fused_kernels_in_eval_mode(name, how):
    # On the CPU the same module is made of ordinary operations.
    torch.manual_seed(1)
    ours = channel_weights(*prepared(name, device="cuda"), way(how))[1]
    torch.manual_seed(1)
    assert close(ours.cpu(), channel_weights(*prepared(name), gradients.looped)[1])
    assert torch.backends.cudnn.enabled


@pytest.mark.parametrize("how", WAYS)
def test_where_nothing_depends_on_the_layer_the_gradient_is_zero(how):
    activations, _, rows = prepared("classifier")
    constant = torch.randn(4, 4, dtype=torch.float64)
    weighted = constant.clone().requires_grad_()  # a graph, but not over A
    for head in (lambda x, index: constant.repeat(len(index) // 4, 1), lambda x, index: weighted[index % 4] * 2):
        y, weights = channel_weights(head, activations, rows, way(how))
        assert y.shape == (4, 4)
        assert weights.shape == (4, 4, CHANNELS)
        assert not weights.any()
        assert not full_gradients(head, activations, rows, way(how))[1].any()


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("shape", [(3, 0, 0), (3, 0, 2), (3, 2, 0), (0, 2, 2)])
def test_nothing_to_explain_runs_no_head(how, shape):
    def head(x, index):
        raise AssertionError

    activations, rows = torch.ones(shape[0], 5, 2, 3), torch.ones(shape)
    y, weights = channel_weights(head, activations, rows, way(how))
    assert y.shape == shape[::2]
    assert weights.shape == (*shape[:2], 5)
    assert full_gradients(head, activations, rows, way(how))[1].shape == (*shape[:2], 5, 2, 3)


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("differentiate", [channel_weights, full_gradients])
def test_in_place_layers_behind_the_cut_spoil_nothing(how, differentiate):
    activations, head, rows = prepared("convolved")
    copy = activations.clone()
    assert (copy < 0).any()  # so that a ReLU in place would show
    first = differentiate(head, activations, rows, way(how))[1]
    assert torch.equal(activations, copy)
    assert torch.equal(differentiate(head, activations, rows, way(how))[1], first)
    assert not activations.requires_grad
    assert activations.grad is None


# Callers


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("differentiate", [channel_weights, full_gradients])
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad, nullcontext])
def test_the_callers_grad_mode_does_not_matter(context, differentiate, how):
    activations, head, rows = prepared("convolved")
    expected = differentiate(head, activations, rows, way(how))
    with context(), untouched():
        y, found = differentiate(head, activations * 1, rows * 1, way(how))  # made in that mode
    assert torch.equal(y, expected[0])
    assert torch.equal(found, expected[1])
    assert not y.requires_grad
    assert not found.requires_grad


@devices
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_weights_are_float32_at_least(dtype, device):
    # Half a million places: the sum of their gradients is no number of float16, their mean is.
    activations = torch.rand(2, 3, 700, 700, dtype=dtype, device=device)
    rows = torch.eye(2, device=device).expand(2, 2, 2)
    _, weights = channel_weights(
        lambda x, index: torch.stack([x[:, 0, 0, 0], x[:, 1, 0, 0] * 0.5], 1), activations, rows, gradients.batched
    )
    assert weights.dtype == torch.promote_types(dtype, torch.float32)
    assert close(weights[0, :, :2].cpu().double(), torch.diag(torch.tensor([1.0, 0.5]).double()) / 700**2, rtol=1e-6)


@devices
def test_the_backward_is_outside_autocast(device):
    # The forward of a float32 sum is not rounded by autocast, so neither may its backward be.
    weight = torch.randn(5, 3, device=device)
    activations = torch.rand(2, 3, 4, 4, device=device)
    rows = torch.eye(5, device=device).expand(2, 5, 5)

    class Product(Function):
        @staticmethod
        def forward(ctx, x):
            with torch.autocast(device, enabled=False):
                return x.float() @ weight.T

        @staticmethod
        def backward(ctx, gradient):
            return gradient @ weight

    with torch.autocast(device, torch.bfloat16):
        _, weights = channel_weights(
            lambda x, index: Product.apply(x.sum((2, 3))), activations, rows, gradients.batched
        )
    assert close(weights, weight.expand(2, 5, 3), rtol=1e-6)
