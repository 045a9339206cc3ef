"""FullGrad: what the explained layer and every bias behind it add to the score."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mmcam.gradients import full_gradients
from mmcam.methods.elementwise import widened
from mmcam.methods.subject import Subject


def full_grad(subject: Subject) -> Float[Tensor, "b r h w"]:
    """FullGrad (Srinivas and Fleuret, arXiv 1905.00780, Eq. 5 and 8): Σ over layers and channels of ψ(∂y/∂z ⊙ b).

    b is the bias of a convolution or of a batch norm (β - μγ/σ), z what that operation gives, ψ takes the absolute
    value, brings it to 0 … 1 over all channels and places of the layer, and resizes it bilinearly. Together with the
    terms of biases without places (linear layers), the parts sum to y where the head is piecewise linear: see `parts`.

    Differs from the paper: it decomposes the head behind the explained layer, not the whole network, so that the first
    term is ∂y/∂A ⊙ A instead of ∂y/∂x ⊙ x; choose an early layer (`conv1`) for the paper's map. Maps come to the
    layer's resolution with `align_corners=False`, where the authors' code has True; pytorch-grad-cam brings each
    channel to 0 … 1 on its own.

    Args:
        subject: What is explained.

    Returns:
        One map a row, nowhere negative.
    """
    total = None
    for part in parts(subject):
        size = widened(part).abs()
        size = size - size.amin((2, 3, 4), keepdim=True)
        largest = size.amax((2, 3, 4), keepdim=True)
        map = (size / torch.where(largest == 0, 1, largest)).sum(2)  # (b, r, h', w')
        if total is not None:
            map = F.interpolate(map, total.shape[2:], mode="bilinear", align_corners=False)
        total = map if total is None else total + map
    assert total is not None
    return total


def parts(subject: Subject) -> list[Float[Tensor, "b r k h w"]]:
    """The full gradients: ∂y/∂A ⊙ A, then ∂y/∂z ⊙ b of each bias with places, in the order of the head.

    A zero is added to what each such operation gives; its gradient is ∂y/∂z. All are differentiated at once.

    Args:
        subject: What is explained.

    Returns:
        One tensor an operation, each with its own channels and places.
    """
    a = subject.activations
    if not subject.rows.numel():
        return [a.new_zeros(*subject.rows.shape[:2], *a.shape[1:])]
    with torch.no_grad(), _Biases() as found:
        subject.head(a.clone(), torch.arange(len(a), device=a.device))
    shapes = [a.shape[1:], *(z for z, _ in found.seen)]
    sizes = [shape.numel() for shape in shapes]
    packed = torch.cat([a.flatten(1), a.new_zeros(len(a), sum(sizes[1:]))], 1)

    def head(x: Float[Tensor, "n p 1 1"], index: Int[Tensor, " n"]) -> Float[Tensor, "n t"]:
        first, *probes = (
            part.unflatten(1, shape) for part, shape in zip(x.flatten(1).split(sizes, 1), shapes, strict=True)
        )
        with _Biases(probes):
            return subject.head(first.clone(), index)  # in-place layers may not write into a view

    _, gradients = full_gradients(head, packed[..., None, None], subject.rows, subject.vjp)
    split = [part.unflatten(2, shape) for part, shape in zip(gradients.flatten(2).split(sizes, 2), shapes, strict=True)]
    biases = [bias[None, None, :, None, None] for _, bias in found.seen]
    return [part * factor for part, factor in zip(split, [a[:, None], *biases], strict=True)]


class _Biases(TorchFunctionMode):
    """Notes the biased operations that give maps, and adds a probe to what each gives."""

    def __init__(self, probes: list[Tensor] | None = None) -> None:
        super().__init__()
        self.seen: list[tuple[torch.Size, Tensor]] = []
        self._probes = probes

    def __torch_function__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        z = func(*args, **(kwargs or {}))
        bias = _bias(func, args, kwargs or {})
        if bias is None or z.ndim != 4 or z.is_meta:
            return z
        self.seen.append((z.shape[1:], bias.detach()))
        return z if self._probes is None else z + self._probes[len(self.seen) - 1]


def _bias(func: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """What an operation adds to every place, if it is a convolution or a batch norm that does."""
    if func in (F.conv2d, torch.conv2d):
        return _arguments(("input", "weight", "bias"), args, kwargs)["bias"]
    if func is not F.batch_norm:
        return None
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    given = {"training": False, "eps": 1e-5} | _arguments(names, args, kwargs)
    if given["training"]:
        return None
    mean, variance, weight, bias = (given.get(name) for name in names[1:5])
    if mean is None or variance is None:
        return None
    scale = torch.rsqrt(torch.as_tensor(variance) + given["eps"]) * (1 if weight is None else weight)
    return (0 if bias is None else bias) - mean * scale


def _arguments(names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    return dict.fromkeys(names[:3]) | dict(zip(names, args, strict=False)) | kwargs
