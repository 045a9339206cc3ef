"""The recurrent cells of peers in plain operations, which have batching rules."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from captioning.captioner import LSTMStep

__all__ = ["CELLS", "MaxoutStep", "maxout_step"]

Pair = tuple[Float[Tensor, "b e"], Float[Tensor, "b e"]]


def maxout_step(sums: Float[Tensor, "b g"], candidates: Float[Tensor, "b f"], c: Float[Tensor, "b e"]) -> Pair:
    """Close the step of an LSTM whose candidate is the larger of two sums, without tanh: ruotianluo's.

    Args:
        sums: For the gates i, f and o, one after the other.
        candidates: Two for each number of the cell.
        c: The cell before.

    Returns:
        The state and the cell.
    """
    i, f, o = sums.sigmoid().chunk(3, 1)
    one, other = candidates.chunk(2, 1)
    c = f * c + i * torch.maximum(one, other)
    return o * c.tanh(), c


class MaxoutStep(nn.Module):
    """One step of that LSTM, with the peer's names."""

    def __init__(self, embedding: int, hidden: int) -> None:
        super().__init__()
        self.i2h, self.h2h = nn.Linear(embedding, 5 * hidden), nn.Linear(hidden, 5 * hidden)
        self.hidden_size = hidden

    def forward(self, x: Float[Tensor, "b d"], state: Pair) -> Pair:
        """Go one step: (h, c) → (h, c)."""
        sums, candidates = (self.i2h(x) + self.h2h(state[0])).split([3 * self.hidden_size, 2 * self.hidden_size], 1)
        return maxout_step(sums, candidates, state[1])


CELLS = {"lstm": LSTMStep, "maxout": MaxoutStep}
