"""Sanity checks: a map must change when what it explains is destroyed (Adebayo et al., arXiv 1810.03292).

Parameters are drawn anew, from the output down (`cascade`) or one module at a time (`independent`). What no classifier
needs and nobody ships: only the language half, only the vision half, or only the words are destroyed. Maps that stay
the same without the language explain the picture and not the word; maps that stay the same without the words heard
(the question, or the caption so far) do not depend on them.

All happens on copies of the task, which is left as found; so is the random state.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import interpolate
from torchmetrics.functional.image import structural_similarity_index_measure

from mmcam.engine import explain
from mmcam.errors import unknown
from mmcam.metrics.agreement import spearman
from mmcam.metrics.base import Columns
from mmcam.metrics.perturb import real_rows
from mmcam.metrics.randomise import halves, other_words, randomised, redraw
from mmcam.task import Batch, Targets, Task

__all__ = ["CHECKS", "Randomised", "Similarity", "cascade", "independent", "similarity", "without"]

CHECKS = ("vision", "language", "words")


@dataclass(frozen=True, eq=False)
class Similarity:
    """How alike the maps before and after are, one value a row of every sample, in order; without padding.

    Attributes:
        spearman: Rank correlation of the signed maps; NaN where a map is constant.
        absolute: Of their absolute values.
        ssim: Structural similarity at the size of the network's input, each map divided by its largest absolute value.
    """

    spearman: Float[Tensor, " n"]
    absolute: Float[Tensor, " n"]
    ssim: Float[Tensor, " n"]


def similarity(
    maps: Float[Tensor, "n h w"], others: Float[Tensor, "n h w"], size: tuple[int, int] = (64, 64)
) -> Similarity:
    """Compare maps.

    Args:
        maps: Before ReLU; what is not finite counts as zero.
        others: Likewise.
        size: Height and width at which the structural similarity is taken; at least 11.

    Returns:
        How alike they are, in float64.
    """
    pair = [x.double().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0) for x in (maps, others)]
    if not len(maps):
        return Similarity(*(maps.new_zeros(0, dtype=torch.float64) for _ in range(3)))
    signed = spearman(*(x.flatten(1) for x in pair))
    absolute = spearman(*(x.abs().flatten(1) for x in pair))
    tall = max(size[0], 11), max(size[1], 11)  # the window of SSIM
    seen = []
    for x in pair:
        peak = x.abs().amax((1, 2), keepdim=True)
        scaled = x / torch.where(peak > 0, peak, 1)
        seen.append(interpolate(scaled[:, None], tall, mode="bilinear"))
    ssim = structural_similarity_index_measure(*seen, data_range=2.0, reduction="none")
    assert isinstance(ssim, Tensor)
    return Similarity(signed, absolute, ssim.view(-1))


def cascade(
    task: Task,
    batch: Batch,
    targets: Targets,
    method: str = "grad_cam",
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> Iterator[tuple[str, Similarity]]:
    """Randomise from the output to the input, one module more each time, and compare the maps with the original ones.

    Args:
        task: Is only read.
        batch: The samples.
        targets: What is explained, before and after.
        method: Of `mmcam.explain`.
        names: The modules from the input to the output; the vision half, then the language half if not given, each
            as registered.
        seed: Of the new parameters.

    Yields:
        Each module's name, the last one first, and how alike the maps still are.
    """
    chosen = [name for half in halves(task, batch) for name in half] if names is None else names
    before = _maps(task, batch, targets, method)
    twin = copy.deepcopy(task).eval()
    for name in reversed(chosen):
        redraw(twin, [name], seed)
        yield name, similarity(before, _maps(twin, batch, targets, method), _size(batch))


def independent(
    task: Task,
    batch: Batch,
    targets: Targets,
    method: str = "grad_cam",
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> Iterator[tuple[str, Similarity]]:
    """Randomise one module at a time, all others as they were; arguments and order as of `cascade`."""
    chosen = [name for half in halves(task, batch) for name in half] if names is None else names
    before = _maps(task, batch, targets, method)
    for name in reversed(chosen):
        after = _maps(randomised(task, [name], seed), batch, targets, method)
        yield name, similarity(before, after, _size(batch))


def without(
    what: str, task: Task, batch: Batch, targets: Targets, method: str = "grad_cam", seed: int = 0
) -> Similarity:
    """Destroy the vision half, the language half, or only the words heard, and compare the maps with the original ones.

    Args:
        what: "vision" or "language" draws the parameters of that half anew, see `halves`; "words" keeps the model and
            changes what it hears, see `other_words`.
        task: Is only read.
        batch: The samples.
        targets: What is explained, before and after.
        method: Of `mmcam.explain`.
        seed: Of what is random.

    Returns:
        How alike the maps are; for faithful ones little. NaN where there was nothing to destroy: no language in a
        classifier, no words before the first one of a caption, no other question in the batch.

    Raises:
        UserError: `what` is something else.
    """
    if what not in CHECKS:
        raise unknown("sanity check", what, CHECKS)
    before = _maps(task, batch, targets, method)
    changed = torch.ones(len(before), dtype=torch.bool)
    if what == "words":
        heard, asked, changed = other_words(task, batch, targets, seed)
        after = _maps(task, heard, asked, method)
    else:
        names = halves(task, batch)[CHECKS.index(what)]
        changed &= bool(names)
        after = _maps(randomised(task, names, seed), batch, targets, method)
    alike = similarity(before, after, _size(batch))
    values = (alike.spearman, alike.absolute, alike.ssim)
    return Similarity(*(value.masked_fill(~changed, float("nan")) for value in values))


def _maps(task: Task, batch: Batch, targets: Targets, method: str) -> Float[Tensor, "n h w"]:
    return torch.cat([explanation.signed for explanation in explain(task, batch, targets, method)])


def _size(batch: Batch) -> tuple[int, int]:
    return batch.pictures.shape[2], batch.pictures.shape[3]


class Randomised(Columns):
    """How alike maps stay when vision, language or the words heard are destroyed; smaller is better."""

    names = ("spearman", "absolute", "ssim")
    higher_is_better = False

    def __init__(self, what: str, method: str = "grad_cam", seed: int = 0) -> None:
        """Choose what is destroyed, see `without`."""
        super().__init__()
        self.what = what
        self.method, self.seed = method, seed

    def update(self, task: Task, batch: Batch, targets: Targets, units: Int[Tensor, " b"]) -> None:
        """Explain a batch before and after, and compare.

        Args:
            task: Is only read.
            batch: The samples.
            targets: What is explained.
            units: Number of the picture of each sample.
        """
        alike = without(self.what, task, batch, targets, self.method, self.seed)
        samples = real_rows(targets)[0]
        values = torch.stack([alike.spearman, alike.absolute, alike.ssim], 1)
        self.keep(values.float(), units.cpu()[samples], torch.zeros_like(samples))
