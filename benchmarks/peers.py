"""How peers are asked, each as its documentation says, for the maps of all targets of one picture.

captum and pytorch-grad-cam get one call a target, captum's gradients also with the picture once a target in one batch,
torchcam one forward and one extractor call a target.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.workloads import Workload
from mmcam.methods import conventions

Way = Callable[[Workload], Tensor]
"""From a workload to (t, …) on the CPU: maps, or gradients of all colours."""


@dataclass(frozen=True)
class Peer:
    """Somebody else's way.

    Attributes:
        run: Makes the maps.
        like: Turns ours into what this peer would show.
    """

    run: Way
    like: Callable[[Tensor, Workload], Tensor] = lambda found, work: found


def side(work: Workload) -> int:
    """A window of occlusion: a fifth of the picture, as `explain` has it; it moves by half of that."""
    return max(2, round(work.batch.images.shape[2] / 5))


def _numbers(work: Workload) -> list[int]:
    return work.columns[0].tolist()


def captum(name: str, *, layer: bool = False, at_once: bool = False, **options: Any) -> Way:  # noqa: ANN401
    """One of captum's classes; `at_once` with the picture once a target in one batch."""

    def run(work: Workload) -> Tensor:
        from captum import attr

        method = getattr(attr, name)(work.whole, *([work.trunk] if layer else []))
        images = work.batch.images
        if at_once:
            repeated = images.repeat(len(_numbers(work)), 1, 1, 1)
            return method.attribute(repeated, target=work.columns[0], **options).detach().cpu()
        found = [method.attribute(images, target=number, **options).detach() for number in _numbers(work)]
        return torch.cat(found).cpu()

    return run


def captum_occlusion(at_once: int) -> Way:
    """Captum's occlusion, so many windows at once."""

    def run(work: Workload) -> Tensor:
        window, step = side(work), side(work) // 2
        shapes: dict[str, Any] = {"sliding_window_shapes": (3, window, window), "strides": (3, step, step)}
        return captum("Occlusion", **shapes, perturbations_per_eval=at_once)(work)[:, 0]

    return run


def captum_ablation(work: Workload) -> Tensor:
    """`LayerFeatureAblation` with a channel as a feature gives the weights."""
    with torch.no_grad():
        a = work.trunk(work.batch.images)
    mask = torch.arange(a.shape[1], device=a.device)[None, :, None, None].expand(1, -1, *a.shape[2:])
    weights = captum("LayerFeatureAblation", layer=True, layer_mask=mask)(work)[:, :, 0, 0]
    return torch.einsum("tk,khw->thw", weights, a[0].cpu())


def over_channels(run: Way) -> Way:
    """Maps out of what is said of every channel: the sum."""
    return lambda work: run(work).sum(1)


def torchcam(name: str, **options: Any) -> Peer:  # noqa: ANN401
    """One of torchcam's classes that differentiate."""

    def run(work: Workload) -> Tensor:
        from torchcam import methods

        with getattr(methods, name)(work.whole, target_layer=work.trunk, **options) as extractor:
            scores = work.whole(work.batch.images)
            found = [
                extractor([number], scores, normalized=False, retain_graph=True)[0][0] for number in _numbers(work)
            ]
        return torch.stack(found).detach().cpu()

    return Peer(run, rectified)


def torchcam_without_gradients(name: str, like: Callable[[Tensor, Workload], Tensor], **options: Any) -> Peer:  # noqa: ANN401
    """One of torchcam's classes that do not."""

    def run(work: Workload) -> Tensor:
        from torchcam import methods

        with getattr(methods, name)(work.whole, work.trunk, **options) as extractor, torch.no_grad():
            work.whole(work.batch.images)
            found = [extractor([number], normalized=False)[0][0] for number in _numbers(work)]
        return torch.stack(found).cpu()

    return Peer(run, like)


def rectified(found: Tensor, work: Workload) -> Tensor:
    """After ReLU."""
    return found.clamp(min=0)


def same(found: Tensor, work: Workload) -> Tensor:
    """As they are."""
    return found


def pytorch_grad_cam(name: str, like: Callable[[Tensor, Workload], Tensor] | None = None) -> Peer:
    """One of pytorch-grad-cam's classes; its maps are scaled and brought to the picture's size."""

    def run(work: Workload) -> Tensor:
        import pytorch_grad_cam
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        with getattr(pytorch_grad_cam, name)(model=work.whole, target_layers=[work.trunk]) as cam:
            found = [
                torch.from_numpy(cam(input_tensor=work.batch.images, targets=[ClassifierOutputTarget(number)]))
                for number in _numbers(work)
            ]
        return torch.cat(found)

    return Peer(run, like or _shown)


def _shown(found: Float[Tensor, "t h w"], work: Workload) -> Float[Tensor, "t H W"]:
    height, width = work.batch.images.shape[2:]
    return conventions.pytorch_grad_cam(found, (height, width))


def shown_by_sign(found: Float[Tensor, "t h w"], work: Workload) -> Float[Tensor, "t H W"]:
    """Divided by the score, which turns the maps of negative ones round."""
    with torch.no_grad():
        scores = work.whole(work.batch.images)[0, work.columns[0]].cpu()
    return _shown(found * scores.sign()[:, None, None], work)
