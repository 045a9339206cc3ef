"""Decoding as the peers do: hypotheses are compared by the sum of their log-probabilities, finished ones set aside."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from captioning.captioner import Captioner, State
from mmcam.errors import UserError
from mmcam.text import END, START, UNKNOWN

__all__ = ["UNWANTED", "search"]

UNWANTED = 1000.0
"""Taken off the unknown word's log-probability, as ruotianluo's beam search does (`suppress_UNK`)."""


@torch.no_grad()
def search(
    model: Captioner,
    activations: Float[Tensor, "b k h w"],
    memo: dict[str, Any],
    beam: int,
    length: int,
    narrowing: bool = False,
) -> list[list[int]]:
    """Find a good caption of each picture.

    Args:
        model: The captioner.
        activations: A.
        memo: What crosses the cut besides A.
        beam: How many hypotheses are kept; 1 is greedy.
        length: Most words of a caption; no end mark need follow.
        narrowing: Keep one hypothesis less for each that has ended, and prefer those that have, as sgrvinod's
            `caption.py` does. Otherwise the unknown word is shunned where several are kept, and hypotheses that are
            cut off count like those that have ended, as in ruotianluo's.

    Returns:
        For each picture the numbers of its words, without start and end marks.

    Raises:
        UserError: There is no hypothesis to keep, or the length is negative.
    """
    if beam < 1 or length < 0:
        raise UserError(f"expected a beam of 1 at least and a length of 0 at least, got {beam} and {length}")
    state = model.start(activations, memo)
    return [
        _caption(model, tuple(part[i : i + 1] for part in state), beam, length, narrowing)
        for i in range(len(activations))
    ]


def _caption(model: Captioner, state: State, beam: int, length: int, narrowing: bool) -> list[int]:
    start, end, unknown = model.vocabulary.encode([START, END, UNKNOWN])
    device = state[0].device
    width, total = beam, torch.zeros(1, device=device)
    heard, said = torch.tensor([start], device=device), [[]]
    ended: list[tuple[float, list[int]]] = []
    for _ in range(length):
        state, out = model.step(state, heard)
        scores = model.readout(out).float().log_softmax(1)
        if beam > 1 and not narrowing:
            scores[:, unknown] -= UNWANTED
        best, flat = (total[:, None] + scores).flatten().topk(width)
        source, word = flat // scores.shape[1], flat % scores.shape[1]
        over = word == end
        ended += [(float(best[j]), said[source[j]]) for j in over.nonzero().flatten().tolist()]
        if bool(over.all()):
            said = []
            break
        rows = source[~over]
        said = [[*said[i], w] for i, w in zip(rows.tolist(), word[~over].tolist(), strict=True)]
        state, heard, total = tuple(part[rows] for part in state), word[~over], best[~over]
        if narrowing:
            width -= int(over.sum())
    if not (narrowing and ended):
        ended += zip(total.tolist(), said, strict=False)
    return max(ended, key=lambda pair: pair[0])[1]
