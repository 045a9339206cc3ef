"""How a model speaks, as its configuration says: whether answers go on after the prompt, where they begin and end."""

from collections.abc import Collection, Sequence
from typing import Any

from jaxtyping import Int
from torch import Tensor

from mmcam.errors import UserError
from mmcam.huggingface.families import Family

__all__ = ["after", "ends", "first_token", "speech", "until"]


def speech(config: Any, family: Family) -> str:  # noqa: ANN401
    """How a model answers: "decoder", "encoder-decoder" or "classes"; of families that have both, as it is configured.

    Args:
        config: The model's configuration.
        family: What is particular to it.
    """
    if getattr(config, "use_decoder_only_language_model", None) is False:
        return "encoder-decoder"
    return family.speech


def ends(model: Any, tokenizer: Any) -> set[int]:  # noqa: ANN401
    """The tokens that end an answer."""
    told = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    text = getattr(model.config, "text_config", None)
    found = [told, tokenizer.eos_token_id, getattr(text, "sep_token_id", None)]
    return {n for x in found if x is not None for n in (x if isinstance(x, list) else [x])}


def after(said: Int[Tensor, "b n"], prompt: Int[Tensor, "b p"]) -> Int[Tensor, "b m"]:
    """What was said after the prompt, which some models repeat and others leave out."""
    length = prompt.shape[1]
    repeated = said.shape[1] >= length and bool((said[:, :length] == prompt.to(said.device)).all())
    return said[:, length:] if repeated else said


def until(row: Sequence[int], ends: Collection[int]) -> list[int]:
    """The tokens before the first one that ends the answer."""
    stop = next((i for i, number in enumerate(row) if number in ends), len(row))
    return list(row[:stop])


def first_token(model: Any, family: Family) -> int:  # noqa: ANN401
    """The token with which a decoder of its own begins.

    Raises:
        UserError: Nothing says which.
    """
    text = getattr(model.config, "text_config", None)
    if family.opening == "blip-question":
        return int(model.decoder_start_token_id)
    for name in ("decoder_start_token_id", "bos_token_id"):
        for holder in (getattr(model, "generation_config", None), model.config, text):
            number = getattr(holder, name, None)
            if number is not None:
                return int(number)
    raise UserError(f"{type(model).__name__} does not say with which token answers begin")
