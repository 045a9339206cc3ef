"""Tiny random models of every supported family of transformers, so that the adapters can be tested without weights."""

from importlib import import_module
from pathlib import Path

import torch

from tests.huggingface.tiny.base import QUESTION, Pair, Tiny

# Modules and functions by name: all of them imported at once take seconds, in every run that only collects tests.
_BUILDERS: dict[str, tuple[str, str]] = {
    "blip": ("blip", "caption"),
    "blip-vqa": ("blip", "question"),
    "vit-gpt2": ("encoder_decoder", "vit"),
    "deit-gpt2": ("encoder_decoder", "deit"),
    "beit-gpt2": ("encoder_decoder", "beit"),
    "dinov2-gpt2": ("encoder_decoder", "dinov2"),
    "dinov2-registers-gpt2": ("encoder_decoder", "dinov2_registers"),
    "clip-gpt2": ("encoder_decoder", "clip"),
    "siglip-gpt2": ("encoder_decoder", "siglip"),
    "swin-gpt2": ("encoder_decoder", "swin"),
    "git": ("git", "caption"),
    "vilt": ("vilt", "question"),
    "blip-2-opt": ("qformer", "opt"),
    "blip-2-t5": ("qformer", "t5"),
    "instructblip": ("qformer", "instructblip"),
    "llava": ("llava", "llava"),
    "llava-next": ("llava", "llava_next"),
    "llava-onevision": ("llava", "llava_onevision"),
    "paligemma": ("gemma", "paligemma"),
    "gemma3": ("gemma", "gemma3"),
    "qwen2-vl": ("qwen", "qwen2"),
    "qwen2.5-vl": ("qwen", "qwen2_5"),
    "qwen3-vl": ("qwen", "qwen3"),
    "smolvlm": ("idefics", "smolvlm"),
    "idefics3": ("idefics", "idefics3"),
    "internvl": ("internvl", "internvl"),
    "florence-2": ("florence", "florence"),
    "kosmos-2": ("kosmos", "kosmos2"),
    "pix2struct": ("pix2struct", "pix2struct"),
    "mllama": ("mllama", "mllama"),
    "vit": ("classes", "vit"),
    "deit": ("classes", "deit"),
    "swin": ("classes", "swin"),
    "convnext": ("classes", "convnext"),
    "resnet": ("classes", "resnet"),
    "dinov2": ("classes", "dinov2"),
}

FAMILIES: tuple[str, ...] = tuple(_BUILDERS)
"""Names that `build` knows."""

UNAVOIDABLE: tuple[str, ...] = (
    # PaliGemma's processor copies torch tensors with NumPy.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
)
"""Warnings that transformers gives whatever one does, as `pytest.mark.filterwarnings` takes them."""

__all__ = ["FAMILIES", "QUESTION", "UNAVOIDABLE", "Pair", "Tiny", "build", "save"]


def build(name: str) -> Tiny:
    """A model of the family with its processor; the same weights at every call, and the global seed left alone."""
    module, function = _BUILDERS[name]
    with torch.random.fork_rng(devices=[]):
        return getattr(import_module(f"{__name__}.{module}"), function)()


def save(name: str, folder: Path) -> Tiny:
    """Build the family and write model and processor into the folder as `save_pretrained` does."""
    tiny = build(name)
    tiny.model.save_pretrained(folder)
    tiny.processor.save_pretrained(folder)
    return tiny
