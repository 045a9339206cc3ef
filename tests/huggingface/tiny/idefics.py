"""Idefics3 and SmolVLM: the picture cut into tiles, with the whole picture as the last tile.

Teacher-forcing, the same for both: input_ids as `generate` returns them, attention_mask ones of that length;
pixel_values (batch, tiles, 3, h, w) and pixel_attention_mask stay as they are. Rows and columns of tiles are only told
by `image_processor(..., return_row_col_info=True)`, or by the <row_i_col_j> tokens in input_ids.
"""

from typing import Any

from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    PreTrainedConfig,
    PreTrainedModel,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
)
from transformers.image_processing_base import ImageProcessingMixin

from tests.huggingface.tiny.base import Tiny, chat, drawn
from tests.huggingface.tiny.llava import llama
from tests.huggingface.tiny.words import tokenizer

SIDE = 24
TILES = tuple(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5))


def _tiny(config: type[PreTrainedConfig], model: type[PreTrainedModel], pictures: type[ImageProcessingMixin]) -> Tiny:
    named = {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    words = tokenizer(frame=("<s>", ""), named=named, more=TILES)
    template, prompt = chat("<image>")
    vision: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 6,
    }
    settings = config(
        vision_config=vision,
        text_config=llama(words),
        image_token_id=words.image_token_id,
        scale_factor=2,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    processor = Idefics3Processor(
        pictures(size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE}),
        words,
        image_seq_len=4,
        chat_template=template,
    )
    return Tiny(drawn(model(settings), words), processor, "chat", prompt, (30, 44), "AutoModelForImageTextToText")


def idefics3() -> Tiny:
    """Idefics3: 30×44 becomes 48×48 (distorted), 2×2 tiles of 24 and the whole, 4×4 patches each, 2×2 tokens each."""
    return _tiny(Idefics3Config, Idefics3ForConditionalGeneration, Idefics3ImageProcessor)


def smolvlm() -> Tiny:
    """SmolVLM, the same shape; with Idefics3's processor, as SmolVLM's own needs the package num2words."""
    return _tiny(SmolVLMConfig, SmolVLMForConditionalGeneration, SmolVLMImageProcessor)
