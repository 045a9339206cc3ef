import pytest
import torch
from torch import nn
from torch.nn.functional import log_softmax

from mmcam.likelihood import word_log_probability, word_logit_difference

B, T, D, V = 2, 3, 4, 7


@pytest.fixture
def case():
    weight, bias = torch.randn(V, D, dtype=torch.float64), torch.randn(V, dtype=torch.float64)
    states = torch.randn(B, T, D, dtype=torch.float64, requires_grad=True)
    return states, weight, bias, torch.randint(V, (B, T))


def reference(states, weight, bias, words):
    return log_softmax(states @ weight.T + bias, -1).gather(2, words[..., None])[..., 0]


def test_value_and_gradient_are_autograd_s(case):
    states, *rest = case
    ours, theirs = word_log_probability(states, *rest), reference(states, *rest)
    assert ours.dtype == torch.float64
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)
    cotangent = torch.randn(B, T, dtype=torch.float64)
    (mine,) = torch.autograd.grad(ours, states, cotangent)
    (autograd,) = torch.autograd.grad(theirs, states, cotangent)
    torch.testing.assert_close(mine, autograd, rtol=1e-12, atol=1e-13)


def test_gradient_by_finite_differences(case):
    states, *rest = case
    assert torch.autograd.gradcheck(lambda x: word_log_probability(x, *rest), states)
    assert torch.autograd.gradcheck(
        lambda x: word_logit_difference(x, *rest, rest[-1].flip(1)), states, check_batched_grad=True
    )


def test_all_cotangents_in_one_vectorised_backward(case):
    states, *rest = case
    cotangents = torch.randn(5, B, T, dtype=torch.float64)
    scores = word_log_probability(states, *rest)
    (together,) = torch.autograd.grad(scores, states, cotangents, is_grads_batched=True, retain_graph=True)
    singly = [torch.autograd.grad(scores, states, cotangent, retain_graph=True)[0] for cotangent in cotangents]
    torch.testing.assert_close(together, torch.stack(singly), rtol=1e-13, atol=1e-14)


def test_by_hand():
    """Two words with p = 3/4 and 1/4: the gradient of log p(0) is W[0] - (3/4 W[0] + 1/4 W[1])."""
    states = torch.tensor([[[3.0]]], dtype=torch.float64).log().requires_grad_()
    weight, bias = torch.tensor([[1.0], [0.0]], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    score = word_log_probability(states, weight, bias, torch.tensor([[0]]))
    score.backward()
    assert score.item() == pytest.approx(torch.tensor(0.75).log().item())
    assert states.grad is not None
    assert states.grad.item() == pytest.approx(0.25)


def test_a_word_s_score_depends_on_its_own_state_only(case):
    states, *rest = case
    (gradient,) = torch.autograd.grad(word_log_probability(states, *rest)[0, 1], states)
    gradient[0, 1] = 0
    assert (gradient == 0).all()


def test_the_readout_gets_no_gradient(case):
    states, _, _, words = case
    readout = nn.Linear(D, V).double()
    word_log_probability(states, readout.weight, readout.bias, words).sum().backward()
    assert readout.weight.grad is None
    assert readout.bias.grad is None


def test_a_difference_of_log_probabilities_needs_no_softmax(case):
    states, weight, bias, words = case
    foils = words.flip(0)
    ours = word_logit_difference(states, weight, bias, words, foils)
    theirs = reference(states, weight, bias, words) - reference(states, weight, bias, foils)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)
    (gradient,) = torch.autograd.grad(ours.sum(), states)
    torch.testing.assert_close(gradient, weight[words] - weight[foils], rtol=0, atol=0)


def test_a_word_rather_than_itself_is_zero(case):
    states, weight, bias, words = case
    assert (word_logit_difference(states, weight, bias, words, words) == 0).all()


def test_half_precision_gives_scores_in_float32(case):
    states, weight, bias, words = case
    half = [tensor.detach().bfloat16() for tensor in (states, weight, bias)]
    half[0].requires_grad_()
    scores = word_log_probability(*half, words)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.double(), reference(states, weight, bias, words), rtol=0.05, atol=0.1)
    scores.sum().backward()
    assert half[0].grad is not None
    assert half[0].grad.dtype == torch.bfloat16


def test_impossible_words_do_not_overflow():
    states = torch.tensor([[[1000.0]]], requires_grad=True)
    weight, bias = torch.tensor([[1.0], [-1.0]]), torch.zeros(2)
    score = word_log_probability(states, weight, bias, torch.tensor([[1]]))
    score.backward()
    assert score.item() == -2000
    assert states.grad is not None
    assert states.grad.item() == -2
