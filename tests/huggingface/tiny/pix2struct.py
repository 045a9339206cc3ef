"""Pix2Struct: patches of a picture of any shape, each with its row and column; a decoder like T5's."""

from transformers import (
    Pix2StructConfig,
    Pix2StructForConditionalGeneration,
    Pix2StructImageProcessor,
    Pix2StructProcessor,
)

from tests.huggingface.tiny.base import Tiny, drawn
from tests.huggingface.tiny.words import tokenizer


def pix2struct() -> Tiny:
    """Pix2Struct: 30×44 is stretched to 3×5 patches of 4 (at most 20 of them, the rest padding).

    Teacher-forcing: decoder_input_ids as `generate` returns them, which begin with
    text_config.decoder_start_token_id (0, the padding), or with a prompt (the processor gives it as
    decoder_input_ids and decoder_attention_mask; here none). The first two numbers of each row of flattened_patches
    are row and column from 1, 0 for padding; attention_mask is about patches, not about words.
    """
    words = tokenizer(frame=("", "</s>"))
    processor = Pix2StructProcessor(
        Pix2StructImageProcessor(patch_size={"height": 4, "width": 4}, max_patches=20), words
    )
    processor.images_kwargs = {"max_patches": 20}  # else 2048 at each call, whatever the image processor says
    config = Pix2StructConfig(
        vision_config={
            "hidden_size": 16,
            "patch_embed_hidden_size": 48,
            "d_ff": 32,
            "d_kv": 8,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "seq_len": 64,
        },
        text_config={
            "vocab_size": len(words),
            "hidden_size": 16,
            "d_kv": 8,
            "d_ff": 32,
            "num_layers": 2,
            "num_heads": 2,
            "dropout_rate": 0.0,
            "decoder_start_token_id": 0,
            "pad_token_id": 0,
            "eos_token_id": words.eos_token_id,
        },
    )
    model = drawn(Pix2StructForConditionalGeneration(config), words)
    return Tiny(model, processor, "caption", "", (30, 44), "AutoModelForImageTextToText")
