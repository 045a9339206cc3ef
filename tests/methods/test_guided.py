import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import Function

from mmcam.errors import UserError
from mmcam.methods.guided import Rectifiers, submodules
from tests.reference import unchecked, untouched

RULES = ("plain", "guided", "deconv")
SMOOTH = {
    "relu": F.relu,
    "relu6": F.relu6,
    "gelu": F.gelu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "hardswish": F.hardswish,
    "mish": F.mish,
    "softplus": F.softplus,
    "leaky": F.leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    "celu": F.celu,
}
SPELLINGS = {
    "nn.ReLU": nn.ReLU(),
    "in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu in place": lambda x: F.relu(x, inplace=True),
    "torch.relu_": torch.relu_,
    "x.relu": lambda x: x.relu(),
    "x.relu_": lambda x: x.relu_(),
    "clamp": lambda x: x.clamp(min=0),
    "clamp_min_": lambda x: x.clamp_min_(0),
    "threshold": nn.Threshold(0.0, 0.0),
    "hardtanh": nn.Hardtanh(0.0, 1e9),
}


class Ruled(Function):
    """The papers' ReLU, written out with its masks: the reference."""

    @staticmethod
    def forward(ctx, x, rule):
        ctx.save_for_backward(x)
        ctx.rule = rule
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        masks = {"plain": x > 0, "guided": (x > 0) & (g > 0), "deconv": g > 0}
        return torch.where(masks[ctx.rule], g, torch.zeros_like(g)), None


def gradient(output, x, rule, cotangent=None):
    with Rectifiers(rule) as rectifiers:
        rectifiers.follow([output])
        return torch.autograd.grad(output, x, cotangent, retain_graph=True)[0]


@pytest.mark.parametrize(("rule", "expected"), [("plain", [0.5, 0.5]), ("guided", [1.0, 1.0]), ("deconv", [3.5, -2.5])])
def test_two_layers_by_hand(rule, expected):
    # z1 = (3, -1, 3), h1 = (3, 0, 3), z2 = (1.5, -1.5), h2 = (1.5, 0), y = h2 · (1, 2), so g comes as (1, 2).
    # plain:  at z2 (1, 0), at h1 (1, 1, -.5), at z1 (1, 0, -.5)
    # guided: at z2 (1, 0), at h1 (1, 1, -.5), at z1 (1, 0, 0)
    # deconv: at z2 (1, 2), at h1 (-1, 3, .5), at z1 (0, 3, .5)
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    h1 = (torch.tensor([[1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]) @ x).relu()
    h2 = (torch.tensor([[1.0, 1.0, -0.5], [-1.0, 1.0, 0.5]]) @ h1).relu()
    y = h2 @ torch.tensor([1.0, 2.0])
    assert gradient(y, x, rule).tolist() == expected


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_relu_one_module_in_three_places(spelling, rule):
    relu = SPELLINGS[spelling]
    first, second, third = (nn.Linear(7, 7).double() for _ in range(3))
    x = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn(5, 7, dtype=torch.float64)
    ours = relu(third(relu(second(relu(first(x))))))
    theirs = x
    for layer in (first, second, third):
        theirs = Ruled.apply(layer(theirs), rule)
    (expected,) = torch.autograd.grad(theirs, x, cotangent)
    assert torch.equal(gradient(ours, x, rule, cotangent), expected)
    assert float(expected.abs().max()) > 0


@pytest.mark.parametrize("name", SMOOTH)
def test_other_rectifiers_follow_the_stated_rule(name):
    f, step = SMOOTH[name], 1e-6
    x = torch.linspace(-7, 7, 57, dtype=torch.float64) + 0.013  # off the kinks
    slope = (f(x + step) - f(x - step)) / (2 * step)
    leaf = x.clone().requires_grad_()
    y = f(leaf)
    for sign in (1.0, -1.0):
        g = torch.full_like(x, 2 * sign)
        guided = torch.where((slope > 0) & (g > 0), slope * g, 0.0)
        assert torch.allclose(gradient(y, leaf, "plain", g), slope * g, atol=1e-8)
        assert torch.allclose(gradient(y, leaf, "guided", g), guided, atol=1e-8)
        assert torch.equal(gradient(y, leaf, "deconv", g), g.clamp(min=0))
    if name in ("gelu", "silu", "hardswish", "mish"):
        assert bool((slope < 0).any())  # two negatives do not make a positive
        assert float(gradient(y, leaf, "guided", -torch.ones_like(x)).abs().max()) == 0


@pytest.mark.parametrize("gate", [torch.sigmoid, torch.tanh, F.hardsigmoid, F.hardtanh, lambda x: x.clamp(-1, 1)])
def test_gates_keep_their_derivative(gate):
    x = torch.randn(20, dtype=torch.float64, requires_grad=True)
    g = torch.randn(20, dtype=torch.float64)
    y = gate(x)
    for rule in ("guided", "deconv"):
        assert torch.equal(gradient(y, x, rule, g), torch.autograd.grad(y, x, g, retain_graph=True)[0])


def test_prelu_learns_nothing_of_it():
    layer = nn.PReLU(4).double()
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    g = torch.randn(3, 4, dtype=torch.float64)
    y = layer(x)
    with Rectifiers("guided") as rectifiers:
        rectifiers.follow([y])
        ours, weight = torch.autograd.grad(y, (x, layer.weight), g, retain_graph=True)
    slope = torch.where(x > 0, 1.0, 0.25)
    assert torch.allclose(ours, slope * g.clamp(min=0))
    assert torch.equal(weight, torch.autograd.grad(y, layer.weight, g)[0])


def test_nan_is_not_hidden():
    x = torch.tensor([1.0, 2.0, float("nan")], requires_grad=True)
    g = torch.tensor([float("nan"), -1.0, 1.0])
    y = x.relu()
    assert torch.isnan(gradient(y, x, "deconv", g)).tolist() == [True, False, False]
    assert torch.isnan(gradient(y, x, "guided", g)).tolist() == [True, False, False]


@pytest.mark.parametrize("failing", [False, True])
def test_the_graph_is_as_it_was_afterwards(failing):
    x = torch.randn(9, requires_grad=True)
    y, g = x.relu(), torch.randn(9)
    before = torch.autograd.grad(y, x, g, retain_graph=True)[0]
    try:
        with Rectifiers("deconv") as rectifiers:
            rectifiers.follow([y])
            assert not torch.equal(torch.autograd.grad(y, x, g, retain_graph=True)[0], before)
            if failing:
                raise KeyError("in the middle")
    except KeyError:
        assert failing
    assert torch.equal(torch.autograd.grad(y, x, g)[0], before)


def test_following_twice_is_following_once():
    x = torch.randn(9, requires_grad=True)
    y = F.gelu(x)
    with Rectifiers("guided") as rectifiers:
        rectifiers.follow([y])
        rectifiers.follow([y, y])
        assert torch.equal(torch.autograd.grad(y.sum(), x)[0], gradient(F.gelu(x).sum(), x, "guided"))


# Inside modules


class Halves(nn.Module):
    """Two halves with rectifiers; the first one has its own functional one, and one module in both places."""

    def __init__(self):
        super().__init__()
        self.shared = nn.ReLU(inplace=True)
        self.seeing = Seeing(self.shared)
        self.saying = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(inplace=True))

    def forward(self, x):
        return self.saying(self.seeing(x))


