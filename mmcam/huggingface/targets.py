"""Targets out of tokens: one row a word, whose score is the sum of its tokens'."""

from collections.abc import Sequence
from typing import Any

import torch

from mmcam.errors import UserError
from mmcam.huggingface.speaker import Speaker
from mmcam.huggingface.words import spelled
from mmcam.task import Targets

__all__ = ["rather_than", "tokens", "worded"]


def worded(tokenizer: Any, ids: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Targets:  # noqa: ANN401
    """Make targets with one row a word; tokens that spell none are in no row.

    Args:
        tokenizer: Of the model.
        ids: The tokens of each sample.
        device: Where the tensors shall lie.

    Returns:
        The targets.
    """
    each = Targets.of(ids, [["" for _ in row] for row in ids], device)
    words = [spelled(tokenizer, row) for row in ids]
    rows = torch.zeros(len(ids), max((len(row) for row in words), default=0), each.ids.shape[1], device=device)
    for i, row in enumerate(words):
        for r, (_, places) in enumerate(row):
            rows[i, r, list(places)] = 1
    return Targets(each.ids, each.mask, tuple(tuple(word for word, _ in row) for row in words), rows)


def tokens(speaker: Speaker, text: str) -> list[int]:
    """Read a text as the model would have said it.

    Raises:
        UserError: It is empty.
    """
    if not text.strip():
        raise UserError(
            "expected a text of at least one word, got an empty one; leave it out to explain the model's own"
        )
    forced = getattr(getattr(speaker.model, "generation_config", None), "forced_bos_token_id", None)
    first = [] if forced is None else [int(forced)]
    return first + speaker.tokenizer(text.strip(), add_special_tokens=False).input_ids


def rather_than(speaker: Speaker, texts: Sequence[str], device: torch.device | str) -> Targets:
    """Turn texts into targets; of "a dog rather than cat" only the contrasted word is explained.

    Args:
        speaker: Whose tokens are meant.
        texts: One a sample.
        device: Where the tensors shall lie.

    Returns:
        One row a word, or one a contrast.

    Raises:
        UserError: A text is empty, or a contrasted word is of several tokens.
    """
    plain = [" ".join(word.split(">", 1)[0] for word in _marked(text)) for text in texts]
    targets = worded(speaker.tokenizer, [tokens(speaker, text) for text in plain], device)
    contrasts = [[(i, word) for i, word in enumerate(_marked(text)) if ">" in word] for text in texts]
    if not any(contrasts):
        return targets
    foils, keep, names = targets.ids.clone(), [], []
    for i, row in enumerate(contrasts):
        kept = []
        for place, word in row:
            said, foil = word.split(">", 1)
            number = tokens(speaker, f"{plain[i].split()[0]} {foil}" if place else foil)[
                len(tokens(speaker, plain[i].split()[0])) if place else 0 :
            ]
            spots = targets.rows[i, place].nonzero().flatten().tolist()
            if len(number) != 1 or len(spots) != 1:
                raise UserError(f"{said!r} rather than {foil!r}: expected words of one token each; choose shorter ones")
            foils[i, spots[0]] = number[0]
            kept.append(place)
        keep.append(kept)
        names.append(tuple(word.replace(">", " rather than ", 1) for _, word in row))
    chosen = targets.rather_than(foils).only(keep)
    return Targets(chosen.ids, chosen.mask, tuple(names), chosen.rows, chosen.foils)


def _marked(text: str) -> list[str]:
    """The words of a text; one with a foil as "word>foil"."""
    words: list[str] = []
    left = text.split()
    while left:
        if words and len(left) > 2 and left[:2] == ["rather", "than"]:
            words[-1] += f">{left[2]}"
            left = left[3:]
        else:
            words.append(left.pop(0))
    return words
