"""All metrics of captions at once."""

import logging
from collections.abc import Mapping, Sequence

import torch

from captioning.metrics.base import check
from captioning.metrics.bleu import ORDERS, bleu, bleu_counts
from captioning.metrics.cider import DocumentFrequencies, cider_d
from captioning.metrics.meteor import meteor, wordnet
from captioning.metrics.rouge import rouge_l
from captioning.metrics.words import words_of
from mmcam.errors import UserError

_log = logging.getLogger(__name__)


def text_metrics(
    said: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    *,
    frequencies: DocumentFrequencies | None = None,
) -> dict[str, float]:
    """Judge the captions of some pictures.

    Args:
        said: The caption of each picture, by the picture's id.
        references: What people said of the same pictures, one sentence at least.
        frequencies: Document frequencies for CIDEr-D; those of these references if not given.

    Returns:
        BLEU-1 to BLEU-4, ROUGE-L, CIDEr-D, and METEOR where the data of WordNet are there.

    Raises:
        UserError: There are no captions, a picture has only one of the two, or no reference.
    """
    if not said:
        raise UserError("expected a caption at least, got none")
    for ours, theirs, lack in ((said, references, "no reference"), (references, said, "references and no caption")):
        without = [name for name in ours if name not in theirs]
        if without:
            raise UserError(
                f"expected captions and references of the same pictures; {len(without)} have {lack}, the first is "
                f"{without[0]!r}; leave them out of both"
            )
    for name in said:
        check(name, references[name])
    ours = [words_of(caption) for caption in said.values()]
    theirs = [[words_of(sentence) for sentence in references[name]] for name in said]
    pairs = list(zip(ours, theirs, strict=True))
    counts = torch.stack([bleu_counts(*pair) for pair in pairs]).sum(0)
    figures = {f"BLEU-{order}": float(bleu(counts, order)) for order in range(1, ORDERS + 1)}
    figures["ROUGE-L"] = sum(rouge_l(*pair) for pair in pairs) / len(pairs)
    figures["CIDEr-D"] = float(cider_d(ours, theirs, frequencies).mean())
    try:
        wordnet()
    except UserError as error:
        _log.warning("METEOR is left out: %s", error)
    else:
        figures["METEOR"] = sum(meteor(*pair) for pair in pairs) / len(pairs)
    return figures
