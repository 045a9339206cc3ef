"""Other people's VQA models as they are, so that their checkpoints go on meaning what they meant."""

from vqa.peers.basic_vqa import BasicVQA
from vqa.peers.pytorch_vqa import ShowAskAttendAnswer

__all__ = ["CLASSES", "BasicVQA", "ShowAskAttendAnswer"]

CLASSES = (BasicVQA, ShowAskAttendAnswer)
"""What a folder may hold."""
