"""Florence-2: a convolutional tower (DaViT), whose map becomes tokens that BART reads before the task's text."""

from transformers import (
    BartConfig,
    CLIPImageProcessor,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
)

from tests.huggingface.tiny.base import Tiny, drawn
from tests.huggingface.tiny.words import tokenizer


def florence() -> Tiny:
    """Florence-2, picture squeezed to 32×32: a map of 16 channels and 4×4 places, read as one mean token and a raster.

    Convolutions overlap: what a patch of 8×8 pixels moves most is its own place or the one below or to the right.

    Teacher-forcing: input_ids and attention_mask stay what the processor wrote for "<CAPTION>" (17 image tokens and
    "What does the image describe?"); decoder_input_ids as `generate` returns them, which begin with
    text_config.decoder_start_token_id (here </s>, as in BART).
    """
    words = tokenizer(frame=("<s>", "</s>"), named={"image_token": "<image>"})
    pictures = CLIPImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False, image_seq_length=17)
    processor = Florence2Processor(pictures, words)
    config = Florence2Config(
        vision_config={
            "depths": [1, 1],
            "patch_size": [7, 3],
            "patch_stride": [4, 2],
            "patch_padding": [3, 1],
            "patch_prenorm": [False, True],
            "embed_dim": [8, 16],
            "num_heads": [2, 2],
            "num_groups": [2, 2],
            "window_size": 4,
            "drop_path_rate": 0.0,
            "mlp_ratio": 2.0,
            "projection_dim": 16,
        },
        text_config=BartConfig(
            vocab_size=len(words),
            d_model=16,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            max_position_embeddings=128,
            dropout=0.0,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            decoder_start_token_id=words.eos_token_id,
            forced_eos_token_id=None,
            pad_token_id=0,
            tie_word_embeddings=False,
        ),
        image_token_id=words.image_token_id,
        tie_word_embeddings=False,
    )
    model = drawn(Florence2ForConditionalGeneration(config), words)
    return Tiny(model, processor, "caption", "<CAPTION>", (30, 44), "AutoModelForImageTextToText")
