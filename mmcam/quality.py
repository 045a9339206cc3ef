"""How good a shipped model is, on scenes of any fresh seed: what it says, and whether its maps point at what it says.

A map *hits* if the peak of the map at the picture's size lies inside the exact mask of the things that the word is
about. Beside every method stand the rows that know nothing of the word: the picture's centre, a random place, the norm
of the activations, and the same maps with the sign flipped. A method that does not beat them explains nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from mmcam.engine import explain_activations
from mmcam.explanation import Explanation
from mmcam.scenes.draw import draw
from mmcam.scenes.world import Scene
from mmcam.scenes.write import scenes
from mmcam.task import Batch, Targets, Task


class Quality(ABC):
    """A measurement of one kind of task; a config names it under `quality:`."""

    @abstractmethod
    def measure(self, task: Task, seed: int, limit: int) -> dict[str, Any]:
        """Measure on fresh scenes.

        Args:
            task: The task under test.
            seed: Of the world; the shipped models were trained on seed 0.
            limit: Number of pictures.

        Returns:
            Names and figures, ready for JSON.
        """

    def source(self, seed: int) -> str:
        """Say what data are measured, for the record."""
        return f"scenes, split test, seed {seed}"


@dataclass
class Pointing:
    """Counts of hits of one method or baseline.

    Attributes:
        hits: Peaks inside the right thing.
        others: Peaks inside another thing.
        heavier: Maps with more mass in the right thing than in any other one.
    """

    hits: list[bool] = field(default_factory=list)
    others: list[bool] = field(default_factory=list)
    heavier: list[bool] = field(default_factory=list)

    def add(
        self,
        place: tuple[int, int] | None,
        right: Bool[np.ndarray, "h w"],
        wrong: Bool[np.ndarray, "n h w"],
        map: Float[Tensor, "h w"] | None,
    ) -> None:
        """Count one map.

        Args:
            place: Row and column of its peak; None, a miss, for a map that is nowhere positive.
            right: Where the thing is.
            wrong: Where each of the other things is.
            map: The map at the picture's size; None for baselines that are a place only.
        """
        self.hits.append(place is not None and bool(right[place]))
        self.others.append(place is not None and bool(len(wrong) and wrong[:, place[0], place[1]].any()))
        if map is not None and len(wrong):
            values = map.nan_to_num(0.0).numpy()
            mass = [float(values[other].sum()) for other in wrong]
            self.heavier.append(float(values[right].sum()) > max(mass))

    def figures(self, name: str) -> dict[str, float]:
        """Shares, under names that begin alike: the hits, "…_other" and "…_heavier"."""
        figures = {name: _mean(self.hits), f"{name}_other": _mean(self.others)}
        return figures | ({f"{name}_heavier": _mean(self.heavier)} if self.heavier else {})


def _mean(values: Sequence[bool]) -> float:
    return round(float(np.mean(values)), 4) if values else float("nan")


class PointingTable:
    """The pointing of a method beside its baselines, in scenes with two or more things."""

    def __init__(self, name: str, seed: int) -> None:
        """Start counting.

        Args:
            name: First part of the figures' names, "noun_pointing".
            seed: Of the random row.
        """
        self.name = name
        self.rows: dict[str, Pointing] = {}
        self._random = np.random.RandomState(seed)

    def add(
        self,
        explanations: dict[str, Explanation],
        row: int,
        masks: Bool[np.ndarray, "n h w"],
        about: Sequence[int],
    ) -> None:
        """Count one word in all rows.

        Args:
            explanations: The same picture by each method; the method under test is called "".
            row: Number of the word.
            masks: Of all things of the scene.
            about: Which things the word means.
        """
        right = np.logical_or.reduce(masks[list(about)])
        wrong = np.delete(masks, list(about), axis=0)
        h, w = masks.shape[1:]
        for method, explanation in explanations.items():
            place = explanation.peaks()[row]
            self._row(method).add(place, right, wrong, explanation.upsample()[row])
        self._row("centre").add((h // 2, w // 2), right, wrong, None)
        self._row("random").add((self._random.randint(h), self._random.randint(w)), right, wrong, None)

    def miss(self) -> None:
        """Count a word that means nothing in the picture: a miss of the method under test."""
        self._row("").hits.append(False)

    def figures(self) -> dict[str, int | float]:
        """All shares and the number of words."""
        figures: dict[str, int | float] = {f"{self.name}_n": len(self._row("").hits)}
        for method, pointing in self.rows.items():
            figures |= pointing.figures(f"{self.name}_{method}".rstrip("_"))
        return figures

    def _row(self, method: str) -> Pointing:
        return self.rows.setdefault(method, Pointing())


Pictured = tuple[Scene, Image.Image, Bool[np.ndarray, "n h w"]]
"""A scene, its picture, and the masks of its things."""


def pictured(seed: int, limit: int, split: str = "test", batch_size: int = 32) -> Iterator[list[Pictured]]:
    """Draw fresh scenes, some at a time."""
    waiting: list[Pictured] = []
    for scene in tqdm(scenes(seed, split, limit), total=limit, desc="quality", mininterval=5):
        waiting.append((scene, *draw(scene)))
        if len(waiting) == batch_size:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def with_baselines(task: Task, batch: Batch, targets: Targets | None = None) -> list[dict[str, Explanation]]:
    """Explain by Grad-CAM (called "") and by the two rows that it must beat, from one trunk pass.

    Args:
        task: In eval mode.
        batch: The samples.
        targets: What to explain; the prediction if not given.

    Returns:
        For each sample its explanations by name.
    """
    batch = batch.to(task.device)
    with torch.no_grad():
        activations = task.trunk(batch)
        targets = task.predict(activations, batch) if targets is None else targets.to(task.device)
    method = explain_activations(task, activations, batch, targets, "grad_cam")
    norm = explain_activations(task, activations, batch, targets, "activation_norm")
    return [
        {"": ours, "activation_norm": other, "flipped": replace(ours, signed=-ours.signed)}
        for ours, other in zip(method, norm, strict=True)
    ]
