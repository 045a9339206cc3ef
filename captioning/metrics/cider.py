"""CIDEr-D (Vedantam et al., arXiv 1411.5726): how much of what is particular about a picture a caption says.

Captions are compared as vectors of n-grams, weighted by how rare these are among the pictures' references (tf-idf).
Differs from the paper's Eq. 1 as coco-caption does: counts are not divided by the caption's length.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from captioning.metrics.base import PerCaption, Words
from mmcam.errors import UserError

ORDERS = 4
SIGMA = 6.0
# Between texts; both are white space to Python, so no word holds them.
CAPTION, SENTENCE = "\x1e", "\x1f"

Gram = tuple[str, ...]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DocumentFrequencies:
    """In how many documents an n-gram occurs; a document is all references of one picture.

    Attributes:
        documents: Number of documents.
        counts: Number of those that hold the n-gram.
    """

    documents: int
    counts: Mapping[Gram, int]

    def __post_init__(self) -> None:
        if self.documents < 1:
            raise UserError("expected the references of a picture at least to count document frequencies, got none")

    @classmethod
    def of(cls, references: Iterable[Sequence[Words]]) -> "DocumentFrequencies":
        """Count n-grams up to n = 4.

        Args:
            references: Of each picture, the words of its references.

        Returns:
            The frequencies.
        """
        documents, counts = 0, Counter[Gram]()
        for sentences in references:
            documents += 1
            counts.update({gram for words in sentences for gram in _grams(words)})
        return cls(documents, counts)


def cider_d(
    said: Sequence[Words], references: Sequence[Sequence[Words]], frequencies: DocumentFrequencies | None = None
) -> Float[Tensor, " n"]:
    """Compute CIDEr-D of each caption.

    Args:
        said: The captions' words.
        references: Those of each caption's references.
        frequencies: Of a corpus; of these references if not given. These should be many: an n-gram that every picture's
            references have weighs nothing, so of one picture alone CIDEr-D is 0.

    Returns:
        Ten times the mean over references and n = 1 to 4 of the cosine, clipped and with a Gaussian penalty on the
        difference of lengths (σ = 6): from 0 to 10.
    """
    if not said:
        return torch.zeros(0, dtype=torch.float64)
    frequencies = frequencies or DocumentFrequencies.of(references)
    if frequencies.documents == 1:
        _log.warning("CIDEr-D is 0 where document frequencies are of one picture; give those of a corpus")
    return torch.tensor(
        [
            _mean_similarity(_Vector(caption, frequencies), [_Vector(words, frequencies) for words in sentences])
            for caption, sentences in zip(said, references, strict=True)
        ],
        dtype=torch.float64,
    )


class _Vector:
    """A sentence as tf-idf weights of its n-grams, one dictionary an n."""

    def __init__(self, words: Words, frequencies: DocumentFrequencies) -> None:
        self.weights: list[dict[Gram, float]] = [{} for _ in range(ORDERS)]
        for gram, n in _grams(words).items():
            rare = math.log(frequencies.documents) - math.log(max(1, frequencies.counts.get(gram, 0)))
            self.weights[len(gram) - 1][gram] = n * rare
        self.norms = [math.sqrt(sum(weight**2 for weight in weights.values())) for weights in self.weights]
        self.length = max(0, len(words) - 1)  # coco-caption counts the bigrams


def _mean_similarity(said: _Vector, references: Sequence[_Vector]) -> float:
    total = 0.0
    for reference in references:
        penalty = math.exp(-((said.length - reference.length) ** 2) / (2 * SIGMA**2))
        for mine, its, norms in zip(
            said.weights, reference.weights, zip(said.norms, reference.norms, strict=True), strict=True
        ):
            if all(norms):
                common = sum(min(mine[gram], its[gram]) * its[gram] for gram in mine.keys() & its.keys())
                total += penalty * common / math.prod(norms)
    return 10 * total / ORDERS / len(references)


def _grams(words: Words) -> Counter[Gram]:
    return Counter(tuple(words[i : i + n]) for n in range(1, ORDERS + 1) for i in range(len(words) - n + 1))


class CiderD(PerCaption):
    """CIDEr-D, the mean over captions.

    What is kept are the words themselves: document frequencies are those of all references, of all processes.
    """

    def __init__(self, frequencies: DocumentFrequencies | None = None, **kwargs: Any) -> None:  # noqa: ANN401
        """Choose the document frequencies.

        Args:
            frequencies: Of a corpus; of the references that were seen if not given.
            kwargs: Of `torchmetrics.Metric`.
        """
        super().__init__(**kwargs)
        self.frequencies = frequencies

    def measure(self, said: Words, references: Sequence[Words]) -> UInt8[Tensor, " bytes"]:
        """The words in UTF-8, since processes exchange tensors."""
        text = SENTENCE.join(" ".join(words) for words in (said, *references)) + CAPTION
        return torch.tensor(list(text.encode("utf-8", "surrogatepass")), dtype=torch.uint8)

    def nothing(self) -> UInt8[Tensor, "0"]:
        """No bytes."""
        return torch.zeros(0, dtype=torch.uint8)

    def values(self, facts: UInt8[Tensor, " bytes"]) -> Float[Tensor, " n"]:
        """CIDEr-D of each caption."""
        texts = bytes(facts.numpy()).decode("utf-8", "surrogatepass").split(CAPTION)[:-1]
        pairs = [[sentence.split() for sentence in text.split(SENTENCE)] for text in texts]
        return cider_d([pair[0] for pair in pairs], [pair[1:] for pair in pairs], self.frequencies)
