"""Mllama (Llama 3.2 Vision): tiles of the picture, read through cross-attention by some layers of the text model."""

from transformers import MllamaConfig, MllamaForConditionalGeneration, MllamaImageProcessor, MllamaProcessor

from tests.huggingface.tiny.base import Tiny, chat, drawn
from tests.huggingface.tiny.words import tokenizer


def mllama() -> Tiny:
    """Mllama: 30×44 on 2×2 tiles of 24, padded below and to the right; 4×4 patches and one class token in each.

    Teacher-forcing: input_ids as `generate` returns them, attention_mask ones of that length, and
    cross_attention_mask (batch, length, images, tiles) continued by **copies of its last position**; pixel_values
    (batch, images, tiles, 3, h, w), aspect_ratio_ids and aspect_ratio_mask stay. The tower's last state and those of
    `intermediate_layers_indices` are joined along the channels. The picture is one token, <|image|>, and the output
    layer has 8 rows fewer than the input layer.
    """
    words = tokenizer(named={"image_token": "<|image|>"}, more=("<|python_tag|>",))
    template, prompt = chat("<|image|>")
    processor = MllamaProcessor(
        MllamaImageProcessor(size={"height": 24, "width": 24}, max_image_tiles=4), words, chat_template=template
    )
    config = MllamaConfig(
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 2,
            "vision_output_dim": 32,
            "image_size": 24,
            "patch_size": 6,
            "max_num_tiles": 4,
            "intermediate_layers_indices": [0],
        },
        text_config={
            "vocab_size": len(words),
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 128,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "cross_attention_layers": [1],
            "bos_token_id": words.bos_token_id,
            "eos_token_id": words.eos_token_id,
            "pad_token_id": 0,
        },
        image_token_index=words.image_token_id,
    )
    model = drawn(MllamaForConditionalGeneration(config), words)
    return Tiny(model, processor, "chat", prompt, (30, 44), "AutoModelForImageTextToText")
