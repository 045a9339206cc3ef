"""Maps against the truth: every method and every baseline judged by every metric, one picture after another."""

import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmcam.draw import upsample
from mmcam.errors import UserError
from mmcam.evaluation.baselines import baselines
from mmcam.explanation import Explanation
from mmcam.metrics.base import Case, Figure, PerMap, summarise
from mmcam.truth import Things, Truth

__all__ = ["RIGHT", "Evaluation"]

logger = logging.getLogger(__name__)

RIGHT = ("vqa_accuracy", "exact_match", "class_right")
"""What a truth may call the judgement that says whether a question is answered rightly."""


class Evaluation:
    """The maps of a run, judged.

    Attributes:
        rows: Metrics by row (methods, then baselines) and name.
        skipped: Number of pictures in which no word names a thing.
        judged: Number of words that name a thing of their picture, or for which people pointed.
    """

    def __init__(
        self,
        metrics: Mapping[str, PerMap],
        truth: Truth,
        *,
        seed: int = 0,
        signed: bool = True,
        right_only: bool = False,
    ) -> None:
        """Start.

        Args:
            metrics: By name; each row gets copies.
            truth: About the pictures.
            seed: Of the random row.
            signed: Whether the explanations have their maps before ReLU, which the flipped row needs.
            right_only: Judge the maps of right answers only; the truth must be one of questions or classes.
        """
        self.truth, self.signed, self.right_only = truth, signed, right_only
        self.rows: dict[str, dict[str, PerMap]] = {}
        self.skipped = self.judged = 0
        self._metrics = dict(metrics)
        self._random = torch.Generator().manual_seed(seed)
        self._classes: dict[str, int] = {}
        self._said: dict[int, tuple[str, ...]] = {}
        self._absent: list[tuple[int, float]] = []

    def add(self, number: int, explanations: Mapping[str, Explanation]) -> tuple[int, ...]:
        """Judge one picture.

        Args:
            number: Of the picture or question in the truth.
            explanations: By method, all of the same words; the first is the method under test.

        Returns:
            The numbers of the words that were judged.
        """
        first = next(iter(explanations.values()))
        self._said.setdefault(number, first.words)  # of several texts that people gave the first, as without a dump
        about = self.truth.about(number, first.words)
        human = self.truth.human(number)
        if human is None:  # where people pointed there are no things to be absent
            self._absent += [(number, float(not meant)) for meant in about if meant is not None]
        kept = tuple(i for i, meant in enumerate(about) if meant is not None)
        if kept and self.right_only and not self._right(number, first.words):
            kept = ()
        if not kept:
            self.skipped += 1
            return ()
        things = self.truth.things(number)
        if tuple(things.masks.shape[1:]) != first.size:
            raise UserError(
                f"{first.id}: expected things at the picture's size {first.size}, got {tuple(things.masks.shape[1:])}; "
                "the run and the truth are of different pictures"
            )
        meant = tuple(about[i] or () for i in kept)
        self.judged += sum(map(bool, meant)) if human is None else len(meant)
        masks = torch.stack([things.masks[list(group)].any(0) for group in meant])
        every = {**explanations, **self._baselines(first)}
        for name, explanation in every.items():
            case = self._case(explanation, kept, masks, meant, things, number, human)
            for metric in self._row(name).values():
                metric.update(case)
        return kept

    def figures(self) -> dict[str, dict[str, Figure]]:
        """Every metric of every row."""
        return {row: {name: metric.compute() for name, metric in row_.items()} for row, row_ in self.rows.items()}

    def said(self) -> dict[str, Figure]:
        """What the sentences, answers or classes themselves are worth, and how many words name what is not there."""
        judged = self.truth.judge(self._said) if self._said else {}
        units = torch.tensor(list(self._said), dtype=torch.long)
        figures = {name: summarise(values, units) for name, values in judged.items()}
        if self._absent:
            numbers, absent = zip(*self._absent, strict=True)
            figures["absent_things"] = summarise(torch.tensor(absent), torch.tensor(numbers))
        return figures

    def _baselines(self, first: Explanation) -> dict[str, Explanation]:
        return baselines(first, self._random, signed=self.signed)

    def _row(self, name: str) -> dict[str, PerMap]:
        return self.rows.setdefault(name, deepcopy(self._metrics))

    def _right(self, number: int, words: Sequence[str]) -> bool:
        judged = self.truth.judge({number: words})
        for name in RIGHT:
            if name in judged:
                return bool(judged[name][0] > 0.5)
        raise UserError(
            f"expected data that say which answers are right, got {type(self.truth).__name__}; leave --right-only out"
        )

    def _case(
        self,
        explanation: Explanation,
        kept: Sequence[int],
        masks: Bool[Tensor, "n H W"],
        about: tuple[tuple[int, ...], ...],
        things: Things,
        number: int,
        human: Float[Tensor, "a H W"] | None,
    ) -> Case:
        small = explanation.maps[list(kept)].nan_to_num(nan=0.0, posinf=0.0)
        words = tuple(explanation.words[i] for i in kept)
        classes = [things.names[group[0]] if group else word for group, word in zip(about, words, strict=True)]
        return Case(
            words=words,
            maps=upsample(small, explanation.size, explanation.window),
            small=small,
            masks=masks,
            about=about,
            things=things,
            classes=torch.tensor([self._classes.setdefault(name, len(self._classes)) for name in classes]),
            unit=number,
            human=human,
            window=explanation.window,
        )
