"""PaliGemma and Gemma 3: SigLIP and Gemma."""

from typing import Any

from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    Gemma3TextConfig,
    GemmaConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    SiglipImageProcessor,
    SiglipVisionConfig,
)

from tests.huggingface.tiny.base import QUESTION, Tiny, chat, drawn
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


def gemma3() -> Tiny:
    """Gemma 3, picture squeezed to 24×24, 4×4 patches, which the projector averages to 2×2 tokens.

    Teacher-forcing: input_ids as `generate` returns them, attention_mask ones of that length, and token_type_ids
    (1 at the picture's places, which see one another) continued by **zeros**. In the prompt the picture is written as
    <start_of_image> (boi_token); the places are <image_soft_token> (image_token).
    """
    named = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    words = tokenizer(frame=("<s>", ""), named=named)
    template, prompt = chat("<start_of_image>")
    processor = Gemma3Processor(
        Gemma3ImageProcessor(size={"height": 24, "width": 24}), words, chat_template=template, image_seq_length=4
    )
    config = Gemma3Config(
        vision_config=SiglipVisionConfig(**LAYER, image_size=24, patch_size=6, vision_use_head=False),
        text_config=Gemma3TextConfig(
            **LAYER,
            vocab_size=len(words),
            num_key_value_heads=1,
            head_dim=8,
            query_pre_attn_scalar=8,
            sliding_window=16,
            layer_types=["sliding_attention", "full_attention"],
            max_position_embeddings=512,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=0,
            tie_word_embeddings=False,
        ),
        mm_tokens_per_image=4,
        image_token_index=words.image_token_id,
        boi_token_index=words.boi_token_id,
        eoi_token_index=words.eoi_token_id,
        tie_word_embeddings=False,
    )
    model = drawn(Gemma3ForConditionalGeneration(config), words)
    return Tiny(model, processor, "chat", prompt, (30, 44), "AutoModelForImageTextToText")
