"""The samples of one command explained: which words of what is said, by which layers, and what comes of each."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from mmcam.errors import UserError, unknown

if TYPE_CHECKING:
    from mmcam.explanation import Explanation
    from mmcam.task import Batch, Sample, Targets, Task

logger = logging.getLogger(__name__)

Fuse = Literal["beside", "mean", "max", "product"]


class Phrases:
    """The words and phrases that the user wants explained (all words if none), and which have been met."""

    def __init__(self, phrases: Sequence[str]) -> None:
        self.phrases = [" ".join(phrase.casefold().split()) for phrase in phrases]
        self._met: set[str] = set()
        self._heard: set[str] = set()

    def spans(self, words: Sequence[str]) -> list[tuple[int, int]]:
        """Find them among the words of one picture, as half-open ranges; each range will be one row."""
        ends = range(1, len(words) + 1)
        if not self.phrases:
            return [(end - 1, end) for end in ends]
        self._heard.update(words)
        found = [
            (start, end)
            for phrase in self.phrases
            for end in ends
            for start in range(end)
            if " ".join(words[start:end]).casefold() == phrase
        ]
        self._met |= {" ".join(words[start:end]).casefold() for start, end in found}
        return found

    def check(self) -> None:
        """Complain about phrases that were met nowhere.

        Raises:
            UserError: None was met at all; where some were, the others may well be missing, and are logged.
        """
        missing = [phrase for phrase in self.phrases if phrase not in self._met]
        if missing and not self._met:
            raise unknown("word in what was said", missing[0], self._heard)
        for phrase in missing:
            logger.warning("%r was said of no picture", phrase)


@dataclass(frozen=True)
class Wanted:
    """What the user wants of every picture.

    Attributes:
        text: Caption, answer or class to explain; "" for what the model says itself.
        phrases: Which words of it.
        sentence: Give the whole of it a row too.
        method: Name of a method; "" for the task's own.
        heard: Explain it by the words heard, too.
        fuse: How the maps of several layers are joined: side by side, or one map of all, see `mmcam.methods.fuse`.
    """

    text: str
    phrases: Phrases
    sentence: bool = False
    method: str = ""
    heard: bool = False
    fuse: Fuse = "beside"


@dataclass(frozen=True)
class Explained:
    """One sample's explanation, the ids of its rows (-1 for a row of several), and all that was said of it."""

    explanation: "Explanation"
    ids: list[int]
    said: str


def explain_batch(
    task: "Task", samples: "Sequence[Sample]", wanted: Wanted, others: "Sequence[Task]" = ()
) -> list[Explained]:
    """Explain what the user wants of some samples.

    Args:
        task: The task, in eval mode.
        samples: The samples.
        wanted: What is explained of them.
        others: The same model, cut at other layers, whose maps are joined with the first one's.

    Returns:
        One a sample.

    Raises:
        UserError: A name or word is unknown, the task takes no question, or no score depends on the layer.
    """
    import torch

    from mmcam.doctor import depends_on_layer
    from mmcam.engine import check, explain_activations
    from mmcam.heard import with_words
    from mmcam.methods.fuse import beside, fuse

    batch = task.collate(samples)
    if samples[0].text and not any(batch.texts):
        raise UserError(
            f"{type(task).__name__} takes no question, got {samples[0].text!r}; use a config such as vqa/scenes"
        )
    targets = task.given([wanted.text] * len(batch), batch) if wanted.text else None
    batch = batch.to(task.device)
    with torch.no_grad():
        activations = task.trunk(batch)
        check(activations, batch, task.layer)
        targets = (task.predict(activations, batch) if targets is None else targets).to(activations.device)
    said = [task.separator.join(words) for words in targets.words]
    whole = [[(0, len(words))] if wanted.sentence and len(words) > 1 else [] for words in targets.words]
    spans = [wanted.phrases.spans(words) + more for words, more in zip(targets.words, whole, strict=True)]
    targets = targets.merged(spans, task.separator)
    explanations = explain_activations(task, activations, batch, targets, wanted.method)
    flags = {flag for explanation in explanations for flag in explanation.flags}
    if flags == {"zero"} and not depends_on_layer(task, batch, targets):
        raise UserError(f"no score depends on the layer {task.layer!r}: every map is zero; choose another with --layer")
    if wanted.heard:
        explanations = with_words(explanations, task, activations, batch, targets)
    ids = targets.row_ids()
    if others:
        layers = [explanations, *(_at_other(other, batch, targets, wanted.method) for other in others)]
        joined = [
            beside(maps) if wanted.fuse == "beside" else fuse(maps, wanted.fuse) for maps in zip(*layers, strict=True)
        ]
        repeats = len(layers) if wanted.fuse == "beside" else 1
        explanations, ids = joined, [[i for i in row for _ in range(repeats)] for row in ids]
    return [Explained(*each) for each in zip(explanations, ids, said, strict=True)]


def _at_other(task: "Task", batch: "Batch", targets: "Targets", method: str) -> "list[Explanation]":
    """Explain the same words at another layer: the task is the same model, cut there. Shared are pictures and words."""
    import torch

    from mmcam.engine import check, explain_activations

    batch = replace(batch, memo={})
    with torch.no_grad():
        activations = task.trunk(batch)
    check(activations, batch, task.layer)
    return explain_activations(task, activations, batch, targets, method)
