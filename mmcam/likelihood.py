"""The score of a word: its log-probability, differentiated in closed form."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


class _WordLogProbability(torch.autograd.Function):
    """y = log softmax(W h + b)[word], with ∂y/∂h computed once in the forward.

    Every word's score depends on its own state h alone. Autograd would carry the T cotangents of a caption through the
    vocabulary one by one (T·T·V numbers); with the closed form ∂y/∂h = W[word] - p·W the backward is one product of
    T·T·d numbers, and vmap can batch it.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(states: Tensor, weight: Tensor, bias: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        logits = torch.nn.functional.linear(states, weight, bias)
        logs = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
        scores = logs.gather(-1, words[..., None])
        expected = logs.exp_().to(weight.dtype) @ weight  # (b, t, d)
        return scores.squeeze(-1), weight[words] - expected

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:  # noqa: ANN401
        ctx.save_for_backward(output[1])
        ctx.mark_non_differentiable(output[1])
        ctx.dtype = inputs[0].dtype

    @staticmethod
    def backward(ctx: Any, scores: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        (jacobian,) = ctx.saved_tensors
        return (scores[..., None] * jacobian).to(ctx.dtype), None, None, None


def word_log_probability(
    states: Float[Tensor, "b t d"], weight: Float[Tensor, "v d"], bias: Float[Tensor, " v"], words: Int[Tensor, "b t"]
) -> Float[Tensor, "b t"]:
    """Compute log softmax(W h + b) at one word a state, differentiably in the states (once, and not in W and b).

    Args:
        states: h, one a word.
        weight: W.
        bias: b.
        words: Which word's log-probability.

    Returns:
        The log-probabilities, in float32 at least.
    """
    scores, _ = _WordLogProbability.apply(states, weight.detach(), bias.detach(), words)
    return scores


def word_logit_difference(
    states: Float[Tensor, "b t d"],
    weight: Float[Tensor, "v d"],
    bias: Float[Tensor, " v"],
    words: Int[Tensor, "b t"],
    foils: Int[Tensor, "b t"],
) -> Float[Tensor, "b t"]:
    """Compute how much more likely a word is than another: log p(word) - log p(foil), in which the softmax cancels.

    Args:
        states: h, one a word.
        weight: W.
        bias: b.
        words: The words explained.
        foils: The words they are held against.

    Returns:
        The differences.
    """
    return torch.einsum("btd,btd->bt", states, weight[words] - weight[foils]) + bias[words] - bias[foils]
