"""The papers' formulas by hand for two tokens, and held against loops over single numbers."""

import pytest
import torch

from mmcam.methods.attention.maths import (
    cross_attention_rule,
    gradient_times_attention,
    mean_positive_gradient,
    normalised,
    relevance,
    rollout,
    self_attention_rule,
)
from tests.reference import close


def matrix(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def probabilities(*shape):
    return torch.randn(*shape, dtype=torch.float64).softmax(-1)


def numbers(*shape):
    return torch.randn(*shape, dtype=torch.float64)


# By hand


def test_gradient_times_attention_by_hand():
    attention = torch.stack([matrix([0.5, 0.5], [0.2, 0.8]), matrix([1, 0], [0.4, 0.6])])[None]
    gradients = torch.stack([matrix([2, -2], [5, 0]), matrix([-1, 9], [10, 1])])[None, None]
    # (½·2 + 0)/2, (0 + 0)/2; (0.2·5 + 0.4·10)/2, (0 + 0.6·1)/2
    assert close(gradient_times_attention(attention, gradients)[0, 0], matrix([0.5, 0], [2.5, 0.3]))


def test_mean_positive_gradient_by_hand():
    gradients = torch.stack([matrix([1, -2], [3, 4]), matrix([-1, 0], [2, 6])])[None, None]
    assert close(mean_positive_gradient(gradients)[0, 0], torch.tensor([6 / 4, 10 / 4], dtype=torch.float64))


def test_rollout_by_hand():
    first, second = matrix([0, 1], [1, 0]), matrix([1, 0], [1, 0])
    # ½ (first + I) = [½ ½; ½ ½], ½ (second + I) = [1 0; ½ ½]
    assert close(rollout([first[None, None], second[None, None]])[0], matrix([0.5, 0.5], [0.5, 0.5]))
    # the mean of the two heads is [½ ½; 1 0], with I half each [¾ ¼; ½ ½]
    assert close(rollout([torch.stack([first, second])[None]])[0], matrix([0.75, 0.25], [0.5, 0.5]))


def test_relevance_by_hand():
    one = matrix([0.5, 0.5], [0, 1])[None, None]
    gradients = [matrix([2, 2], [7, -1])[None, None, None], matrix([0, 4], [1, 1])[None, None, None]]
    # P̄₁ = [1 1; 0 0], R = [2 1; 0 1]; P̄₂ = [0 2; 0 1], R + P̄₂R = [2 1; 0 1] + [0 2; 0 1]
    assert close(relevance([one, one], gradients)[0, 0], matrix([2, 3], [0, 2]))


def test_normalised_by_hand():
    assert close(normalised(matrix([2, 3], [0, 1])[None, None])[0, 0], matrix([1.25, 0.75], [0, 1]))


def test_rules_by_hand():
    own, others = matrix([2, 3], [0, 1])[None, None], matrix([1, 1], [0, 1])[None, None]
    across, mixed = matrix([1, 0], [0, 0])[None, None], matrix([0, 4], [1, 0])[None, None]
    # R̄^ssᵀ = [1.25 0; 0.75 1], R̄^qq = [1 1; 0 1]; R̄^ssᵀ P̄ = [0 5; 1 3], times R̄^qq = [0 5; 1 4]
    new, found = cross_attention_rule(mixed, own, others, across)
    assert close(found[0, 0], matrix([1, 5], [1, 4]))
    assert torch.equal(new, own)
    back = matrix([0, 0], [1, 2])[None, None]
    assert close(cross_attention_rule(mixed, own, others, across, back)[0][0, 0], matrix([6, 11], [0, 1]))
    own, across = self_attention_rule(mixed, own, across)
    assert close(own[0, 0], matrix([2, 7], [2, 4]))
    assert close(across[0, 0], matrix([1, 0], [1, 0]))


# Against loops


def product(left, right):
    n, m, p = len(left), len(right), len(right[0])
    return [[sum(left[i][k] * right[k][j] for k in range(m)) for j in range(p)] for i in range(n)]


def identity(n):
    return [[float(i == j) for j in range(n)] for i in range(n)]


def plus(left, right):
    return [[x + y for x, y in zip(*rows, strict=True)] for rows in zip(left, right, strict=True)]


def weighted_heads(p, g):
    heads, q, k = p.shape
    return [
        [sum(max(0.0, float(p[h, i, j] * g[h, i, j])) for h in range(heads)) / heads for j in range(k)]
        for i in range(q)
    ]


def bar(r):
    n = len(r)
    rest = [[r[i][j] - (i == j) for j in range(n)] for i in range(n)]
    return [[rest[i][j] / (sum(rest[i]) or 1) + (i == j) for j in range(n)] for i in range(n)]


def test_rollout_is_the_loop():
    attentions = [probabilities(2, 3, 4, 4) for _ in range(3)]
    for i in range(2):
        total = identity(4)
        for p in attentions:
            mean = [[float(p[i, :, q, k].sum()) / 3 for k in range(4)] for q in range(4)]
            total = product([[x / 2 for x in row] for row in plus(mean, identity(4))], total)
        assert close(rollout(attentions)[i], matrix(*total))


def test_relevance_is_the_loop():
    attentions = [probabilities(2, 3, 4, 4) for _ in range(3)]
    gradients = [numbers(2, 5, 3, 4, 4) for _ in range(3)]
    found = relevance(attentions, gradients)
    for i in range(2):
        for r in range(5):
            total = identity(4)
            for p, g in zip(attentions, gradients, strict=True):
                total = plus(total, product(weighted_heads(p[i], g[i, r]), total))
            assert close(found[i, r], matrix(*total))


def test_two_kinds_of_tokens_are_the_loop():
    s, q = 3, 4
    shapes = {"ss": (s, s), "qq": (q, q), "sq": (s, q), "qs": (q, s)}
    layers = [(kind, probabilities(2, 2, *shapes[kind]), numbers(2, 2, 2, *shapes[kind])) for kind in 2 * tuple(shapes)]
    eyes = [torch.eye(n, dtype=torch.float64).expand(2, 2, n, n) for n in (s, q)]
    found = {
        "ss": eyes[0],
        "qq": eyes[1],
        "sq": torch.zeros(2, 2, s, q).double(),
        "qs": torch.zeros(2, 2, q, s).double(),
    }
    for kind, p, g in layers:
        mixed, a, b = gradient_times_attention(p, g), *kind
        if a == b:
            other = a + ("q" if a == "s" else "s")
            found[kind], found[other] = self_attention_rule(mixed, found[kind], found[other])
        else:
            found[a + a], found[kind] = cross_attention_rule(
                mixed, found[a + a], found[b + b], found[kind], found[b + a]
            )
    for i in range(2):
        for r in range(2):
            expected = {"ss": identity(s), "qq": identity(q), "sq": [[0.0] * q] * s, "qs": [[0.0] * s] * q}
            for kind, p, g in layers:
                mixed, (a, b) = weighted_heads(p[i], g[i, r]), kind
                if a == b:
                    other = a + ("q" if a == "s" else "s")
                    for name in (kind, other):
                        expected[name] = plus(expected[name], product(mixed, expected[name]))
                else:
                    left = [list(column) for column in zip(*bar(expected[a + a]), strict=True)]
                    addition = product(product(left, mixed), bar(expected[b + b]))
                    own = product(mixed, expected[b + a])
                    expected[kind] = plus(expected[kind], addition)
                    expected[a + a] = plus(expected[a + a], own)
            for kind in shapes:
                assert close(found[kind][i, r], matrix(*expected[kind]))


# Identities


@pytest.mark.parametrize("layers", [1, 2, 7])
def test_rollout_of_uniform_attention(layers):
    uniform = torch.full((1, 2, 5, 5), 0.2, dtype=torch.float64)
    # ½ U + ½ I, L times: what is left of the residual connection is 2⁻ᴸ, the rest is uniform.
    eye = torch.eye(5, dtype=torch.float64)
    assert close(rollout([uniform] * layers)[0], (1 - 0.5**layers) * 0.2 + 0.5**layers * eye)


def test_rollout_keeps_probabilities_and_causality():
    causal = numbers(2, 3, 6, 6).masked_fill(~torch.ones(6, 6).bool().tril(), -torch.inf).softmax(-1)
    found = rollout([causal, causal.flip(1), causal[[1, 0]]])
    assert close(found.sum(-1), torch.ones(2, 6, dtype=torch.float64))
    assert torch.equal(found, found.tril())
    assert close(found[:, 0, 0], torch.ones(2, dtype=torch.float64))


def test_relevance_of_tokens_that_look_at_themselves():
    eye = torch.eye(4, dtype=torch.float64).expand(1, 2, 4, 4)
    ones = torch.ones(1, 3, 2, 4, 4, dtype=torch.float64)
    assert close(relevance([eye] * 3, [ones] * 3), 8 * eye[:, :1].expand(1, 3, 4, 4))


def test_relevance_of_what_only_speaks_against_is_the_identity():
    p, g = probabilities(1, 2, 4, 4), -numbers(1, 2, 2, 4, 4).abs()
    assert torch.equal(relevance([p, p], [g, g])[0, 1], torch.eye(4, dtype=torch.float64))


def test_a_word_that_nothing_is_relevant_for_is_never_nan():
    eye = torch.eye(3, dtype=torch.float64)[None, None]
    mixed = probabilities(1, 1, 3, 3)
    assert torch.equal(normalised(eye), eye)
    assert close(cross_attention_rule(mixed, eye, eye, torch.zeros_like(eye))[1], mixed)


def test_heads_have_no_order():
    p, g = probabilities(2, 4, 3, 5), numbers(2, 2, 4, 3, 5)
    order = torch.tensor([2, 0, 3, 1])
    assert close(gradient_times_attention(p[:, order], g[:, :, order]), gradient_times_attention(p, g))
    assert close(mean_positive_gradient(g[:, :, order]), mean_positive_gradient(g))
