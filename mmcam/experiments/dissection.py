"""Network Dissection (Bau et al., arXiv 1704.05796): name each channel of a layer by the things it is active on."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmcam.draw import upsample
from mmcam.task import Task
from mmcam.truth import Things, Truth

__all__ = ["Neuron", "dissect", "thresholds"]


@dataclass(frozen=True)
class Neuron:
    """A channel of the explained layer.

    Attributes:
        channel: Its number.
        name: The kind of things that its active places cover best.
        iou: How well: intersection over union, of all pictures together.
    """

    channel: int
    name: str
    iou: float


def dissect(task: Task, truth: Truth, numbers: Sequence[int], share: float, batch_size: int = 16) -> list[Neuron]:
    """Name the channels of a task's layer.

    A channel is active at the given share of all places, its most active ones (thresholds of its own, taken before
    upsampling). Its active places at the pictures' size are held against the masks of each kind of things, in all
    pictures; the kind with the greatest IoU gives the name.

    Args:
        task: In eval mode.
        truth: Says where which things are.
        numbers: The pictures.
        share: Part of all places, such as 0.01.
        batch_size: Pictures at a time.

    Returns:
        A neuron a channel, in order; kinds in alphabetical order win ties.
    """
    maps, windows = [], []
    for start in range(0, len(numbers), batch_size):
        batch = task.collate([truth.sample(n) for n in numbers[start : start + batch_size]]).to(task.device)
        with torch.no_grad():
            maps += [*task.trunk(batch).cpu()]
        windows += batch.windows
    edges = thresholds(torch.stack(maps), share)
    things = [truth.things(number) for number in numbers]
    names = sorted({name for some in things for name in some.names})
    both = torch.zeros(len(edges), len(names), dtype=torch.float64)
    active, extent = torch.zeros(len(edges), dtype=torch.float64), torch.zeros(len(names), dtype=torch.float64)
    for map, window, some in zip(maps, windows, things, strict=True):
        size = some.masks.shape[1], some.masks.shape[2]
        on = (upsample(map, size, window) > edges[:, None, None]).flatten(1)  # (k, H·W)
        of = _by_name(some, names).flatten(1)  # (names, H·W)
        if some.ignored is not None:
            on, of = on & ~some.ignored.flatten(), of & ~some.ignored.flatten()
        both += (on.float() @ of.float().T).double()
        active += on.sum(1)
        extent += of.sum(1)
    ious = both / (active[:, None] + extent - both).clamp(min=1)
    best, kind = ious.max(1)
    return [Neuron(i, names[int(kind[i])], float(best[i])) for i in range(len(edges))]


def thresholds(activations: Float[Tensor, "n k h w"], share: float) -> Float[Tensor, " k"]:
    """What each channel exceeds at the given share of all places, at most.

    Args:
        activations: Of all pictures.
        share: Part of the places.
    """
    places = activations.movedim(1, 0).flatten(1)  # (k, n·h·w)
    rank = places.shape[1] - int(share * places.shape[1])
    return places.kthvalue(max(rank, 1), 1).values


def _by_name(things: Things, names: Sequence[str]) -> Bool[Tensor, "m H W"]:
    masks = things.masks.new_zeros((len(names), *things.masks.shape[1:]))
    for name, mask in zip(things.names, things.masks, strict=True):
        masks[names.index(name)] |= mask
    return masks
