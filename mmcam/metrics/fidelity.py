"""MuFidelity and infidelity: does a map add up to what the score loses when random parts of the picture are hidden?

The input is a grid of cells; random subsets of them, always equally many, are hidden. For each subset S there are the
map's sum over S and the fall of the score, y(x) - y(x without S).

- MuFidelity (Bhatt et al., arXiv 2005.00631) is their correlation over the subsets.
- Infidelity (Yeh et al., arXiv 1901.09392) is the mean square of their difference, with the map scaled as fits best.
  Divided by the mean square of the falls it lies between 0, the map says it all but for its scale, and 1, it says
  nothing.

The same subsets serve all rows, so a picture is asked about once for all of its words.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.errors import UserError
from mmcam.metrics.agreement import pearson
from mmcam.metrics.perturb import Faithfulness, is_constant, on_input, real_rows, respond, scores
from mmcam.task import Batch, Targets, Task

__all__ = ["Fidelity", "infidelity", "mu_fidelity", "subset_effects"]


def subset_effects(
    task: Task,
    batch: Batch,
    targets: Targets,
    maps: Float[Tensor, "b r h w"],
    subsets: int = 128,
    grid: int = 9,
    share: float = 0.2,
    fill: float = 0.0,
    seed: int = 0,
    chunk: int | None = None,
) -> tuple[Float[Tensor, "b r n"], Float[Tensor, "b r n"]]:
    """Hide random subsets of a grid's cells.

    Args:
        task: Is asked.
        batch: The samples.
        targets: The words, answers or classes.
        maps: One a row; signed ones keep their sign.
        subsets: n, how many; the same for all pictures.
        grid: Cells a side.
        share: Of the cells, in each subset.
        fill: What stands in hidden cells, in the network's normalised space.
        seed: Of the subsets.
        chunk: Pictures that pass through the network at once; what suits the device if not given.

    Returns:
        The map's sum over each subset and how much the score falls without it; NaN for padding.

    Raises:
        UserError: The grid is finer than the picture, or the share leaves no subset to choose.
    """
    batch = batch.to(task.device)
    b, (height, width) = len(batch), batch.images.shape[2:]
    hidden = round(share * grid**2)
    if not 1 < grid <= min(height, width) or not 0 < hidden < grid**2:
        raise UserError(
            f"expected a grid of 2 to {min(height, width)} cells a side and a share that is one cell at least and not "
            f"all of them, got {grid} and {share}"
        )
    real = real_rows(targets)[2].to(task.device)
    drawn = torch.rand(subsets, grid**2, generator=torch.Generator().manual_seed(seed)).argsort(1)[:, :hidden]
    chosen = torch.zeros(subsets, grid**2, dtype=torch.bool).scatter_(1, drawn, True)
    cell = torch.arange(height)[:, None] * grid // height * grid + torch.arange(width) * grid // width  # (x, y)
    sample = torch.cat([torch.arange(b), torch.arange(b).repeat_interleave(subsets)])
    masks = torch.cat([torch.zeros(b, grid**2, dtype=torch.bool), chosen.repeat(b, 1)])

    def images(numbers: Tensor) -> Tensor:
        gone = masks[numbers][:, cell]  # (m, x, y)
        return batch.images[sample[numbers]].masked_fill(gone[:, None].to(task.device), fill)

    (said,) = respond(task, batch, targets, sample, images, [scores], chunk)
    falls = (said[:b, None] - said[b:].unflatten(0, (b, subsets))).mT  # (b, r, n)
    large = on_input(maps, batch).flatten(2)
    parts = large.new_zeros(*large.shape[:2], grid**2).index_add_(2, cell.flatten().to(large.device), large)
    sums = parts @ chosen.to(parts).T
    return sums.masked_fill(~real[..., None], float("nan")), falls.masked_fill(~real[..., None], float("nan"))


def mu_fidelity(sums: Float[Tensor, "b r n"], falls: Float[Tensor, "b r n"]) -> Float[Tensor, "b r"]:
    """Pearson's correlation over the subsets; NaN where the score is always the same or a map's sum is."""
    return pearson(sums.flatten(0, 1), falls.flatten(0, 1)).view(sums.shape[:2])


def infidelity(sums: Float[Tensor, "b r n"], falls: Float[Tensor, "b r n"]) -> Float[Tensor, "b r"]:
    """Share of the mean square of the falls that the best multiple of the sums leaves; NaN where the score never falls.

    A zero map leaves all: 1.
    """
    a, d = sums.double(), falls.double()
    square = a.square().sum(2)
    scale = (a * d).sum(2) / torch.where(square == 0, 1, square)
    return (scale[..., None] * a - d).square().sum(2) / d.square().sum(2)


class Fidelity(Faithfulness):
    """MuFidelity (larger is better) and infidelity (smaller is better); a constant map has a MuFidelity of 0."""

    names = ("mu_fidelity", "infidelity")

    def __init__(self, subsets: int = 128, grid: int = 9, share: float = 0.2, fill: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        self.subsets, self.grid, self.share, self.fill, self.seed = subsets, grid, share, fill, seed

    def measure(
        self, task: Task, batch: Batch, targets: Targets, maps: Float[Tensor, "b r h w"]
    ) -> Float[Tensor, "b r 2"]:
        """Both, of each map."""
        options = self.subsets, self.grid, self.share, self.fill, self.seed
        sums, falls = subset_effects(task, batch, targets, maps, *options)
        known = (falls != falls[..., :1]).any(2) & ~falls.isnan().any(2)
        flat = is_constant(maps).to(falls.device)
        correlation = mu_fidelity(sums, falls).masked_fill(flat, 0).masked_fill(~known, float("nan"))
        return torch.stack([correlation, infidelity(sums, falls)], 2)
