"""PaliGemma and Gemma 3: SigLIP and Gemma."""

from typing import Any

from transformers import (
    GemmaConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    SiglipImageProcessor,
    SiglipVisionConfig,
)

from tests.huggingface.tiny.base import QUESTION, Tiny, drawn
from tests.huggingface.tiny.words import tokenizer

LAYER: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def paligemma() -> Tiny:
    """PaliGemma, picture squeezed to 24×24, 4×4 patches without a class token.

    Teacher-forcing: input_ids as `generate` returns them, attention_mask ones of that length, and token_type_ids:
    the processor's zeros for the prompt, **ones for the answer** (with zeros the answer sees its own future). Drop
    `labels`. The processor adds 1,152 place tokens to the vocabulary, and "\\n" after the prompt.
    """
    words = tokenizer(named={"image_token": "<image>"})
    pictures = SiglipImageProcessor(size={"height": 24, "width": 24})
    pictures.image_seq_length = 16
    processor = PaliGemmaProcessor(pictures, words)
    config = PaliGemmaConfig(
        vision_config=SiglipVisionConfig(**LAYER, image_size=24, patch_size=6, vision_use_head=False),
        text_config=GemmaConfig(
            **LAYER,
            vocab_size=len(words),
            num_key_value_heads=1,
            head_dim=8,
            max_position_embeddings=512,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=0,
            tie_word_embeddings=False,
        ),
        image_token_index=words.image_token_id,
        projection_dim=16,
        hidden_size=16,
        tie_word_embeddings=False,
    )
    model = drawn(PaliGemmaForConditionalGeneration(config), words)
    return Tiny(model, processor, "vqa", f"<image>{QUESTION}", (30, 44), "AutoModelForImageTextToText")
