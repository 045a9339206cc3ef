"""BLIP-2 and InstructBLIP: a Q-Former asks the picture 4 questions, the language model reads its answers.

The answers of the Q-Former have no grid: explain the vision tower (24×24, 4×4 patches after one class token).
"""

from typing import Any

from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessor,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    OPTConfig,
    PreTrainedConfig,
    T5Config,
)

from tests.huggingface.tiny.base import QUESTION, Tiny, drawn
from tests.huggingface.tiny.llava import llama
from tests.huggingface.tiny.words import tokenizer

LAYER: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
QUERIES = 4
PROMPT = f"question: {QUESTION} answer:"


def _settings(image: int, text: PreTrainedConfig) -> dict[str, Any]:
    return {
        "vision_config": {**LAYER, "image_size": 24, "patch_size": 6},
        "qformer_config": {
            **LAYER,
            "vocab_size": len(tokenizer(more=("[DEC]",))),
            "encoder_hidden_size": 16,
            "cross_attention_frequency": 2,
            "max_position_embeddings": 64,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        "text_config": text,
        "num_query_tokens": QUERIES,
        "image_text_hidden_size": 16,
        "image_token_index": image,
    }


def opt() -> Tiny:
    """BLIP-2 with OPT, a decoder alone.

    Teacher-forcing: input_ids as `generate` returns them (4 image tokens before <s> and the prompt), attention_mask
    ones of that length; logits cover all positions.
    """
    words = tokenizer(frame=("<s>", ""))
    processor = Blip2Processor(BlipImageProcessor(size={"height": 24, "width": 24}), words, num_query_tokens=QUERIES)
    text = OPTConfig(
        vocab_size=len(words),
        hidden_size=16,
        word_embed_proj_dim=16,
        ffn_dim=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        dropout=0.0,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    config = Blip2Config(**_settings(words.convert_tokens_to_ids("<image>"), text))
    model = drawn(Blip2ForConditionalGeneration(config), words)
    return Tiny(model, processor, "vqa", PROMPT, (30, 44), "AutoModelForImageTextToText")


def t5() -> Tiny:
    """BLIP-2 with T5, an encoder and a decoder.

    Teacher-forcing: input_ids and attention_mask stay the prompt; decoder_input_ids as `generate` returns them, which
    begin with text_config.decoder_start_token_id (0, the padding).
    """
    words = tokenizer(frame=("", "</s>"))
    processor = Blip2Processor(BlipImageProcessor(size={"height": 24, "width": 24}), words, num_query_tokens=QUERIES)
    text = T5Config(
        vocab_size=len(words),
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        dropout_rate=0.0,
        decoder_start_token_id=0,
        eos_token_id=words.eos_token_id,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    config = Blip2Config(**_settings(words.convert_tokens_to_ids("<image>"), text))
    model = drawn(Blip2ForConditionalGeneration(config), words)
    return Tiny(model, processor, "vqa", PROMPT, (30, 44), "AutoModelForImageTextToText")


def instructblip() -> Tiny:
    """InstructBLIP with Llama (Vicuna): the Q-Former reads the prompt too, with a tokenizer of its own.

    Teacher-forcing: input_ids as `generate` returns them, attention_mask ones of that length; qformer_input_ids and
    qformer_attention_mask **stay the prompt**.
    """
    words = tokenizer(frame=("<s>", ""))
    processor = InstructBlipProcessor(
        BlipImageProcessor(size={"height": 24, "width": 24}),
        words,
        tokenizer(frame=("[CLS]", "[SEP]"), more=("[DEC]",)),
        num_query_tokens=QUERIES,
    )
    config = InstructBlipConfig(**_settings(words.convert_tokens_to_ids("<image>"), llama(words)))
    model = drawn(InstructBlipForConditionalGeneration(config), words)
    return Tiny(model, processor, "vqa", QUESTION, (30, 44), "AutoModelForImageTextToText")
