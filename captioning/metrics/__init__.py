"""Judging captions: each metric is a function on words and a torchmetrics `Metric` that streams it over texts.

Rules that hold for all of them:

- They are coco-caption's, to the last digit that it prints; `docs/text_metrics.md` says where they differ.
- Scales are those of coco-caption: BLEU, ROUGE-L and METEOR from 0 to 1, CIDEr-D from 0 to 10.
- A caption without words is judged, and gets 0. So does one whose references have no words. No reference is an error.
"""

from captioning.metrics.bleu import Bleu
from captioning.metrics.cider import CiderD, DocumentFrequencies
from captioning.metrics.corpus import text_metrics
from captioning.metrics.meteor import Meteor
from captioning.metrics.rouge import RougeL
from captioning.metrics.words import words_of

__all__ = ["Bleu", "CiderD", "DocumentFrequencies", "Meteor", "RougeL", "text_metrics", "words_of"]
