"""Captioning: where a captioner looked for every word."""

from captioning.models import AttendAndTell, ShowAndTell
from captioning.task import CaptioningTask

__all__ = ["AttendAndTell", "CaptioningTask", "ShowAndTell"]
