"""METEOR as in Lavie and Agarwal (WMT 2007): words matched by form, by stem and by WordNet's synonyms.

Differs from coco-caption, which runs METEOR 1.5 in Java: that one has other parameters, weighs content words more and
matches paraphrases. Figures of the two cannot be compared. nltk's, which this is, looks synonyms up by their stems, so
that it finds couch and sofa but not car and automobile ("automobil").
"""

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import nltk.data
import torch
from jaxtyping import Float
from nltk.corpus.reader import WordNetCorpusReader
from nltk.translate.meteor_score import meteor_score
from torch import Tensor

from captioning.metrics.base import PerCaption, Words
from mmcam.errors import UserError


@cache
def wordnet() -> WordNetCorpusReader:
    """Read WordNet where nltk finds it.

    Raises:
        UserError: It is not there; mmcam downloads nothing by itself.
    """
    try:
        root = nltk.data.find("corpora/wordnet")
    except LookupError:
        raise UserError(
            "METEOR expected the data of WordNet, which nltk does not find; get them by: "
            "python -m nltk.downloader wordnet"
        ) from None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The multilingual functions")  # captions are English
        return WordNetCorpusReader(root, None)


def meteor(said: Words, references: Sequence[Words]) -> float:
    """Compute METEOR of one caption, the best over its references.

    Args:
        said: The caption's words.
        references: Those of its references.

    Returns:
        From 0 to 1; a caption of n words that equals a reference has 1 - 1 / (2 n³).

    Raises:
        UserError: The data of WordNet are not there.
    """
    return float(meteor_score(references, said, wordnet=wordnet()))


class Meteor(PerCaption):
    """METEOR, the mean over captions."""

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        """Look for WordNet.

        Args:
            kwargs: Of `torchmetrics.Metric`.

        Raises:
            UserError: It is not there.
        """
        super().__init__(**kwargs)
        wordnet()

    def measure(self, said: Words, references: Sequence[Words]) -> Float[Tensor, "1"]:
        """The caption's value."""
        return torch.tensor([meteor(said, references)], dtype=torch.float64)

    def nothing(self) -> Float[Tensor, "0"]:
        """No value."""
        return torch.zeros(0, dtype=torch.float64)