class Seeing(nn.Module):
    def __init__(self, shared):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.shared = shared
        self.extra = None

    def forward(self, x):
        if self.extra is not None:
            self.extra()
        # The nodes below an inner module's input are the outer module's.
        return self.third(self.shared(self.second(F.relu(self.first(x)))))


def expected_halves(model, x, cotangent, rule):
    h = Ruled.apply(model.seeing.first(x), rule)
    h = model.seeing.third(Ruled.apply(model.seeing.second(h), rule))
    y = F.relu(model.saying[2](F.relu(model.saying[0](h))))
    return torch.autograd.grad(y, x, cotangent)[0]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("names", [["seeing"], ["seeing", "seeing.second", "shared"], ["seeing", "seeing"]])
def test_only_inside_named_modules(rule, names):
    model = Halves().double()
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    g = torch.randn(4, 6, dtype=torch.float64)
    with untouched(model), Rectifiers(rule) as rectifiers:
        with rectifiers.inside(submodules(model, names)):
            y = model(x)
        ours = torch.autograd.grad(y, x, g)[0]
    assert torch.equal(ours, expected_halves(model, x, g, rule))


def test_an_exception_inside_leaves_no_hook():
    model = Halves()
    model.seeing.extra = lambda: 1 / 0
    x = torch.randn(2, 6, requires_grad=True)
    modules = submodules(model, ["seeing"])
    with untouched(model), pytest.raises(ZeroDivisionError), Rectifiers("guided") as r, r.inside(modules):
        model(x)


def test_a_failure_that_the_model_survives():
    class Careful(Seeing):
        def forward(self, x):
            try:
                self.second(x[:, :2])  # of the wrong size
            except RuntimeError:
                return super().forward(x)

    model = Halves().double()
    model.seeing = Careful(model.shared).double()
    x, g = torch.randn(4, 6, dtype=torch.float64, requires_grad=True), torch.randn(4, 6, dtype=torch.float64)
    with Rectifiers("deconv") as rectifiers:
        with rectifiers.inside(submodules(model, ["seeing"])):
            y = model(x)
        assert torch.equal(torch.autograd.grad(y, x, g)[0], expected_halves(model, x, g, "deconv"))


def test_another_thread_sees_nothing_of_it():
    model = Halves().double()
    x, g = torch.randn(4, 6, dtype=torch.float64), torch.randn(4, 6, dtype=torch.float64)
    inside, done, found = threading.Event(), threading.Event(), {}

    def other():
        inside.wait(10)
        try:
            leaf = x.clone().requires_grad_()
            found["other"] = torch.autograd.grad(model(leaf), leaf, g)[0]
        finally:
            done.set()

    thread = threading.Thread(target=other)
    thread.start()
    leaf = x.clone().requires_grad_()
    with Rectifiers("guided") as rectifiers:
        with rectifiers.inside(submodules(model, ["seeing"])):
            inside.set()
            assert done.wait(10)  # the other one runs while our hooks are there
            y = model(leaf)
        mine = torch.autograd.grad(y, leaf, g)[0]
    thread.join()
    assert torch.equal(mine, expected_halves(model, leaf, g, "guided"))
    assert torch.equal(found["other"], expected_halves(model, leaf, g, "plain"))
    assert not torch.equal(mine, found["other"])


# What cannot be


def test_unknown_names():
    with unchecked():
        with pytest.raises(UserError, match=r"'guide'.*guided"):
            Rectifiers("guide")  # pyright: ignore[reportArgumentType]
        with pytest.raises(UserError, match=r"seeing\.frist.*seeing\.first"):
            submodules(Halves(), ["seeing.frist"])


def test_a_part_that_may_hide_a_rectifier_is_refused():
    x = torch.randn(3, 4, requires_grad=True)
    y = x * 2
    y[:, :2].relu_()
    with Rectifiers("guided") as rectifiers, pytest.raises(UserError, match="in-place operation on a part"):
        rectifiers.follow([y])
    with Rectifiers("plain") as rectifiers:
        rectifiers.follow([y])
