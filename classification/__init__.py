"""Classification: which layer places speak for a class."""

from classification.task import ClassificationTask

__all__ = ["ClassificationTask"]
