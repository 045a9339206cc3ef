"""An LSTM over known words as one operation, made to be explained.

Step by step, autograd would carry every word's row of cotangents through every step, in some 25 small operations each.
But the words are given, so only the first input depends on the picture; and a word's score depends on earlier steps
alone, half of them on average. Here a row joins the backward at the last step that it depends on, and a step is one
matrix product and five small operations, for all rows together.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function


def unroll(
    first: Float[Tensor, "b g"], words: Float[Tensor, "b t g"], weight: Float[Tensor, "g e"]
) -> Float[Tensor, "b t e"]:
    """Run an LSTM from the zero state over one input and then over the words.

    Args:
        first: What the first input adds to the gates i, f, g and o (so g = 4e), with the biases.
        words: What each word adds to them.
        weight: From a state to what it adds to the next step's gates.

    Returns:
        The states after each word, differentiable in `first` alone, once.
    """
    states, _ = _Unroll.apply(first, words.detach(), weight.detach())
    return states


class _Unroll(Function):
    """The forward, which keeps what each step of the backward multiplies with.

    With c = f·c' + i·g and h = o·tanh c these are, for the gates before they are squashed, ∂c/∂i = g·i·(1 - i),
    ∂c/∂f = c'·f·(1 - f), ∂c/∂g = i·(1 - g²), ∂h/∂o = tanh c·o·(1 - o); and ∂h/∂c = o·(1 - tanh² c), ∂c/∂c' = f.
    """

    @staticmethod
    def forward(first: Tensor, words: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        weight = weight.to(first.dtype)
        before = torch.zeros_like(first[:, : weight.shape[1]])
        states, kept = [], []
        for given in (first, *words.to(first.dtype).unbind(1)):
            gates = torch.addmm(given, states[-1], weight.mT) if states else given
            i, f, g, o = gates.chunk(4, 1)
            i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
            c = f * before + i * g
            bent = c.tanh()
            states.append(o * bent)
            kept.append((i, f, g, o, before, bent))
            before = c
        i, f, g, o, before, bent = (torch.stack(parts) for parts in zip(*kept, strict=True))
        into = g * i * (1 - i), before * f * (1 - f), i * (1 - g * g), bent * o * (1 - o)
        slopes = torch.stack([*into, o * (1 - bent * bent), f], 2)  # (t + 1, b, 6, e)
        return torch.stack(states[1:], 1), slopes

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:  # noqa: ANN401
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1], inputs[2].to(inputs[0].dtype))

    @staticmethod
    def backward(ctx: Any, states: Tensor, _: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        return _Backward.apply(states, *ctx.saved_tensors), None, None


class _Backward(Function):
    """The backward as an operation of its own, so that vmap hands over all rows at once."""

    @staticmethod
    def forward(states: Tensor, slopes: Tensor, weight: Tensor) -> Tensor:
        return _carry(states[None], slopes, weight)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ANN401
        """Nothing is kept: there is no second derivative."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, None, None], states: Tensor, slopes: Tensor, weight: Tensor) -> Any:  # noqa: ANN401
        return _carry(states.movedim(in_dims[0], 0), slopes, weight), 0


def _carry(
    states: Float[Tensor, "r b t e"], slopes: Float[Tensor, "steps b 6 e"], weight: Float[Tensor, "g e"]
) -> Float[Tensor, "r b g"]:
    """Carry rows of ∂y/∂(states) back to the gates of the first step."""
    r, _, t, _ = states.shape
    counts, order = [r] * (t + 1), None
    if not states.is_cuda:  # a GPU would wait longer for the numbers than it saves
        steps = torch.arange(1, t + 1)
        last = (states.ne(0).any(3).any(1) * steps).amax(1)  # of each row: the last word that its score depends on
        order = last.argsort(descending=True)
        states, counts = states[order], [r, *(last[:, None] >= steps).sum(0).tolist()]
    dh, dc = torch.zeros_like(states[:, :, 0]), torch.zeros_like(states[:, :, 0])
    for step in range(t, 0, -1):
        n = counts[step]  # rows in descending order of their last word: the first n have joined
        gates, d = _into_gates(dh[:n] + states[:n, :, step - 1], dc[:n], slopes[step])
        dc[:n] = d * slopes[step, :, 5]
        dh[:n] = gates @ weight
    gates, _ = _into_gates(dh, dc, slopes[0])
    return gates if order is None else torch.empty_like(gates).index_copy_(0, order, gates)


def _into_gates(dh: Tensor, dc: Tensor, slopes: Float[Tensor, "b 6 e"]) -> tuple[Tensor, Tensor]:
    """From a step's state and cell into its gates; and into its cell from both."""
    dc = torch.addcmul(dc, dh, slopes[:, 4])
    return torch.cat([(dc[:, :, None] * slopes[:, :3]).flatten(2), dh * slopes[:, 3]], 2), dc
