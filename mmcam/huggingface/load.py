"""Models by hub id or folder, with their processors; nothing that they bring is executed unless it is asked for."""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmcam.errors import UserError, unknown
from mmcam.networks.weightless import weightless

__all__ = ["Pair", "pretrained", "pretrained_classifier"]

logger = logging.getLogger(__name__)

MOST_PARTS = 500_000
"""Of a model; those with many experts have many."""

FREE = 2**28
"""Weights that a configuration may ask for whatever its files hold."""

LONGEST = 300  # letters of somebody else's message
DTYPES = ("float64", "float32", "bfloat16", "float16")


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
        UserError: There is no such model, it cannot be loaded, most of its weights are missing, or its repository
            wants to run code.
    """
    common: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    with _telling(name):
        import transformers

        config = transformers.AutoConfig.from_pretrained(name, **common)
        kind = _model_class(transformers, config)
        _check_size(kind, config, name)
        model, told = kind.from_pretrained(name, output_loading_info=True, **_form(dtype, device_map), **common)
        _check_missing(model, told["missing_keys"], name)
        processor = _processor(transformers, name, common)
    return model.eval().requires_grad_(False), processor


def pretrained_classifier(
    name: str,
    revision: str | None = None,
    trust_remote_code: bool = False,
    dtype: str = "auto",
    device_map: str | None = None,
) -> tuple[nn.Module, Any]:
    """Load an image classifier and its image processor.

    Args:
        name: A hub id ("google/vit-base-patch16-224") or a folder; this and the others as for `pretrained`.
        revision: Commit, branch or tag on the hub.
        trust_remote_code: Let a repository's own code run on this machine.
        dtype: "auto" (as saved), "float32", "bfloat16", "float16".
        device_map: As transformers takes it.

    Returns:
        The model in eval mode, its parameters frozen, and its processor.

    Raises:
        UserError: There is no such model, it is no image classifier, its head was not trained, most of its weights are
            missing, it cannot be loaded, or its repository wants to run code.
    """
    common: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    with _telling(name):
        import transformers

        config = transformers.AutoConfig.from_pretrained(name, **common)
        kind = transformers.AutoModelForImageClassification
        if type(config) not in kind._model_mapping and not getattr(config, "auto_map", None):
            raise UserError(
                f"expected an image classifier, got one of kind {config.model_type!r}; for captions and answers there "
                "are captioning.hf.HFCaptioningTask and vqa.hf.HFVQATask"
            )
        _check_size(kind, config, name)
        model, told = kind.from_pretrained(name, output_loading_info=True, **_form(dtype, device_map), **common)
        _check_missing(model, told["missing_keys"], name)
        head = [key for key in told["missing_keys"] if not key.startswith(f"{model.base_model_prefix}.")]
        if head:
            raise UserError(
                f"{name!r} is a backbone without a trained head: {', '.join(sorted(head)[:2])} would be random; choose "
                "a checkpoint that was trained to classify"
            )
        processor = transformers.AutoImageProcessor.from_pretrained(name, **common)
    return model.eval().requires_grad_(False), processor


def _check_size(kind: Any, config: Any, name: str) -> None:  # noqa: ANN401
    """Hold a folder's configuration against its files, before transformers makes room for what it asks for.

    Weights may be packed to a bit each, and a model of a gigabyte is let through.
    """
    if not Path(name).is_dir() or getattr(config, "auto_map", None):
        return
    held = sum(file.stat().st_size for file in Path(name).iterdir() if file.suffix in (".safetensors", ".bin"))
    try:
        asked = _count(kind, config)
    except UserError:
        raise
    except Exception:  # transformers has a way of its own, and says itself what is wrong
        logger.debug("%s was not held against its files", name, exc_info=True)
        return
    if asked > 8 * held + FREE:
        raise UserError(
            f"{name!r}: expected a configuration of the model in the files, which have {held / 2**20:.0f} MiB, got one "
            f"of {asked / 1e9:.1f} billion weights; give a folder that is whole"
        )


def _count(kind: Any, config: Any) -> int:  # noqa: ANN401
    """How many weights the model of a configuration has."""
    make = getattr(kind, "from_config", kind)
    model = weightless(lambda: make(deepcopy(config)), MOST_PARTS)
    return sum(parameter.numel() for parameter in model.parameters())


def _check_missing(model: nn.Module, missing: Collection[str], name: str) -> None:
    """Refuse a model most of which would be random; of single parts, such as a pooling, transformers gives word."""
    sizes = {key: tensor.numel() for key, tensor in model.named_parameters()}
    random = sum(sizes.get(key, 0) for key in missing)
    if 2 * random > sum(sizes.values()):
        raise UserError(
            f"{name!r}: expected the weights of a {type(model).__name__}, but {', '.join(sorted(missing)[:2])} and "
            f"{max(0, len(missing) - 2)} more are missing and would be random; is its config.json another model's?"
        )


@contextmanager
def _telling(name: str) -> Iterator[None]:
    """Turn what transformers raises, many kinds for what a user can mend, into one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, ImportError) and error.name == "transformers":
            raise UserError("models of Hugging Face need transformers: pip install 'mmcam[hf]'") from error
        raise UserError(_told(name, error)) from error


def _form(dtype: str, device_map: str | None) -> dict[str, Any]:
    """In which numbers, and where."""
    if dtype != "auto" and dtype not in DTYPES:
        raise unknown("dtype", dtype, ("auto", *DTYPES))
    wanted = dtype if dtype == "auto" else getattr(torch, dtype)
    return {"dtype": wanted} if device_map is None else {"dtype": wanted, "device_map": device_map}


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
    import huggingface_hub

    whole = " ".join(str(error).split())
    if "trust_remote_code" in whole or "custom code" in whole:
        return f"{name!r} wants to run code of its own here; read it, and set trust_remote_code: true if you agree"
    text = whole if len(whole) <= LONGEST else f"{whole[:LONGEST]} …"
    if isinstance(error, ImportError):
        return f"{name!r} needs another package: {text}"
    if Path(name).exists():
        return f"{name!r} could not be loaded from the folder: {type(error).__name__}: {text}; give one that is whole"
    if huggingface_hub.constants.HF_HUB_OFFLINE and isinstance(error, OSError):
        return (
            f"{name!r} is not on this machine, and HF_HUB_OFFLINE keeps it from being fetched; "
            f"run 'hf download {name}' once with a network, or give the model's folder"
        )
    return f"{name!r} could not be loaded from the hub: {type(error).__name__}: {text}; give a hub id or a folder"
