"""ViLT puts the patches of a picture into a random order at every forward; here it is the same one, and known."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmcam.huggingface.draws import drawing
from mmcam.huggingface.leaf import Run
from mmcam.networks.twin import twin

__all__ = ["patches", "seeded"]

SEED = 0


def seeded(run: Run) -> Run:
    """Run with random numbers of our own; the caller's go on as if nothing had been drawn."""

    def fixed(model: nn.Module) -> Any:  # noqa: ANN401
        with drawing(model, SEED):
            return run(model)

    return fixed


def patches(model: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Find out where each image token of a seeded forward lies.

    Args:
        model: ViLT.
        inputs: With `pixel_values` and `pixel_mask`.

    Returns:
        `patch_index` (b, n, 2), row and column, -1 for padding; `patch_sizes` (b, 2), rows and columns of each picture.
    """

    def order(whole: Any) -> Any:  # noqa: ANN401
        length = whole.config.max_image_length
        return whole.vilt.embeddings.visual_embed(inputs["pixel_values"], inputs["pixel_mask"], length)

    with torch.no_grad():
        _, mask, (index, (height, width)) = seeded(order)(twin(model))
    picture = inputs["pixel_mask"]
    rows = picture.any(2).sum(1) * height // picture.shape[1]
    columns = picture.any(1).sum(1) * width // picture.shape[2]
    return {
        "patch_index": torch.where(mask[:, 1:, None].bool(), index, -1),
        "patch_sizes": torch.stack([rows, columns], 1),
    }
