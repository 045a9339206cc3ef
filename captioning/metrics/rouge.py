"""ROUGE-L (Lin, 2004): how much of a caption is in a reference in the same order."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from captioning.metrics.base import PerCaption, Words

BETA = 1.2


def rouge_l(said: Words, references: Sequence[Words], beta: float = BETA) -> float:
    """Compute ROUGE-L of one caption, F = (1 + β²) P R / (R + β² P).

    As in coco-caption, P is the best precision and R the best recall, be they of two references.

    Args:
        said: The caption's words.
        references: Those of its references.
        beta: How much more recall weighs.

    Returns:
        From 0 to 1.
    """
    common = [_common(said, reference) for reference in references]
    precision = max(common) / max(1, len(said))
    recall = max(n / max(1, len(reference)) for n, reference in zip(common, references, strict=True))
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision) if precision else 0.0


def _common(one: Words, other: Words) -> int:
    """Length of the longest common subsequence; `row[j]` is that of the words so far and j words of the other."""
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for j, its in enumerate(other, 1):
            row[j], before = before + 1 if word == its else max(row[j], row[j - 1]), row[j]
    return row[-1]


class RougeL(PerCaption):
    """ROUGE-L, the mean over captions."""

    def measure(self, said: Words, references: Sequence[Words]) -> Float[Tensor, "1"]:
        """The caption's value."""
        return torch.tensor([rouge_l(said, references)], dtype=torch.float64)

    def nothing(self) -> Float[Tensor, "0"]:
        """No value."""
        return torch.zeros(0, dtype=torch.float64)
