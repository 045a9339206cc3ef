"""Earth mover's distance between a map and where people pointed (as for VQA-X, Park et al., arXiv 1802.08129)."""

import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.errors import UserError
from mmcam.metrics.agreement import to_grid
from mmcam.metrics.base import Case, PerMap

__all__ = ["EarthMover", "distances", "earth_mover"]


def distances(height: int, width: int) -> Float[Tensor, "n n"]:
    """Euclidean distances between all cells of a grid, in cells, in reading order."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([y, x], 2).flatten(0, 1).double()
    return torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist")


def earth_mover(maps: Float[Tensor, "n h w"], truths: Float[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """The least work that turns each map into its truth, both scaled to sum 1.

    Args:
        maps: What is not positive, or not finite, counts as zero.
        truths: Likewise.

    Returns:
        In cells: 1 is all of the mass moved by one cell. A zero map gets the largest distance that any map could have;
        NaN where the truth is zero.

    Raises:
        UserError: The package POT is not installed.
    """
    try:
        import ot
    except ImportError as error:
        raise UserError(
            "the earth mover's distance needs the package POT, which is not installed; pip install 'mmcam[evaluate]'"
        ) from error
    costs = distances(maps.shape[1], maps.shape[2])
    given, wanted = (
        x.detach().cpu().double().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).relu().flatten(1) for x in (maps, truths)
    )
    values = torch.full((len(given),), float("nan"), dtype=torch.float64)
    for i, (a, b) in enumerate(zip(given, wanted, strict=True)):
        if not b.any():
            continue
        b = b / b.sum()
        # The distance is convex in the map, so the farthest map is a single cell.
        values[i] = torch.as_tensor(ot.emd2(a / a.sum(), b, costs)) if a.any() else (costs @ b).max()
    return values.to(maps)


class EarthMover(PerMap):
    """Earth mover's distance to what people pointed at, on a grid of 14 x 14; smaller is better, the mean over people.

    Undefined where nobody pointed.
    """

    higher_is_better = False

    def measure(self, case: Case) -> Float[Tensor, " n"]:
        """Of each map."""
        n = len(case.maps)
        if case.human is None or not len(case.human):
            return case.maps.new_full((n,), float("nan"))
        model, people = to_grid(case.maps), to_grid(case.human.to(case.maps))
        a = len(people)
        return earth_mover(model.repeat_interleave(a, 0), people.repeat(n, 1, 1)).view(n, a).nanmean(1)
