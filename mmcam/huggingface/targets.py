"""Targets out of tokens: one row a word, whose score is the sum of its tokens'."""

from collections.abc import Sequence
from typing import Any

import torch

from mmcam.errors import UserError
from mmcam.huggingface.speaker import Speaker
from mmcam.huggingface.words import spelled
from mmcam.task import Batch, Targets

__all__ = ["rather_than", "spaced", "tokens", "worded"]

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


def tokens(speaker: Speaker, text: str, spaced: bool = False) -> list[int]:
    """Read a text as the model would have said it.

    Args:
        speaker: Whose tokens are meant.
        text: The text.
        spaced: Whether it goes on after a letter, with a space between; see `spaced`. A space at the beginning of the
            text says so too.

    Raises:
        UserError: It is empty or has no word but only marks, or holds the mark of a picture.
    """
    if not text.strip():
        raise UserError(
            "expected a text of at least one word, got an empty one; leave it out to explain the model's own"
        )
    forced = getattr(getattr(speaker.model, "generation_config", None), "forced_bos_token_id", None)
    first = [] if forced is None else [int(forced)]
    found = _read(speaker.tokenizer, text.strip(), spaced or text[0].isspace())
    names = ("image_token_id", "image_token_index", "video_token_id")
    if {getattr(speaker.model.config, name, None) for name in names} & set(found):
        raise UserError(f"expected words, got {text!r}, which holds the mark of a picture; leave the mark out")
    if not spelled(speaker.tokenizer, found):
        raise UserError(
            f"expected a text of at least one word, got {text!r}, which has marks alone; leave it out to explain the "
            "model's own"
        )
    return first + found


def spaced(speaker: Speaker, batch: Batch) -> list[bool]:
    """Whether what each sample is answered begins with a space: it goes on after a prompt that ends with a letter.

    Byte-level tokenizers have other tokens for " a" than for "a". A model answers "… Answer:" with " a"; after a line's
    end, a special token, or in a sequence of its own with "a".

    Args:
        speaker: Whose prompts they are.
        batch: The samples.
    """
    if speaker.speech != "decoder" or "input_ids" not in batch.inputs:
        return [False] * len(batch)
    last = batch.inputs["input_ids"].gather(1, batch.inputs["lengths"][:, None].to(batch.images.device) - 1)
    return [_is_written(speaker.tokenizer, number) for number in last.flatten().tolist()]


def _is_written(tokenizer: Any, number: int) -> bool:  # noqa: ANN401
    """Whether a token ends with a letter or a mark of writing."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).get(number)
    if number in tokenizer.all_special_ids or (added is not None and added.special):
        return False
    text = tokenizer.decode([number])
    return bool(text) and not text[-1].isspace()


BEFORE = ":"


def _read(tokenizer: Any, text: str, spaced: bool = False) -> list[int]:  # noqa: ANN401
    """The tokens of a text; spaced ones behind a colon, as some tokenizers put a space before any text anyway."""
    if not text:
        return []

    def read(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    before, whole = read(BEFORE), read(f"{BEFORE} {text}")
    return whole[len(before) :] if spaced and whole[: len(before)] == before else read(text)


def rather_than(speaker: Speaker, texts: Sequence[str], batch: Batch) -> Targets:
    """Turn texts into targets; of "a dog rather than cat" only the contrasted word is explained.

    Args:
        speaker: Whose tokens are meant.
        texts: One a sample.
        batch: The samples, whose prompts go before.

    Returns:
        One row a word, or one a contrast.

    Raises:
        UserError: A text is empty, or a contrasted word is of several tokens.
    """
    device, marked = batch.images.device, [_marked(text) for text in texts]
    gaps = [gap or text[:1].isspace() for gap, text in zip(spaced(speaker, batch), texts, strict=True)]
    plain = [[word.split(FOIL, 1)[0] for word in words] for words in marked]
    read = [tokens(speaker, " ".join(words), gap) for words, gap in zip(plain, gaps, strict=True)]
    targets = worded(speaker.tokenizer, read, device)
    if not any(FOIL in word for words in marked for word in words):
        return targets
    foils, keep, names = targets.ids.clone(), [], []
    for i, words in enumerate(marked):
        kept, named = [], []
        for place, (said, mark, foil) in enumerate(word.partition(FOIL) for word in words):
            if not mark:
                continue
            # Punctuation has no row, and one word between spaces may have several.
            row = (
                len(spelled(speaker.tokenizer, _read(speaker.tokenizer, " ".join(plain[i][: place + 1]), gaps[i]))) - 1
            )
            before = plain[i][0] if place else ""
            number = _read(speaker.tokenizer, f"{before} {foil}".strip(), gaps[i])[
                len(_read(speaker.tokenizer, before, gaps[i])) :
            ]
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
