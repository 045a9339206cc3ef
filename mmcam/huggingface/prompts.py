"""How a prompt becomes a model's inputs: by its chat template, or as its family was trained."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mmcam.errors import UserError

__all__ = ["OPENINGS", "Opening", "image_processor", "tokenizer"]

Opening = Callable[[Any, Any, Image.Image, str], dict[str, Any]]
"""(processor, model configuration, picture, prompt) → inputs of one sample."""


def tokenizer(processor: Any) -> Any:  # noqa: ANN401
    """The part of a processor that reads text."""
    return getattr(processor, "tokenizer", processor)


def image_processor(processor: Any) -> Any:  # noqa: ANN401
    """The part of a processor that reads pictures."""
    return getattr(processor, "image_processor", processor)


def _chat(processor: Any, config: Any, image: Image.Image, prompt: str) -> dict[str, Any]:  # noqa: ANN401
    """As the chat template says; without one, the picture's mark and the prompt."""
    mark = getattr(processor, "image_token", "")
    if getattr(processor, "chat_template", None):
        if mark and mark in prompt:
            raise UserError(
                f"the picture's mark is put in by the chat template, got one more in {prompt!r}; leave it out"
            )
        content = [{"type": "image"}, *([{"type": "text", "text": prompt}] if prompt else [])]
        said = [{"role": "user", "content": content}]
        prompt = processor.apply_chat_template(said, add_generation_prompt=True, tokenize=False)
        return _plain(processor, config, image, prompt, add_special_tokens=not _begun(processor, prompt))
    return _plain(processor, config, image, prompt if mark and mark in prompt else f"{mark}\n{prompt}".strip())


def _begun(processor: Any, prompt: str) -> bool:  # noqa: ANN401
    """Whether a template wrote the mark that begins a text itself; twice is once too often."""
    mark = tokenizer(processor).bos_token
    return bool(mark) and prompt.startswith(mark)


def _plain(
    processor: Any,  # noqa: ANN401
    config: Any,  # noqa: ANN401
    image: Image.Image,
    prompt: str,
    **options: Any,  # noqa: ANN401
) -> dict[str, Any]:
    """Picture and prompt as they are."""
    options = options if options.get("add_special_tokens") is False else {}
    return dict(processor(images=[image], text=[prompt], return_tensors="pt", **options))


def _paligemma(processor: Any, config: Any, image: Image.Image, prompt: str) -> dict[str, Any]:  # noqa: ANN401
    """The picture's mark, then the task ("caption en")."""
    return _plain(processor, config, image, f"{processor.image_token}{prompt}")


def _none(processor: Any, config: Any, image: Image.Image, prompt: str) -> dict[str, Any]:  # noqa: ANN401
    """A model without words before its own."""
    if prompt:
        raise UserError(f"{config.model_type} takes no prompt, got {prompt!r}; leave it out")
    return dict(image_processor(processor)(images=[image], return_tensors="pt"))


def _blip(processor: Any, config: Any, image: Image.Image, prompt: str) -> dict[str, Any]:  # noqa: ANN401
    """The start mark, and the prompt's words, with which the caption begins."""
    words = tokenizer(processor)(prompt, add_special_tokens=False).input_ids
    return _with_ids(processor, image, [config.text_config.bos_token_id, *words])


def _git(processor: Any, config: Any, image: Image.Image, prompt: str) -> dict[str, Any]:  # noqa: ANN401
    """The class token, and the prompt's words."""
    reader = tokenizer(processor)
    return _with_ids(processor, image, [reader.cls_token_id, *reader(prompt, add_special_tokens=False).input_ids])


def _with_ids(processor: Any, image: Image.Image, ids: list[int]) -> dict[str, Any]:  # noqa: ANN401
    pixels = dict(image_processor(processor)(images=[image], return_tensors="pt"))
    numbers: Tensor = torch.tensor([ids])
    return {**pixels, "input_ids": numbers, "attention_mask": torch.ones_like(numbers)}


def _blip_question(processor: Any, config: Any, image: Image.Image, prompt: str) -> dict[str, Any]:  # noqa: ANN401
    """The question goes through an encoder; an empty one is nothing to answer."""
    if not prompt:
        raise UserError("expected a question with every picture, got an empty one; give it with --question")
    return _plain(processor, config, image, prompt)


OPENINGS: Mapping[str, Opening] = {
    "chat": _chat,
    "plain": _plain,
    "paligemma": _paligemma,
    "none": _none,
    "blip": _blip,
    "blip-question": _blip_question,
    "git": _git,
}
