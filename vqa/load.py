"""VQA models by name: ours and those that `vqa.importers` brings in."""

from mmcam.checkpoint import load_model
from vqa.models import NormProduct, StackedAttention, VQAModel
from vqa.peers import CLASSES

__all__ = ["load"]


def load(name: str) -> VQAModel:
    """Load a VQA model.

    Args:
        name: Shipped weights, a folder, or a hub id.

    Returns:
        The model, in eval mode.
    """
    return load_model(name, (NormProduct, StackedAttention, *CLASSES))
