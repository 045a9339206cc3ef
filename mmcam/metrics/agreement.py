"""Agreement with people: rank correlation of maps with human attention (VQA-HAT, Das et al., arXiv 1606.03556)."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from mmcam.metrics.base import Case, PerMap

__all__ = ["HumanAgreement", "human_agreement", "pearson", "ranks", "spearman", "to_grid"]


def ranks(values: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    """Rank values within each row, from 1; equal ones get the mean of their ranks.

    A rank is not what `argsort` gives: that says which value is third, not that this value is.
    """
    values = values.contiguous()
    ordered = values.sort(1).values
    below = torch.searchsorted(ordered, values)
    not_above = torch.searchsorted(ordered, values, right=True)
    return (below + not_above + 1).double() / 2


def pearson(a: Float[Tensor, "n m"], b: Float[Tensor, "n m"]) -> Float[Tensor, " n"]:
    """Pearson's correlation of each pair of rows, in float64; NaN where a row is constant."""
    a, b = (x.double() for x in (a, b))
    constant = (a == a[:, :1]).all(1) | (b == b[:, :1]).all(1)  # asked before, as the mean of equal numbers is rounded
    a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
    values = (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt()
    return values.masked_fill(constant, float("nan"))


def spearman(a: Float[Tensor, "n m"], b: Float[Tensor, "n m"]) -> Float[Tensor, " n"]:
    """Spearman's rank correlation of each pair of rows, with mean ranks for ties; NaN where a row is constant.

    What is not finite counts as zero.
    """
    finite = (x.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0) for x in (a, b))
    return pearson(*(ranks(x) for x in finite))


def to_grid(maps: Float[Tensor, "n H W"]) -> Float[Tensor, "n 14 14"]:
    """Bring maps at the picture's size to the grid of VQA-HAT: to 448 x 448 bilinearly, then means of 32 x 32 blocks.

    A constant map stays exactly constant.
    """
    maps = maps.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    if not maps.numel():
        return maps.new_zeros(len(maps), 14, 14)
    grid = avg_pool2d(interpolate(maps[:, None], (448, 448), mode="bilinear", antialias=True), 32)[:, 0]
    constant = (maps == maps[:, :1, :1]).flatten(1).all(1)
    return torch.where(constant[:, None, None], maps[:, :1, :1], grid)


def human_agreement(maps: Float[Tensor, "n H W"], human: Float[Tensor, "a H2 W2"]) -> Float[Tensor, " n"]:
    """Rank correlation of each map with what people looked at, on a grid of 14 x 14; the mean over the people.

    Args:
        maps: At the picture's size.
        human: One map a person, of the same picture, at any size.

    Returns:
        One value a map. A person's map that is constant says nothing and is left out; NaN if there is no other. A map
        that is constant ranks nothing and agrees with nobody: 0.
    """
    model, people = to_grid(maps).flatten(1), to_grid(human.to(maps)).flatten(1)
    n, a = len(model), len(people)
    each = spearman(model.repeat_interleave(a, 0), people.repeat(n, 1)).view(n, a)
    blind = (model == model[:, :1]).all(1)[:, None] & ~(people == people[:, :1]).all(1)
    return torch.where(blind, 0, each).nanmean(1).to(maps.dtype)


class HumanAgreement(PerMap):
    """Rank correlation with human attention, as in VQA-HAT; undefined where nobody was asked.

    People agree with one another at 0.62; a map of the centre, which knows no question, beats many models: print it.
    """

    higher_is_better = True

    def measure(self, case: Case) -> Float[Tensor, " n"]:
        """Of each map."""
        if case.human is None:
            return case.maps.new_full((len(case.maps),), float("nan"))
        return human_agreement(case.maps, case.human)
