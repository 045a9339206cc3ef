"""BLEU-1 to BLEU-4 (Papineni et al., ACL 2002): how many of a caption's n-grams are in a reference.

A statistic of the corpus: n-grams are counted over all captions before they are divided. Each n-gram counts at most as
often as in the reference that has most of it; a corpus shorter than its references (of each, the one whose length is
closest) pays the brevity penalty.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from nltk.translate.bleu_score import closest_ref_length, modified_precision
from torch import Tensor

from captioning.metrics.base import PerCaption, Words
from mmcam.errors import UserError
from mmcam.metrics.base import Figure

ORDERS = 4
TINY, SMALL = 1e-15, 1e-9  # coco-caption's smoothing


def bleu_counts(said: Words, references: Sequence[Words]) -> Int[Tensor, "10"]:
    """Count what BLEU is made of.

    Args:
        said: The caption's words.
        references: Those of its references.

    Returns:
        N-grams that a reference has, for n = 1 to 4; n-grams; words; words of the reference closest in length, the
        shorter of two.
    """
    orders = range(1, ORDERS + 1)
    right = [modified_precision(references, said, n).numerator for n in orders]
    # Not nltk's denominators: they are 1 where a caption is too short to have an n-gram.
    every = [max(0, len(said) - n + 1) for n in orders]
    return torch.tensor([*right, *every, len(said), closest_ref_length(references, len(said))])


def bleu(counts: Int[Tensor, "*b 10"] | Float[Tensor, "*b 10"], order: int = ORDERS) -> Float[Tensor, "*b"]:
    """Compute BLEU from counts, of a caption or summed over a corpus.

    Smoothed as in coco-caption, with 1e-15 above and 1e-9 below the line: without a common 4-gram BLEU-4 is small and
    not 0; of captions that are all too short for a 4-gram, it is about 0.03 where they are right.

    Args:
        counts: See `bleu_counts`.
        order: The longest n-grams.

    Returns:
        From 0 to 1.
    """
    counts = counts.double()
    right, every, words, reference = counts[..., :order], counts[..., ORDERS:-2], counts[..., -2], counts[..., -1]
    precision = ((right + TINY) / (every[..., :order] + SMALL)).log().mean(-1).exp()
    ratio = (words + TINY) / (reference + SMALL)
    return precision * (1 - 1 / ratio).clamp(max=0).exp()


class Bleu(PerCaption):
    """BLEU of a corpus, its interval by resampling pictures, and BLEU of each caption."""

    def __init__(self, order: int = ORDERS, **kwargs: Any) -> None:  # noqa: ANN401
        """Choose the order.

        Args:
            order: 4 for BLEU-4.
            kwargs: Of `torchmetrics.Metric`.

        Raises:
            UserError: The order is not among 1 to 4.
        """
        if not 1 <= order <= ORDERS:
            raise UserError(f"expected an order of BLEU from 1 to {ORDERS}, got {order}")
        super().__init__(**kwargs)
        self.order = order

    def measure(self, said: Words, references: Sequence[Words]) -> Int[Tensor, "1 10"]:
        """Counts, since the corpus is divided as a whole."""
        return bleu_counts(said, references)[None]

    def nothing(self) -> Int[Tensor, "0 10"]:
        """No counts."""
        return torch.zeros(0, 2 * ORDERS + 2, dtype=torch.long)

    def values(self, facts: Int[Tensor, "n 10"]) -> Float[Tensor, " n"]:
        """BLEU of each caption; their mean is not that of the corpus."""
        return bleu(facts, self.order)

    def figure(
        self,
        facts: Int[Tensor, "n 10"],
        units: Int[Tensor, " n"],
        *,
        samples: int = 1000,
        seed: int = 0,
        level: float = 0.95,
    ) -> Figure:
        """BLEU of the corpus; the interval's counts are summed anew over resampled pictures."""
        if not len(facts):
            return Figure(float("nan"), float("nan"), float("nan"), 0, 0)
        different, inverse = units.unique(return_inverse=True)
        count = len(different)
        sums = torch.zeros(count, facts.shape[1], dtype=torch.float64).index_add_(0, inverse, facts.double())
        drawn = torch.randint(count, (samples, count), generator=torch.Generator().manual_seed(seed))
        times = torch.zeros(samples, count, dtype=torch.float64).scatter_add_(
            1, drawn, torch.ones(drawn.shape, dtype=torch.float64)
        )
        tail = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
        low, high = bleu(times @ sums, self.order).quantile(tail).tolist()
        return Figure(float(bleu(facts.sum(0), self.order)), low, high, len(facts), 0)
