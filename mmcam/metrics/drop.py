"""Average drop, increase in confidence and gain: what is left when only the explanation is seen.

Average drop and increase are of Grad-CAM++ (Chattopadhyay et al., arXiv 1710.11063, section 4), gain is of Opti-CAM
(Zhang et al., arXiv 2301.07002). With p the probability on the whole picture and o that on the explanation,

    drop = max(0, p - o) / p,    increase = [o > p],    gain = max(0, o - p) / (1 - p),

as shares, not in percent. The explanation is the picture times its map scaled to 0 … 1 (`scaled`, Grad-CAM++), or the
picture's most salient pixels (`top`). Increase alone is easily bought: a map that shows everything never drops.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.errors import UserError
from mmcam.metrics.perturb import Faithfulness, on_input, order, probabilities, real_rows, respond
from mmcam.task import Batch, Targets, Task

__all__ = ["Drop", "average_drop", "gain", "increase", "scaled", "seen_through", "top"]


def scaled(maps: Float[Tensor, "b r x y"]) -> Float[Tensor, "b r x y"]:
    """Maps after ReLU over their maximum; a zero map stays zero and hides everything."""
    maps = maps.relu()
    peaks = maps.flatten(2).amax(2)[..., None, None] if maps.numel() else maps
    return maps / torch.where(peaks > 0, peaks, 1)


def top(maps: Float[Tensor, "b r x y"], share: float) -> Float[Tensor, "b r x y"]:
    """One at the given share of the pixels, the most salient ones, zero elsewhere."""
    return (order(maps) < round(share * maps.shape[2:].numel())).to(maps.dtype)


def seen_through(
    task: Task,
    batch: Batch,
    targets: Targets,
    masks: Float[Tensor, "b r x y"],
    fill: float = 0.0,
    chunk: int | None = None,
) -> tuple[Float[Tensor, "b r"], Float[Tensor, "b r"]]:
    """Probabilities of each row: on the whole picture, and on the picture seen through the row's mask.

    Args:
        task: Is asked.
        batch: The samples.
        targets: The words, answers or classes.
        masks: 1 shows a pixel of the network's input, 0 replaces it.
        fill: What stands in a hidden pixel's place, in the network's normalised space.
        chunk: Pictures that pass through the network at once; what suits the device if not given.

    Returns:
        p and o; NaN for padding.
    """
    batch = batch.to(task.device)
    b, masks = len(batch), masks.to(batch.images)
    samples, rows, real = real_rows(targets)
    sample = torch.cat([torch.arange(b), samples])
    row = torch.cat([torch.full((b,), -1), rows])

    def images(numbers: Tensor) -> Tensor:
        i, r = sample[numbers], row[numbers]
        whole = (r < 0)[:, None, None].to(masks.device)
        shown = masks[i, r.clamp(min=0)].masked_fill(whole, 1)[:, None] if masks.numel() else 1
        return fill + shown * (batch.images[i] - fill)

    (said,) = respond(task, batch, targets, sample, images, [probabilities], chunk)
    seen = torch.full_like(said[:b], float("nan"))
    seen[samples, rows] = said[b:].gather(1, rows[:, None].to(said.device)).squeeze(1)
    return said[:b].masked_fill(~real.to(said.device), float("nan")), seen


def average_drop(whole: Float[Tensor, "*n"], seen: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Share of the probability that is lost; undefined where there was none."""
    return (whole - seen).clamp(min=0) / whole


def increase(whole: Float[Tensor, "*n"], seen: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """1 where the explanation alone is more convincing than the picture, 0 elsewhere."""
    return (seen > whole).to(whole.dtype).masked_fill(whole.isnan() | seen.isnan(), float("nan"))


def gain(whole: Float[Tensor, "*n"], seen: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Share of the missing probability that is won; 0 where none was missing."""
    return (seen - whole).clamp(min=0) / torch.where(whole == 1, 1, 1 - whole)


class Drop(Faithfulness):
    """Average drop (smaller is better), increase and gain (larger is better)."""

    names = ("drop", "increase", "gain")

    def __init__(self, share: float | None = None, fill: float = 0.0) -> None:
        """Choose what is seen.

        Args:
            share: Of the pixels, the most salient ones; the picture times the scaled map if not given.
            fill: What stands in a hidden pixel's place.

        Raises:
            UserError: The share is not between 0 and 1.
        """
        super().__init__()
        if share is not None and not 0 < share < 1:
            raise UserError(f"expected a share of pixels between 0 and 1, got {share}; leave it out to use the map")
        self.share, self.fill = share, fill

    def measure(
        self, task: Task, batch: Batch, targets: Targets, maps: Float[Tensor, "b r h w"]
    ) -> Float[Tensor, "b r 3"]:
        """The three of each map."""
        large = on_input(maps, batch)
        masks = scaled(large) if self.share is None else top(large, self.share)
        pair = seen_through(task, batch, targets, masks, self.fill)
        return torch.stack([average_drop(*pair), increase(*pair), gain(*pair)], 2)
