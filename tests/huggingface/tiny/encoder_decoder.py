"""VisionEncoderDecoder: any vision transformer with GPT-2, which reads the picture through cross-attention.

Teacher-forcing, the same for all: decoder_input_ids as `generate` returns them, which begin with
decoder_start_token_id (here [CLS]); position t−1 scores word t. encoder_outputs may be handed over instead of
pixel_values. A decoder_attention_mask is only needed where texts of several lengths are padded.
"""

from typing import Any

from transformers import (
    BeitConfig,
    BitImageProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    DeiTConfig,
    DeiTImageProcessor,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    GPT2Config,
    PreTrainedConfig,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SwinConfig,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessor,
)
from transformers.image_processing_base import ImageProcessingMixin

from tests.huggingface.tiny.base import Pair, Tiny, drawn
from tests.huggingface.tiny.words import tokenizer

SQUARE = {"height": 24, "width": 24}
SHAPE: dict[str, Any] = {"image_size": 24, "patch_size": 6}
LAYER: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def _captioner(encoder: PreTrainedConfig, pictures: ImageProcessingMixin) -> Tiny:
    words = tokenizer(frame=("[CLS]", "[SEP]"))
    decoder = GPT2Config(
        vocab_size=len(words),
        n_positions=64,
        n_embd=16,
        n_layer=2,
        n_head=2,
        bos_token_id=words.cls_token_id,
        eos_token_id=words.sep_token_id,
        pad_token_id=0,
        add_cross_attention=True,
        is_decoder=True,
        tie_word_embeddings=False,
    )
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        encoder,
        decoder,
        decoder_start_token_id=words.cls_token_id,
        eos_token_id=words.sep_token_id,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    model = VisionEncoderDecoderModel(config)
    model.generation_config.decoder_start_token_id = words.cls_token_id
    model = drawn(model, words)
    return Tiny(model, Pair(pictures, words), "caption", "", (30, 44), "AutoModelForImageTextToText")


def vit() -> Tiny:
    """ViT and GPT-2: one class token, then 4×4 patches."""
    return _captioner(ViTConfig(**LAYER, **SHAPE, intermediate_size=32), ViTImageProcessor(size=SQUARE))


def deit() -> Tiny:
    """DeiT and GPT-2: a class token and a distillation token, then 4×4 patches; resized to 28, centre 24 cropped."""
    pictures = DeiTImageProcessor(size={"height": 28, "width": 28}, crop_size=SQUARE)
    return _captioner(DeiTConfig(**LAYER, **SHAPE, intermediate_size=32), pictures)


def beit() -> Tiny:
    """BEiT and GPT-2: one class token, then 4×4 patches."""
    config = BeitConfig(**LAYER, **SHAPE, intermediate_size=32, use_relative_position_bias=True)
    return _captioner(config, ViTImageProcessor(size=SQUARE))


def dinov2() -> Tiny:
    """DINOv2 and GPT-2: one class token, then 4×4 patches; shorter side 28, centre 24 cropped."""
    pictures = BitImageProcessor(size={"shortest_edge": 28}, crop_size=SQUARE)
    return _captioner(Dinov2Config(**LAYER, **SHAPE, mlp_ratio=2), pictures)


def dinov2_registers() -> Tiny:
    """DINOv2 with registers and GPT-2: one class token and four registers, then 4×4 patches."""
    config = Dinov2WithRegistersConfig(**LAYER, **SHAPE, mlp_ratio=2, num_register_tokens=4)
    return _captioner(config, BitImageProcessor(size={"shortest_edge": 28}, crop_size=SQUARE))


def clip() -> Tiny:
    """CLIP's vision half and GPT-2: one class token, then 4×4 patches; shorter side 24, centre cropped."""
    pictures = CLIPImageProcessor(size={"shortest_edge": 24}, crop_size=SQUARE)
    return _captioner(CLIPVisionConfig(**LAYER, **SHAPE, intermediate_size=32), pictures)


def siglip() -> Tiny:
    """SigLIP's vision half and GPT-2: 4×4 patches, no class token."""
    return _captioner(SiglipVisionConfig(**LAYER, **SHAPE, intermediate_size=32), SiglipImageProcessor(size=SQUARE))


def swin() -> Tiny:
    """Swin and GPT-2: 32×32, patches of 4 merged once: a raster of 4×4 places, no class token."""
    config = SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=4, mlp_ratio=2.0
    )
    return _captioner(config, ViTImageProcessor(size={"height": 32, "width": 32}))
