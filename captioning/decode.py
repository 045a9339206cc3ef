"""Let a captioner speak: greedy and beam search, for all pictures of a batch together."""

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmcam.errors import UserError
from mmcam.text import END, PAD, START, UNKNOWN, Vocabulary

State = tuple[Tensor, ...]
"""What a decoder remembers between words; first axis b."""


@runtime_checkable
class Speaks(Protocol):
    """What the search needs of a captioner, see `captioning.captioner.Captioner`."""

    vocabulary: Vocabulary
    readout: Any

    def start(self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any]) -> State:
        """What it knows before the first word."""
        ...

    def step(
        self, state: tuple[Tensor, ...], word: Int[Tensor, " b"]
    ) -> tuple[tuple[Tensor, ...], Float[Tensor, "b d"]]:
        """Hear a word."""
        ...


@torch.no_grad()
def decode(
    model: Speaks, activations: Float[Tensor, "b k h w"], memo: dict[str, Any], beam: int = 1, length: int = 16
) -> list[list[int]]:
    """Find the most probable caption of each picture.

    Args:
        model: The captioner.
        activations: A.
        memo: What crosses the cut besides A.
        beam: How many hypotheses are kept; 1 is greedy.
        length: Most words of a caption.

    Returns:
        For each picture the numbers of its words, without start and end marks. Hypotheses are compared by their mean
        log-probability a word, the end mark included, which must follow the last word that `length` allows.

    Raises:
        UserError: There is no hypothesis to keep, or the length is negative.
    """
    if beam < 1 or length < 0:
        raise UserError(f"expected a beam of 1 at least and a length of 0 at least, got {beam} and {length}")
    b, words = len(activations), model.vocabulary
    forbidden = torch.tensor(words.encode([PAD, START, UNKNOWN]), device=activations.device)
    end = words.encode([END])[0]
    state = tuple(part.repeat_interleave(beam, 0) for part in model.start(activations, memo))
    heard = torch.full((b * beam,), words.encode([START])[0], device=activations.device)
    said = heard.new_zeros(b, beam, 0)
    # At first all hypotheses of a picture are equal: only one of them may go on.
    total = torch.full((b, beam), -torch.inf, device=activations.device)
    total[:, 0] = 0
    over = torch.zeros(b, beam, dtype=torch.bool, device=activations.device)
    steps = torch.zeros(b, beam, device=activations.device)
    for t in range(length + 1):
        state, out = model.step(state, heard)
        scores = model.readout(out).float().log_softmax(1).view(b, beam, -1)
        scores[..., forbidden] = -torch.inf
        if t == length:
            scores[..., :end] = scores[..., end + 1 :] = -torch.inf
        scores = torch.where(over[..., None], torch.full_like(scores, -torch.inf), scores)
        scores[..., end] = torch.where(over, 0.0, scores[..., end])  # a finished hypothesis waits, at no cost
        candidates = total[..., None] + scores
        ranks = candidates / (steps + (~over).float()).clamp(min=1)[..., None]
        choice = ranks.flatten(1).topk(beam, 1).indices  # (b, beam)
        source, word = choice // scores.shape[2], choice % scores.shape[2]
        total = candidates.flatten(1).gather(1, choice)
        steps = (steps + (~over).float()).gather(1, source)
        over = over.gather(1, source) | (word == end)
        said = torch.cat([said.gather(1, source[..., None].expand_as(said)), word[..., None]], 2)
        if bool(over.all()):
            break
        rows = (source + beam * torch.arange(b, device=source.device)[:, None]).flatten()
        state = tuple(part[rows] for part in state)
        heard = word.flatten()
    best = (total / steps.clamp(min=1)).argmax(1)
    captions = said[torch.arange(b), best].tolist()
    return [caption[: caption.index(end)] for caption in captions]
