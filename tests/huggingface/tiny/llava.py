"""LLaVA and its successors: a vision tower, a projector, and a Llama or Qwen2 that reads the picture's tokens."""

from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from tests.huggingface.tiny.base import Tiny, chat, drawn
from tests.huggingface.tiny.words import tokenizer


def llama(words: PreTrainedTokenizerFast) -> LlamaConfig:
    """A Llama of two layers for the tokenizer's vocabulary."""
    return LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=0,
        tie_word_embeddings=False,
    )


def clip() -> CLIPVisionConfig:
    """A CLIP tower of three layers for pictures of 24×24: 4×4 patches after one class token."""
    return CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=24,
        patch_size=6,
    )


def llava() -> Tiny:
    """LLaVA-1.5, CLIP + Llama; shorter side 24, centre cropped, 4×4 patches, class token cut off before the projector.

    Teacher-forcing: input_ids as `generate` returns them, attention_mask ones of that length; logits cover all
    positions, image placeholders too. The projector reads hidden state −2: the tower's last state is a dead end.
    """
    words = tokenizer(frame=("<s>", ""), named={"image_token": "<image>"})
    template, prompt = chat("<image>")
    config = LlavaConfig(
        vision_config=clip(),
        text_config=llama(words),
        image_token_index=words.image_token_id,
        image_seq_length=16,
    )
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}),
        words,
        patch_size=6,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    model = drawn(LlavaForConditionalGeneration(config), words)
    return Tiny(model, processor, "chat", prompt, (30, 44), "AutoModelForImageTextToText")
