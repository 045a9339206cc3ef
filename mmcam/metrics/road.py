"""ROAD (Rong et al., arXiv 2202.00449): pixels are taken away and filled in by noisy linear imputation.

A fill value gives away the shape of what was taken (and the model may read that); here each missing pixel is the mean
of its eight neighbours, straight ones weighing 1/6 and diagonal ones 1/12, plus noise. All missing pixels of a picture
are one sparse linear system, solved on the CPU.

The most relevant pixels are taken first, then, from the whole picture again, the least relevant ones. An explanation is
good if the second hurts less: the difference, the mean over shares of what the task says, is the figure.

Differs from the paper: probability and score of each word or answer stand in place of the accuracy over a data set; the
noise is the same for all pictures.
"""

from collections.abc import Sequence
from functools import cache

import torch
from jaxtyping import Bool, Float
from scipy.sparse import coo_array, csr_array
from scipy.sparse.linalg import splu
from torch import Tensor

from mmcam.errors import UserError
from mmcam.metrics.curves import Curve
from mmcam.metrics.perturb import Faithfulness, on_input, order, probabilities, real_rows, respond, scores
from mmcam.task import Batch, Targets, Task

__all__ = ["SHARES", "Road", "impute", "road"]

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def road(
    task: Task,
    batch: Batch,
    targets: Targets,
    maps: Float[Tensor, "b r h w"],
    shares: Sequence[float] = SHARES,
    noise: float = 0.01,
    seed: int = 0,
    chunk: int | None = None,
) -> tuple[Curve, Curve]:
    """Take away the most relevant pixels, and the least relevant ones.

    Args:
        task: Is asked.
        batch: The samples.
        targets: The words, answers or classes.
        maps: One a row; of a constant map the first pixels in reading order are the most relevant.
        shares: Of the pixels.
        noise: Standard deviation of what is added to filled pixels, in the network's normalised space.
        seed: Of the noise.
        chunk: Pictures that pass through the network at once; what suits the device if not given.

    Returns:
        The curves over the shares: most relevant first, and least relevant first.

    Raises:
        UserError: A share is not between 0 and 1, without the ends.
    """
    if not shares or not all(0 < share < 1 for share in shares):
        raise UserError(f"expected shares of pixels between 0 and 1, got {list(shares)}; 0.1 to 0.9 are usual")
    batch = batch.to(task.device)
    samples, rows, real = real_rows(targets)
    place = order(on_input(maps, batch)).cpu()
    area, s = batch.images[0, 0].numel(), len(shares)
    counts = (torch.tensor(shares, dtype=torch.float64) * area).round().int().repeat(2 * len(samples))
    least = torch.tensor([False, True]).repeat_interleave(s).repeat(len(samples))
    sample, row = samples.repeat_interleave(2 * s), rows.repeat_interleave(2 * s)
    whole = batch.images.detach().cpu()
    grain = noise * torch.randn(whole.shape[1:], generator=torch.Generator().manual_seed(seed))

    def images(numbers: Tensor) -> Tensor:
        i, count, last = sample[numbers], counts[numbers, None, None], least[numbers, None, None]
        numbered = place[i, row[numbers]]
        missing = torch.where(last, numbered >= area - count, numbered < count)
        filled = impute(whole[i], missing)
        return torch.where(missing[:, None], filled + grain.to(filled), filled).to(batch.images)

    said = respond(task, batch, targets, sample, images, [scores, probabilities], chunk)

    def curves(values: Float[Tensor, "n r"]) -> Float[Tensor, "2 b r s"]:
        curve = values.new_full((2, *real.shape, s), float("nan"))
        own = values.gather(1, row[:, None].to(values.device)) if len(row) else values[:, :0]
        curve[:, samples, rows] = own.reshape(len(samples), 2, s).movedim(1, 0)
        return curve

    both = [curves(values) for values in said]
    at = torch.tensor(shares, device=both[0].device)
    return Curve(at, *(curve[0] for curve in both)), Curve(at, *(curve[1] for curve in both))


def impute(images: Float[Tensor, "n c x y"], missing: Bool[Tensor, "n x y"]) -> Float[Tensor, "n c x y"]:
    """Let every missing pixel be the weighted mean of its neighbours; at the picture's border of those that there are.

    Args:
        images: On the CPU.
        missing: At least one pixel of each picture must be there.

    Returns:
        The pictures, filled, without noise.
    """
    laplacian = _laplacian(images.shape[2], images.shape[3])
    filled = images.clone()
    for picture, gone in zip(filled, missing, strict=True):
        lost = gone.flatten().nonzero().squeeze(1).numpy()
        if not len(lost):
            continue
        there = (~gone).flatten().nonzero().squeeze(1).numpy()
        rows = laplacian[lost]
        known = picture.flatten(1)[:, there].double().numpy().T
        # Border weights renormalised are the same as a graph's Laplacian, so the system is symmetric and definite.
        system = splu(rows[:, lost].tocsc(), "MMD_AT_PLUS_A", 0.0, options={"SymmetricMode": True})
        picture.flatten(1)[:, lost] = torch.from_numpy(system.solve(-(rows[:, there] @ known)).T).to(picture)
    return filled


@cache
def _laplacian(height: int, width: int) -> csr_array:
    """The matrix whose product with a picture is, at each pixel, the weighted sum of its differences to neighbours."""
    number = torch.arange(height * width).view(height, width)
    pairs = [
        (number[:, 1:], number[:, :-1], 1 / 6),
        (number[1:], number[:-1], 1 / 6),
        (number[1:, 1:], number[:-1, :-1], 1 / 12),
        (number[1:, :-1], number[:-1, 1:], 1 / 12),
    ]
    one = torch.cat([a.flatten() for a, _, _ in pairs]).numpy()
    other = torch.cat([b.flatten() for _, b, _ in pairs]).numpy()
    weight = torch.cat([torch.full((a.numel(),), w, dtype=torch.float64) for a, _, w in pairs]).numpy()
    half = coo_array((weight, (one, other)), shape=(height * width,) * 2).tocsr()
    both = half + half.T
    degree = coo_array((both.sum(1), (number.flatten().numpy(),) * 2), shape=both.shape)
    return (degree.tocsr() - both).tocsr()


class Road(Faithfulness):
    """How much less it hurts to lose the least relevant pixels than the most relevant ones; larger is better."""

    names = ("probability", "score")
    higher_is_better = True

    def __init__(self, shares: Sequence[float] = SHARES, noise: float = 0.01, seed: int = 0) -> None:
        super().__init__()
        self.shares, self.noise, self.seed = tuple(shares), noise, seed

    def measure(
        self, task: Task, batch: Batch, targets: Targets, maps: Float[Tensor, "b r h w"]
    ) -> Float[Tensor, "b r 2"]:
        """Means over the shares, least relevant first less most relevant first."""
        most, least = road(task, batch, targets, maps, self.shares, self.noise, self.seed)
        differences = least.probabilities - most.probabilities, least.scores - most.scores
        return torch.stack([difference.mean(2) for difference in differences], 2)
