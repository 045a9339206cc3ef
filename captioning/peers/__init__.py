"""Other people's captioners as modules of ours, for the weights that `captioning.importers` brings in."""

from captioning.peers.attend import Att2in2, ShowAttendTell, UpDown
from captioning.peers.image_first import ImageFirst

__all__ = ["CLASSES", "Att2in2", "ImageFirst", "ShowAttendTell", "UpDown"]

CLASSES = (ImageFirst, ShowAttendTell, Att2in2, UpDown)
"""What a folder may hold."""
