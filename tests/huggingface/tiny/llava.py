"""LLaVA and its successors: a vision tower, a projector, and a Llama or Qwen2 that reads the picture's tokens."""

from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

from tests.huggingface.tiny.base import Tiny, chat, drawn
from tests.huggingface.tiny.words import tokenizer

PINPOINTS = [[24, 48], [48, 24], [48, 48]]
"""Heights and widths that LLaVA-NeXT and OneVision may fit a picture in."""


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


def llava_next() -> Tiny:
    """LLaVA-NeXT: 28×48 is fitted in 48×48 with bars, which is 2×2 tiles of 24 after the whole picture: 5 tiles.

    Teacher-forcing as LLaVA-1.5; pixel_values (batch, tiles, 3, h, w) and image_sizes stay. The language model reads
    the whole picture's 4×4 places, then the 8×8 places of the tiles as one raster, without the rows of the bars and
    with one newline token after each row: here 4 of the 8 rows, as 28·8/48 is rounded down to 4.
    """
    words = tokenizer(frame=("<s>", ""), named={"image_token": "<image>"})
    template, prompt = chat("<image>")
    config = LlavaNextConfig(
        vision_config=clip(),
        text_config=llama(words),
        image_token_index=words.image_token_id,
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=16,
    )
    processor = LlavaNextProcessor(
        LlavaNextImageProcessor(
            size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}, image_grid_pinpoints=PINPOINTS
        ),
        words,
        patch_size=6,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    model = drawn(LlavaNextForConditionalGeneration(config), words)
    return Tiny(model, processor, "chat", prompt, (28, 48), "AutoModelForImageTextToText")


def llava_onevision() -> Tiny:
    """LLaVA-OneVision, SigLIP + Qwen2: the same tiles as LLaVA-NeXT, the picture squeezed where it is whole.

    Teacher-forcing as LLaVA-1.5; pixel_values (batch, tiles, 3, h, w), image_sizes and batch_num_images stay.
    `vision_aspect_ratio` ("anyres_max_9") leaves 9 tiles' tokens, more than this picture has: nothing is made smaller.
    """
    words = tokenizer(named={"image_token": "<image>", "video_token": "<video>"})
    template, prompt = chat("<image>")
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=24,
            patch_size=6,
            vision_use_head=False,
        ),
        text_config=Qwen2Config(
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
        ),
        image_token_index=words.image_token_id,
        video_token_index=words.video_token_id,
        image_grid_pinpoints=PINPOINTS,
        tie_word_embeddings=False,
    )
    size = {"height": 24, "width": 24}
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=PINPOINTS),
        words,
        LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=template,
    )
    model = drawn(LlavaOnevisionForConditionalGeneration(config), words)
    return Tiny(model, processor, "chat", prompt, (28, 48), "AutoModelForImageTextToText")
