"""Visual questions: where a model looked for its answer."""

from vqa.models import NormProduct, StackedAttention
from vqa.task import VQATask

__all__ = ["NormProduct", "StackedAttention", "VQATask"]
