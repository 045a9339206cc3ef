"""Hugging Face's image classifiers: the classification task over a model and the processor that belongs to it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from classification.task import ClassificationTask
from mmcam.errors import UserError
from mmcam.huggingface.load import pretrained_classifier
from mmcam.huggingface.placement import check_present, placed
from mmcam.huggingface.task import Source
from mmcam.huggingface.windows import windows
from mmcam.task import Batch, Sample, Targets

PREFIXES = ("cls_token", "distillation_token", "register_tokens")
"""How transformers names the tokens that come before the places."""


class HFClassificationTask(ClassificationTask):
    """Explain classes with an image classifier of transformers: ViT, DeiT, Swin, ConvNeXt, ResNet, DINOv2 and others.

    y_c = the logit of class c. Pictures go through the model's own processor, and what it shows of them is measured, so
    that maps lie on the original whether it squashes, pads or cuts.
    """

    def __init__(
        self,
        model: str | nn.Module,
        processor: Any = None,  # noqa: ANN401
        *,
        layer: str | None = None,
        classes: list[str] | None = None,
        labels: list[str] | str | None = None,
        top_k: int = 1,
        prefix: int | None = None,
        source: Source | None = None,
    ) -> None:
        """Make the task.

        Args:
            model: A hub id ("google/vit-base-patch16-224"), a folder, or a model of transformers.
            processor: The image processor of a model that is given; loaded with one that is named.
            layer: Name of the explained layer; the last one with maps that the logits depend on if not given.
            classes: What to explain in every picture; the most likely classes if not given.
            labels: Names of the classes; the model's own (`config.id2label`) if not given.
            top_k: Number of most likely classes to explain.
            prefix: Tokens that come before those of the grid; the model's class, distillation and register tokens if
                not given.
            source: How a model that is named is loaded.

        Raises:
            UserError: There is no such model or layer, it is no image classifier, or there is nothing to explain.
        """
        if isinstance(model, str):
            s = source or Source()
            model, processor = pretrained_classifier(model, s.revision, s.trust_remote_code, s.dtype, s.device_map)
        if processor is None:
            raise UserError("expected a processor with a model that is made already; give processor=")
        check_present(model)
        processor = getattr(processor, "image_processor", processor)
        size = _pixels(processor, Image.new("RGB", (256, 256))).shape[1:]
        super().__init__(
            model.eval(),
            layer,
            classes,
            labels=_labels(model) if labels is None else labels,
            size=(size[0], size[1]),
            crop=False,
            top_k=top_k,
            prefix=_prefix(model) if prefix is None else prefix,
        )
        self.processor = processor

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Let the model's own processor make its inputs; where each lies on the original is measured.

        Raises:
            UserError: The processor makes inputs of several sizes of these pictures.
        """
        images = [_pixels(self.processor, sample.image) for sample in samples]
        if len({image.shape for image in images}) > 1:
            shapes = " and ".join(sorted({f"{h} x {w}" for _, h, w in (image.shape for image in images)}))
            raise UserError(
                f"expected inputs of one size, but this processor makes {shapes} of these pictures; explain them one "
                "at a time, --batch-size 1"
            )
        sizes = tuple((sample.image.height, sample.image.width) for sample in samples)
        shown = tuple(windows(self.processor, size)[0] for size in sizes)
        return Batch(torch.stack(images), tuple(sample.id for sample in samples), sizes, windows=shown)

    def probabilities(
        self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets
    ) -> Float[Tensor, "b t"]:
        """Of each class among all, or, where several may be true at once, of each by itself."""
        if getattr(getattr(self.model, "config", None), "problem_type", None) != "multi_label_classification":
            return super().probabilities(activations, batch, targets)
        return self.scores(activations, batch, replace(targets, foils=None)).sigmoid()

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Any:  # noqa: ANN401
        """Move the model, unless it was put where it is by a device map."""
        return self if placed(self.model) else super()._apply(fn, recurse)


def _pixels(processor: Any, image: Image.Image) -> Float[Tensor, "3 y x"]:  # noqa: ANN401
    """What a processor makes of one picture."""
    pixels = processor(images=image, return_tensors="pt")["pixel_values"]
    if pixels.ndim != 4 or len(pixels) != 1:
        raise UserError(
            f"expected a processor that makes one picture (1, 3, y, x) of one, got {tuple(pixels.shape)}; this task is "
            "for image classifiers"
        )
    return pixels[0]


def _labels(model: Any) -> list[str] | None:  # noqa: ANN401
    known = getattr(model.config, "id2label", None) or {}
    return [str(known[number]) for number in sorted(known)] or None


def _prefix(model: nn.Module) -> int | None:
    """Count the tokens before the places; None if the model has no such tokens."""
    found = {name.rpartition(".")[2]: x.shape[1] for name, x in model.named_parameters() if x.ndim == 3}
    counts = [found[name] for name in PREFIXES if name in found]
    return sum(counts) if counts else None
