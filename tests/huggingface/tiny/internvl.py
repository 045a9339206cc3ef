"""InternVL: tiles, then a shuffle of 2×2 places into one token."""

from typing import Any

from transformers import (
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
)

from tests.huggingface.tiny.base import Tiny, chat, drawn
from tests.huggingface.tiny.llava import llama
from tests.huggingface.tiny.words import tokenizer


def internvl() -> Tiny:
    """InternVL: 30×44 is cut in tiles of 24 (crop_to_patches), the whole picture last; 4×4 patches, 2×2 tokens each.

    Teacher-forcing: input_ids as `generate` returns them, attention_mask ones of that length. pixel_values
    (tiles, 3, h, w) have **no batch axis**: tiles of all pictures one after the other. The tower gives one class token
    before the raster. How many tiles a picture has is only seen from its placeholders (or `num_patches`).
    """
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    words = tokenizer(frame=("<s>", ""), named=named)
    template, prompt = chat("<IMG_CONTEXT>")
    side = {"height": 24, "width": 24}
    vision: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": [24, 24],
        "patch_size": [6, 6],
    }
    config = InternVLConfig(
        vision_config=vision,
        text_config=llama(words),
        image_token_id=words.context_image_token_id,
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    processor = InternVLProcessor(
        GotOcr2ImageProcessor(size=side, crop_to_patches=True, max_patches=4),
        words,
        InternVLVideoProcessor(size=side),
        image_seq_length=4,
        chat_template=template,
    )
    model = drawn(InternVLForConditionalGeneration(config), words)
    return Tiny(model, processor, "chat", prompt, (30, 44), "AutoModelForImageTextToText")
