import pytest
import torch

from captioning.models import AttendAndTell, ShowAndTell
from captioning.unrolled import unroll
from mmcam.gradients import batched, looped, replicated

B, T, E = 3, 5, 4


@pytest.fixture
def lstm():
    """Inputs' shares of the gates and the recurrent weight, in float64."""
    return torch.randn(B, 4 * E).double(), torch.randn(B, T, 4 * E).double(), torch.randn(4 * E, E).double()


def reference(first, words, weight):
    """torch's own LSTM, whose input is the gates' shares themselves."""
    lstm = torch.nn.LSTM(4 * E, E, bias=False, batch_first=True).double()
    with torch.no_grad():
        lstm.weight_ih_l0.copy_(torch.eye(4 * E))
        lstm.weight_hh_l0.copy_(weight)
    return lstm(torch.cat([first[:, None], words], 1))[0][:, 1:]


def gradients(function, lstm, rows, vjp):
    """Of rows of a score a word, with respect to the first input."""
    first, words, weight = lstm
    score = torch.randn(E, generator=torch.manual_seed(1)).double()
    return vjp(lambda x, index: function(x, words[index], weight).tanh() @ score, first, rows)


def test_the_states_are_torch_s(lstm):
    torch.testing.assert_close(unroll(*lstm), reference(*lstm))


def test_the_gradient_is_right(lstm):
    first, words, weight = lstm
    assert torch.autograd.gradcheck(lambda x: unroll(x, words, weight), first.requires_grad_())


@pytest.mark.parametrize("vjp", [batched, looped, replicated])
@pytest.mark.parametrize(
    "rows",
    [
        torch.eye(T),
        torch.eye(T)[[3, 0, 4]],  # in any order
        torch.tensor([[0.0, 1, 1, 0, 0], [0, 0, 0, 0, -2], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]),  # phrases, nothing, all
        torch.zeros(2, T),
        torch.ones(1, T),
    ],
)
def test_rows_of_any_reach(lstm, rows, vjp):
    rows = rows.double().expand(B, -1, -1).clone()
    rows[1] = rows[1].flip(0)  # the pictures' rows differ in reach
    scores, ours = gradients(unroll, lstm, rows, vjp)
    truth, theirs = gradients(reference, lstm, rows, looped)
    torch.testing.assert_close(scores, truth)
    torch.testing.assert_close(ours, theirs)


def test_one_vectorised_backward(lstm, caplog):
    caplog.set_level("INFO")
    gradients(unroll, lstm, torch.eye(T).double().expand(B, -1, -1), batched)
    assert not caplog.records  # no falling back to the loop


@pytest.mark.parametrize("captions", [1, 2])
@pytest.mark.parametrize("kind", [ShowAndTell, AttendAndTell])
def test_the_explained_states_are_the_states(kind, captions):
    model = kind([f"w{i}" for i in range(7)]).double().eval()
    activations = torch.rand(2, model.backbone.channels, 6, 6).double()
    words = torch.randint(0, 11, (2 * captions, T))
    states = model.states(activations, {}, words)
    torch.testing.assert_close(model.explainable_states(activations, {}, words), states)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast(dtype):
    model = ShowAndTell([f"w{i}" for i in range(7)]).to(dtype).eval()
    activations = torch.rand(2, model.backbone.channels, 6, 6).to(dtype).requires_grad_()
    words = torch.randint(0, 11, (2, T))
    with torch.autocast("cpu", torch.bfloat16):
        states = model.explainable_states(activations, {}, words)
        expected = model.states(activations, {}, words)
    torch.testing.assert_close(states, expected, rtol=0.05, atol=0.02)
    ours, theirs = (torch.autograd.grad(x.float().sum(), activations)[0].float() for x in (states, expected))
    assert torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), 0) > 0.999
