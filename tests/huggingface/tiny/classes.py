"""Image classifiers: no text at all; the classes are `config.id2label`."""

from typing import Any

from transformers import (
    BitImageProcessor,
    ConvNextConfig,
    ConvNextForImageClassification,
    ConvNextImageProcessor,
    DeiTConfig,
    DeiTForImageClassification,
    DeiTImageProcessor,
    Dinov2Config,
    Dinov2ForImageClassification,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)
from transformers.image_processing_base import ImageProcessingMixin

from tests.huggingface.tiny.base import Pair, Tiny, drawn

LABELS: dict[str, Any] = {
    "id2label": {0: "cat", 1: "dog", 2: "pizza", 3: "table", 4: "disc"},
    "label2id": {"cat": 0, "dog": 1, "pizza": 2, "table": 3, "disc": 4},
}
SQUARE = {"height": 24, "width": 24}
SHAPE: dict[str, Any] = {"image_size": 24, "patch_size": 6}
LAYER: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def _classifier(model: PreTrainedModel, pictures: ImageProcessingMixin) -> Tiny:
    return Tiny(drawn(model), Pair(pictures), "classes", "", (30, 44), "AutoModelForImageClassification")


def vit() -> Tiny:
    """ViT: one class token, which alone the head reads, then 4×4 patches; no gradient at the last layer's patches."""
    return _classifier(
        ViTForImageClassification(ViTConfig(**LAYER, **SHAPE, **LABELS, intermediate_size=32)),
        ViTImageProcessor(size=SQUARE),
    )


def deit() -> Tiny:
    """DeiT: class and distillation token, then 4×4 patches; the head reads the class token; centre 24 of 28 cropped."""
    pictures = DeiTImageProcessor(size={"height": 28, "width": 28}, crop_size=SQUARE)
    return _classifier(
        DeiTForImageClassification(DeiTConfig(**LAYER, **SHAPE, **LABELS, intermediate_size=32)), pictures
    )


def swin() -> Tiny:
    """Swin: 32×32, patches of 4 merged once to 4×4 places, whose mean the head reads."""
    config = SwinConfig(
        **LABELS,
        image_size=32,
        patch_size=4,
        embed_dim=8,
        depths=[2, 2],
        num_heads=[2, 2],
        window_size=4,
        mlp_ratio=2.0,
    )
    return _classifier(SwinForImageClassification(config), ViTImageProcessor(size={"height": 32, "width": 32}))


def convnext() -> Tiny:
    """ConvNeXt: a map of 16 channels and 4×4 places, whose mean the head reads; 36 on the shorter side, 32 cropped."""
    config = ConvNextConfig(
        **LABELS, num_stages=2, hidden_sizes=[8, 16], depths=[1, 1], layer_scale_init_value=1.0, drop_path_rate=0.0
    )
    return _classifier(
        ConvNextForImageClassification(config), ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=32 / 36)
    )


def resnet() -> Tiny:
    """ResNet: a map of 16 channels and 4×4 places, whose mean the head reads; 36 on the shorter side, 32 cropped.

    Convolutions overlap: what a patch of 8×8 pixels moves most is its own place or the one below or to the right.
    """
    config = ResNetConfig(**LABELS, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    return _classifier(
        ResNetForImageClassification(config), ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=32 / 36)
    )


def dinov2() -> Tiny:
    """DINOv2: one class token, then 4×4 patches; the head reads the class token and the patches' mean."""
    pictures = BitImageProcessor(size={"shortest_edge": 28}, crop_size=SQUARE)
    return _classifier(Dinov2ForImageClassification(Dinov2Config(**LAYER, **SHAPE, **LABELS, mlp_ratio=2)), pictures)
