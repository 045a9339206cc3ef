"""Figures that are no mean over maps: one value a picture, medians, and scores of counts summed over pictures."""

import hashlib
from abc import abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmcam.metrics.base import Case, Figure, PerMap

__all__ = ["PerPicture", "median", "name_number", "of_counts"]

MOST = 2**24  # numbers that the median of the resampled values may hold at a time


class PerPicture(PerMap):
    """A metric that gives every picture one value."""

    @abstractmethod
    def measure(self, case: Case) -> Float[Tensor, " 1"]:
        """The value; NaN if it is undefined."""

    def update(self, case: Case) -> None:
        """Judge one picture."""
        value = self.measure(case)
        self.values.append(value)
        self.units.append(torch.full((1,), case.unit, dtype=torch.long, device=value.device))
        self.classes.append(torch.zeros(1, dtype=torch.long, device=value.device))


def name_number(name: str) -> int:
    """Give a name a number that is the same in every process and fits into int64."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "big")


def of_counts(
    counts: Int[Tensor, "r k"],
    units: Int[Tensor, " r"],
    classes: Int[Tensor, " r"],
    score: Callable[[Float[Tensor, "*s c k"]], Float[Tensor, "*s"]],
    *,
    n: int,
    excluded: int = 0,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Figure:
    """Score counts that are summed by class over all pictures; the interval resamples the pictures.

    Args:
        counts: k numbers a row, which are summed.
        units: The picture of each row.
        classes: The class of each row.
        score: From the sums by class to a figure; NaN where it is undefined.
        n: For the figure.
        excluded: For the figure.
        samples: Number of resamplings.
        seed: Of the resampling.
        level: Share of the resampled scores inside the interval.

    Returns:
        The figure; NaN if there is no row.
    """
    if not len(counts):
        return Figure(float("nan"), float("nan"), float("nan"), 0, excluded)
    pictures, unit = units.cpu().unique(return_inverse=True)
    kinds, kind = classes.cpu().unique(return_inverse=True)
    shape = len(pictures), len(kinds), counts.shape[1]
    table = torch.zeros(shape, dtype=torch.float64).index_put_((unit, kind), counts.cpu().double(), accumulate=True)
    times = _times(len(pictures), samples, seed)
    again = score((times @ table.flatten(1)).view(samples, *shape[1:]))
    return Figure(float(score(table.sum(0))), *_interval(again, level), n, excluded)


def median(
    values: Float[Tensor, " n"],
    units: Int[Tensor, " n"],
    *,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Figure:
    """Median, the mean of the two in the middle, and its interval, pictures resampled as a whole.

    Args:
        values: NaN is excluded.
        units: Which picture each value is of.
        samples: Number of resamplings.
        seed: Of the resampling.
        level: Share of the resampled medians inside the interval.

    Returns:
        The figure.
    """
    values, units = values.detach().cpu().double(), units.cpu()
    kept = ~values.isnan()
    excluded = int((~kept).sum())
    values, order = values[kept].sort()
    if not len(values):
        return Figure(float("nan"), float("nan"), float("nan"), 0, excluded)
    pictures, unit = units[kept][order].unique(return_inverse=True)
    times = _times(len(pictures), samples, seed)
    parts = times.split(max(1, MOST // len(values)))
    again = torch.cat([_middle(values, part[:, unit]) for part in parts])
    value = _middle(values, torch.ones(1, len(values), dtype=torch.float64))
    return Figure(float(value), *_interval(again, level), len(values), excluded)


def _middle(values: Float[Tensor, " n"], times: Float[Tensor, "s n"]) -> Float[Tensor, " s"]:
    """The median of sorted values that occur so many times."""
    reached = times.cumsum(1)
    half = reached[:, -1:] / 2
    low, high = torch.searchsorted(reached, half), torch.searchsorted(reached, half, right=True)
    return (values[low[:, 0]] + values[high.clamp(max=len(values) - 1)[:, 0]]) / 2


def _times(pictures: int, samples: int, seed: int) -> Float[Tensor, "s u"]:
    """How often each picture is drawn in each resampling."""
    drawn = torch.randint(pictures, (samples, pictures), generator=torch.Generator().manual_seed(seed))
    ones = torch.ones(drawn.shape, dtype=torch.float64)
    return torch.zeros(samples, pictures, dtype=torch.float64).scatter_add_(1, drawn, ones)


def _interval(again: Float[Tensor, " s"], level: float) -> tuple[float, float]:
    tail = (1 - level) / 2
    low, high = again.nanquantile(torch.tensor([tail, 1 - tail], dtype=again.dtype)).tolist()
    return low, high
