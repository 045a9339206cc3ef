"""What all metrics of maps share: the case they judge, the values they keep, and the figure that comes out."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from mmcam.task import Window
from mmcam.truth import Things

__all__ = ["Case", "Columns", "Figure", "Kept", "PerMap", "summarise"]


@dataclass(frozen=True, eq=False)
class Case:
    """n maps of one picture, one a word, with the truth about them.

    Attributes:
        words: Of each map.
        maps: After ReLU, finite, at the picture's size.
        small: The same at the layer's resolution; they cover the window.
        masks: The union of the things that each word means; empty where it means a thing that is not there.
        about: The numbers of those things.
        things: All things of the picture.
        classes: A number for the class of each word, for means over classes.
        unit: Number of the picture: words of one picture are no independent samples.
        human: Maps that people drew for this picture or question.
        window: Part of the picture that the network sees: top, left, bottom, right in pixels; all if not given.
    """

    words: tuple[str, ...]
    maps: Float[Tensor, "n H W"]
    small: Float[Tensor, "n h w"]
    masks: Bool[Tensor, "n H W"]
    about: tuple[tuple[int, ...], ...]
    things: Things
    classes: Int[Tensor, " n"]
    unit: int
    human: Float[Tensor, "a H W"] | None = None
    window: Window | None = None


@dataclass  # not frozen: torchmetrics goes through what `compute` returns, and refuses frozen ones
class Figure:
    """One cell of a table.

    Attributes:
        value: The mean; NaN if nothing was defined.
        low: Lower end of the interval.
        high: Upper end.
        n: Number of values.
        excluded: Number of maps for which the metric is undefined.
    """

    value: float
    low: float
    high: float
    n: int
    excluded: int


def summarise(
    values: Float[Tensor, " n"],
    units: Int[Tensor, " n"] | None = None,
    classes: Int[Tensor, " n"] | None = None,
    *,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Figure:
    """Mean and bootstrap percentile interval, pictures resampled as a whole.

    Args:
        values: NaN is excluded.
        units: Which picture each value is of; each its own if not given.
        classes: If given, the figure is the mean over the classes of the means in each, classes without value left out.
        samples: Number of resamplings.
        seed: Of the resampling.
        level: Share of the resampled means inside the interval.

    Returns:
        The figure.
    """
    units = torch.arange(len(values)) if units is None else units.cpu()
    classes = torch.zeros(len(values), dtype=torch.long) if classes is None else classes.cpu()
    values = values.detach().cpu().double()
    kept = ~values.isnan()
    excluded = int((~kept).sum())
    values, units, classes = values[kept], units[kept], classes[kept]
    n = len(values)
    if not n:
        return Figure(float("nan"), float("nan"), float("nan"), 0, excluded)
    count, unit = _dense(units)
    kinds, kind = _dense(classes)
    sums = torch.zeros(count, kinds, dtype=torch.float64).index_put_((unit, kind), values, accumulate=True)
    sizes = torch.zeros(count, kinds, dtype=torch.float64).index_put_((unit, kind), torch.ones_like(values), True)
    drawn = torch.randint(count, (samples, count), generator=torch.Generator().manual_seed(seed))
    times = torch.zeros(samples, count, dtype=torch.float64).scatter_add_(1, drawn, torch.ones(drawn.shape).double())
    means = (times @ sums / (times @ sizes)).nanmean(1)  # (samples,), a class that was not drawn is left out
    tail = (1 - level) / 2
    low, high = means.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Figure(float((sums.sum(0) / sizes.sum(0)).mean()), low, high, n, excluded)


def _dense(numbers: Int[Tensor, " n"]) -> tuple[int, Int[Tensor, " n"]]:
    different, inverse = numbers.unique(return_inverse=True)
    return len(different), inverse


class Kept(Metric):
    """Keeps the values of maps, over batches and processes; what a value is and what the figure is, subclasses say.

    Attributes:
        values: One row a map.
        units: The picture of each map.
        classes: The class of each map's word.
    """

    full_state_update = False
    values: list[Tensor]
    units: list[Tensor]
    classes: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        for name in ("values", "units", "classes"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def keep(self, values: Float[Tensor, "n *m"], units: Int[Tensor, " n"], classes: Int[Tensor, " n"]) -> None:
        """Add the values of n maps."""
        self.values.append(values)
        self.units.append(units.to(values.device))
        self.classes.append(classes.to(values.device))

    def kept(self) -> tuple[Float[Tensor, "n *m"], Int[Tensor, " n"], Int[Tensor, " n"]]:
        """All values, the picture of each, the class of each; for comparing two runs pair by pair."""
        return _joined(self.values, torch.float32), _joined(self.units), _joined(self.classes)


class PerMap(Kept):
    """A metric that gives every map a value.

    A subclass says in `measure` what the value is, and is done:

        class Energy(PerMap):
            def measure(self, case: Case) -> Float[Tensor, " n"]:
                return energy_in_box(case.maps, ...)

    Attributes:
        per_class: Whether the figure is the mean over classes of the means in each.
    """

    per_class: bool = False

    @abstractmethod
    def measure(self, case: Case) -> Float[Tensor, " n"]:
        """One value a map; NaN where it is undefined."""

    def update(self, case: Case) -> None:
        """Judge the maps of one picture."""
        values = self.measure(case)
        self.keep(values, torch.full((len(values),), case.unit, dtype=torch.long), case.classes)

    def compute(self) -> Figure:
        """The figure over all that was judged."""
        values, units, classes = self.kept()
        return summarise(values, units, classes if self.per_class else None)


class Columns(Kept):
    """A metric that gives every map several values; its figures come by their names.

    Attributes:
        names: Of the values.
    """

    names: tuple[str, ...]

    def compute(self) -> dict[str, Figure]:
        """The figures over all that was judged."""
        values, units, _ = self.kept()
        values = values.reshape(len(values), len(self.names))
        return {name: summarise(column, units) for name, column in zip(self.names, values.unbind(1), strict=True)}


def _joined(state: Sequence[Tensor] | Tensor, dtype: torch.dtype = torch.long) -> Tensor:
    return (
        dim_zero_cat(list(state) if isinstance(state, Sequence) else state)
        if len(state)
        else torch.zeros(0, dtype=dtype)
    )
