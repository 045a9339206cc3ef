"""Models by hub id or folder, with their processors; nothing that they bring is executed unless it is asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmcam.errors import UserError

__all__ = ["Pair", "pretrained"]


@dataclass
class Pair:
    """An image processor and a tokenizer that do not come as one."""

    image_processor: Any
    tokenizer: Any


def pretrained(
    name: str,
    revision: str | None = None,
    trust_remote_code: bool = False,
    dtype: str = "auto",
    device_map: str | None = None,
) -> tuple[nn.Module, Any]:
    """Load a model and its processor.

    Args:
        name: A hub id ("Salesforce/blip-image-captioning-base") or a folder. With HF_HUB_OFFLINE=1 in the environment a
            hub id must have been downloaded before.
        revision: Commit, branch or tag on the hub.
        trust_remote_code: Let a repository's own code run on this machine; refused unless it is asked for.
        dtype: "auto" (as saved), "float32", "bfloat16", "float16".
        device_map: As transformers takes it ("auto"); needs accelerate. The model stays where it is put.

    Returns:
        The model in eval mode, its parameters frozen, and its processor.

    Raises:
        UserError: There is no such model, it cannot be loaded, or its repository wants to run code.
    """
    try:
        import transformers
    except ImportError as error:
        raise UserError("models of Hugging Face need transformers: pip install 'mmcam[hf]'") from error
    common: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        config = transformers.AutoConfig.from_pretrained(name, **common)
        kind = _model_class(transformers, config)
        wanted = dtype if dtype == "auto" else getattr(torch, dtype)
        placed = {} if device_map is None else {"device_map": device_map}
        model = kind.from_pretrained(name, dtype=wanted, **placed, **common)
        processor = _processor(transformers, name, common)
    except UserError:
        raise
    except Exception as error:  # transformers raises many kinds for what a user can mend
        raise UserError(_told(name, error)) from error
    return model.eval().requires_grad_(False), processor


def _model_class(transformers: Any, config: Any) -> Any:  # noqa: ANN401
    """The class that the weights were saved from: one kind may caption or answer."""
    for name in config.architectures or ():
        if hasattr(transformers, name):
            return getattr(transformers, name)
    if getattr(config, "auto_map", None):
        return transformers.AutoModelForImageTextToText
    known = transformers.AutoModelForImageTextToText._model_mapping
    if type(config) in known:
        return transformers.AutoModelForImageTextToText
    raise UserError(
        f"expected a model that sees and speaks, got one of kind {config.model_type!r}; docs/huggingface.md lists "
        "those that are known"
    )


def _processor(transformers: Any, name: str, common: dict[str, Any]) -> Any:  # noqa: ANN401
    found = transformers.AutoProcessor.from_pretrained(name, **common)
    if hasattr(found, "image_processor") and hasattr(found, "tokenizer"):
        return found
    return Pair(
        transformers.AutoImageProcessor.from_pretrained(name, **common),
        transformers.AutoTokenizer.from_pretrained(name, **common),
    )


def _told(name: str, error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    if "trust_remote_code" in text:
        return f"{name!r} wants to run code of its own here; read it, and set trust_remote_code: true if you agree"
    if isinstance(error, ImportError):
        return f"{name!r} needs another package: {text}"
    where = "the folder" if Path(name).exists() else "the hub, or what was downloaded before,"
    return f"{name!r} could not be loaded from {where}: {type(error).__name__}: {text}; give a hub id or a folder"
