"""Captioners by name: ours and those that `captioning.importers` brings in."""

from captioning.captioner import Captioner
from captioning.models import AttendAndTell, ShowAndTell
from captioning.peers import CLASSES
from mmcam.checkpoint import load_model

__all__ = ["load"]


def load(name: str) -> Captioner:
    """Load a captioner.

    Args:
        name: Shipped weights, a folder, or a hub id.

    Returns:
        The captioner, in eval mode.
    """
    return load_model(name, (ShowAndTell, AttendAndTell, *CLASSES))
