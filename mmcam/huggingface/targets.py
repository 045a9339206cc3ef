"""Targets out of tokens: one row a word, whose score is the sum of its tokens'."""

from collections.abc import Sequence
from typing import Any

import torch

from mmcam.errors import UserError
from mmcam.huggingface.speaker import Speaker
from mmcam.huggingface.words import spelled
from mmcam.task import Targets

__all__ = ["rather_than", "tokens", "worded"]

FOIL = "\0"


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
        UserError: It is empty, or holds the mark of a picture.
    """
    if not text.strip():
        raise UserError(
            "expected a text of at least one word, got an empty one; leave it out to explain the model's own"
        )
    forced = getattr(getattr(speaker.model, "generation_config", None), "forced_bos_token_id", None)
    first = [] if forced is None else [int(forced)]
    found = _read(speaker, text.strip())
    names = ("image_token_id", "image_token_index", "video_token_id")
    if {getattr(speaker.model.config, name, None) for name in names} & set(found):
        raise UserError(f"expected words, got {text!r}, which holds the mark of a picture; leave the mark out")
    return first + found


def _read(speaker: Speaker, text: str) -> list[int]:
    return speaker.tokenizer(text, add_special_tokens=False).input_ids if text else []


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
    marked = [_marked(text) for text in texts]
    plain = [[word.split(FOIL, 1)[0] for word in words] for words in marked]
    targets = worded(speaker.tokenizer, [tokens(speaker, " ".join(words)) for words in plain], device)
    if not any(FOIL in word for words in marked for word in words):
        return targets
    foils, keep, names = targets.ids.clone(), [], []
    for i, words in enumerate(marked):
        kept, named = [], []
        for place, (said, mark, foil) in enumerate(word.partition(FOIL) for word in words):
            if not mark:
                continue
            # Punctuation has no row, and one word between spaces may have several.
            row = len(spelled(speaker.tokenizer, _read(speaker, " ".join(plain[i][: place + 1])))) - 1
            before = plain[i][0] if place else ""
            number = _read(speaker, f"{before} {foil}".strip())[len(_read(speaker, before)) :]
            spots = targets.rows[i, max(0, row)].nonzero().flatten().tolist() if targets.rows.shape[1] else []
            if len(number) != 1 or len(spots) != 1:
                raise UserError(f"{said!r} rather than {foil!r}: expected words of one token each; choose shorter ones")
            foils[i, spots[0]] = number[0]
            kept.append(row)
            named.append(f"{said} rather than {foil}")
        keep.append(kept)
        names.append(tuple(named))
    chosen = targets.rather_than(foils).only(keep)
    return Targets(chosen.ids, chosen.mask, tuple(names), chosen.rows, chosen.foils)


def _marked(text: str) -> list[str]:
    """The words of a text; one with a foil has the mark between them."""
    words: list[str] = []
    left = text.split()
    while left:
        if words and len(left) > 2 and left[:2] == ["rather", "than"]:
            words[-1] += f"{FOIL}{left[2]}"
            left = left[3:]
        else:
            words.append(left.pop(0))
    return words
