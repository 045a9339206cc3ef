"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: pictures of any shape, their patches packed in one row without a batch axis.

Teacher-forcing, the same for all: input_ids as `generate` returns them, attention_mask ones of that length, and
mm_token_type_ids (1 at the picture's places) continued by **zeros**; pixel_values and image_grid_thw stay as they are.
Without mm_token_type_ids positions are silently wrong. The model keeps `rope_deltas` of the last call: harmless as long
as a forward pass is given the whole sequence without a cache.
"""

from typing import Any

from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from tests.huggingface.tiny.base import Tiny, chat, drawn
from tests.huggingface.tiny.words import tokenizer

PLACE = "<|vision_start|><|image_pad|><|vision_end|>"
PIXELS = {"shortest_edge": 16 * 16, "longest_edge": 48 * 48}
NAMED = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
}
SIZE = (32, 48)


def _ids(words: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "image_token_id": words.image_token_id,
        "video_token_id": words.video_token_id,
        "vision_start_token_id": words.vision_bos_token_id,
        "vision_end_token_id": words.vision_eos_token_id,
    }


def _text(words: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(words),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
    }


def qwen2_5() -> Tiny:
    """Qwen2.5-VL: 32×48 is 8×12 patches of 4, merged 2×2 to 4×6 tokens, attended in windows of 2×2 tokens.

    The merger reads patches in the order of windows; only what comes out of the tower is a raster.
    """
    words = tokenizer(named=NAMED)
    template, prompt = chat(PLACE)
    vision: dict[str, Any] = {
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_heads": 2,
        "patch_size": 4,
        "window_size": 16,
        "out_hidden_size": 16,
        "fullatt_block_indexes": [1],
    }
    config = Qwen2_5_VLConfig(text_config=_text(words), vision_config=vision, **_ids(words), tie_word_embeddings=False)
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(patch_size=4, size=PIXELS),
        words,
        Qwen2VLVideoProcessor(patch_size=4, size=PIXELS),
        chat_template=template,
    )
    model = drawn(Qwen2_5_VLForConditionalGeneration(config), words)
    return Tiny(model, processor, "chat", prompt, SIZE, "AutoModelForImageTextToText")


def qwen2() -> Tiny:
    """Qwen2-VL: as Qwen2.5-VL without the windows; the merger reads patches block by block of 2×2."""
    words = tokenizer(named=NAMED)
    template, prompt = chat(PLACE)
    vision: dict[str, Any] = {
        "depth": 2,
        "embed_dim": 16,
        "hidden_size": 16,
        "mlp_ratio": 2,
        "num_heads": 2,
        "patch_size": 4,
    }
    config = Qwen2VLConfig(text_config=_text(words), vision_config=vision, **_ids(words), tie_word_embeddings=False)
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(patch_size=4, size=PIXELS),
        words,
        Qwen2VLVideoProcessor(patch_size=4, size=PIXELS),
        chat_template=template,
    )
    model = drawn(Qwen2VLForConditionalGeneration(config), words)
    return Tiny(model, processor, "chat", prompt, SIZE, "AutoModelForImageTextToText")


def qwen3() -> Tiny:
    """Qwen3-VL: as Qwen2-VL, and what the tower's first layer says is added to the text model's first layer.

    So features have two ways into the text (DeepStack): `get_image_features` gives both.
    """
    words = tokenizer(named=NAMED)
    template, prompt = chat(PLACE)
    vision: dict[str, Any] = {
        "depth": 3,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_heads": 2,
        "patch_size": 4,
        "out_hidden_size": 16,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
    }
    config = Qwen3VLConfig(
        text_config={**_text(words), "head_dim": 8},
        vision_config=vision,
        **_ids(words),
        tie_word_embeddings=False,
    )
    processor = Qwen3VLProcessor(
        Qwen2VLImageProcessor(patch_size=4, size=PIXELS),
        words,
        Qwen3VLVideoProcessor(patch_size=4, size=PIXELS),
        chat_template=template,
    )
    model = drawn(Qwen3VLForConditionalGeneration(config), words)
    return Tiny(model, processor, "chat", prompt, SIZE, "AutoModelForImageTextToText")
