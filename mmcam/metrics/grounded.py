"""Grounded captioning: are the things of a picture named, and does each map of such a word find its thing?

F1_all and F1_loc of GVD (Zhou et al., arXiv 1812.06587) as the script of ActivityNet-Entities counts them:

- A *said* word is held against the boxes of the first true word of its name; if there is none, it is hallucinated. A
  *true* word is held against the first said word of its name; if there is none, it is missed. A word is found if the
  IoU is one half or more (the script asks for more than one half) with any of the boxes.
- Precision is the share of the said words that are found, recall that of the true words. F1_all counts hallucinated
  and missed words as wrong, F1_loc leaves them out.
- Per class, precision and recall are summed over all classes and divided by the number of classes of true words; a
  class that was never said has precision 0. Per sentence, F1 is taken in each sentence and averaged; a sentence without
  words on either side is excluded (NaN). Where both are 0, F1 is 0.
- Said words that people said too but did not annotate are left out.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.metrics.base import Case, Figure, summarise
from mmcam.metrics.boxes import ENOUGH, THRESHOLD, best_iou, box_iou, largest_boxes
from mmcam.metrics.counts import PerPicture, name_number, of_counts

__all__ = ["GroundedF1", "GroundedF1PerSentence", "Judged", "Sentence", "judge_words", "sentence_f1"]


@dataclass(frozen=True)
class Judged:
    """A word, judged.

    Attributes:
        name: Its class.
        said: Whether it is one of the caption, else one of the truth.
        matched: Whether the other side has it too.
        found: Whether it is in the right place.
    """

    name: str
    said: bool
    matched: bool
    found: bool


@dataclass(frozen=True)
class Sentence:
    """A caption whose words are judged.

    Attributes:
        words: See `judge_words`.
        unit: Number of the picture.
    """

    words: tuple[Judged, ...]
    unit: int


def judge_words(
    said: Sequence[str],
    boxes: Float[Tensor, "s 4"],
    true: Sequence[str],
    truth: Sequence[Float[Tensor, "_ 4"]],
    unannotated: Collection[str] = (),
) -> tuple[Judged, ...]:
    """Judge the object words of one caption.

    Args:
        said: Names of the caption's object words.
        boxes: Where their maps say they are.
        true: Names of the true object words.
        truth: The boxes of each of them.
        unannotated: Names that the truth has no boxes for, which nobody is blamed for saying.

    Returns:
        The said words, then the true ones.
    """
    judged = []
    for name, box in zip(said, boxes, strict=True):
        if name in true:
            judged.append(Judged(name, True, True, _found(box, truth[true.index(name)])))
        elif name not in unannotated:
            judged.append(Judged(name, True, False, False))
    for name, own in zip(true, truth, strict=True):
        matched = name in said
        judged.append(Judged(name, False, matched, matched and _found(boxes[said.index(name)], own)))
    return tuple(judged)


def sentence_f1(judged: Sequence[Judged], right_words_only: bool = False) -> float:
    """Give the F1 of one caption.

    Args:
        judged: Its words; see `judge_words`.
        right_words_only: F1_loc instead of F1_all.

    Returns:
        F1; NaN if there is no word on either side.
    """
    counting = [word for word in judged if word.matched or not right_words_only]
    said, true = ([word.found for word in counting if word.said is side] for side in (True, False))
    if not said or not true:
        return float("nan")
    precision, recall = sum(said) / len(said), sum(true) / len(true)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _found(box: Float[Tensor, " 4"], truth: Float[Tensor, "b 4"]) -> bool:
    return bool((box_iou(box[None], truth.to(box)) >= ENOUGH).any())


def _class_f1(counts: Float[Tensor, "*s c 5"]) -> Float[Tensor, "*s"]:
    """From the numbers of words in `GroundedF1.rows`, summed by class."""
    said, hit, true, recalled, every = counts.unbind(-1)
    classes = (every > 0).sum(-1)
    precision = (hit / said.clamp(min=1)).sum(-1) / classes
    recall = (recalled / true.clamp(min=1)).sum(-1) / classes
    both = precision + recall
    return torch.where(both == 0, 0, 2 * precision * recall / both)  # without any class it is NaN


class GroundedF1(PerPicture):
    """F1 per class, the box of a word being that of the largest part of its map.

    Of a case, the said words are its words, each under the name of that of its things which its box fits best, and the
    hallucinated ones, which are about nothing, under their own; the true words are the names of all things of the
    picture. Other sentences are given as `Sentence`.

    Attributes:
        rows: Picture, class, and the numbers of said words, of those found, of true words, of those found and, whether
            or not they are counted in F1_loc, of all true words.
    """

    higher_is_better = True
    rows: list[Tensor]

    def __init__(self, right_words_only: bool = False, threshold: float = THRESHOLD) -> None:
        """Choose.

        Args:
            right_words_only: F1_loc instead of F1_all.
            threshold: Where the maps are cut, as a part of their maxima.
        """
        super().__init__()
        self.right_words_only, self.threshold = right_words_only, threshold
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def measure(self, case: Case) -> Float[Tensor, " 1"]:
        """F1 of this caption."""
        words = self._judge(case).words
        return torch.tensor([sentence_f1(words, self.right_words_only)], device=case.maps.device)

    def update(self, case: Case | Sentence) -> None:
        """Judge one caption, or take in one that is judged."""
        sentence = self._judge(case) if isinstance(case, Case) else case
        device = case.maps.device if isinstance(case, Case) else self.device
        rows = []
        for word in sentence.words:
            counts = word.matched or not self.right_words_only
            one = [int(counts), int(counts and word.found)]
            rows.append([sentence.unit, name_number(word.name), *([*one, 0, 0, 0] if word.said else [0, 0, *one, 1])])
        self.rows.append(torch.tensor(rows, dtype=torch.long, device=device).view(-1, 7))
        self.values.append(torch.tensor([sentence_f1(sentence.words, self.right_words_only)], device=device))
        self.units.append(torch.tensor([sentence.unit], device=device))
        self.classes.append(torch.tensor([0], device=device))

    def compute(self) -> Figure:
        """F1 over all captions; n is the number of words that were counted."""
        rows = torch.cat(list(self.rows)) if len(self.rows) else torch.zeros(0, 7, dtype=torch.long)
        n = int(rows[:, [2, 4]].sum())
        return of_counts(rows[:, 2:], rows[:, 0], rows[:, 1], _class_f1, n=n)

    def _judge(self, case: Case) -> Sentence:
        things = case.things
        boxes = largest_boxes(case.maps, self.threshold, things.ignored).cpu()
        said = list(case.words)
        for i, about in enumerate(case.about):
            if about:
                fits = best_iou(boxes[i].expand(len(about), 4), [things.boxes[k : k + 1] for k in about])
                said[i] = things.names[about[int(fits.nan_to_num(nan=-1.0).argmax())]]
        true = list(dict.fromkeys(things.names))
        return Sentence(judge_words(said, boxes, true, [things.boxes[list(things.of(n))] for n in true]), case.unit)


class GroundedF1PerSentence(GroundedF1):
    """F1 of each sentence, averaged: classes count by how often they are named."""

    def compute(self) -> Figure:
        """The mean over all captions."""
        values, units, _ = self.kept()
        return summarise(values, units)
