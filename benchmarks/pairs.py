"""Which peer has which method: both ways to the same maps, for all targets of one picture.

Peers are asked as their documentation says: captum and pytorch-grad-cam one call a target, captum's gradients also with
the picture once a target in one batch, torchcam one forward and one extractor call a target.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.methods import ours
from benchmarks.workloads import Workload
from mmcam.engine import explain
from mmcam.methods import conventions
from mmcam.methods.finer import explain_finer, nearest
from mmcam.methods.masking import Masks, score_cam
from mmcam.methods.subject import Subject
from mmcam.pixels import guided_grad_cam, integrated_gradients, occlusion, pixel_gradients

Way = Callable[[Workload], Tensor]
"""From a workload to (t, …) on the CPU: maps, or gradients of all colours."""

STEPS = 50
"""Of integrated gradients, as captum's default."""


@dataclass(frozen=True)
class Peer:
    """Somebody else's way.

    Attributes:
        run: Makes the maps.
        like: Turns ours into what this peer would show.
    """

    run: Way
    like: Callable[[Tensor, Workload], Tensor] = lambda found, work: found


@dataclass(frozen=True)
class Pair:
    """A method: ours, and the peers that have it.

    Attributes:
        ours: All targets in one call.
        peers: By name.
        either: The sign is arbitrary, so that maps may be each other's negatives.
        weights: By which the last layer's are multiplied: pytorch-grad-cam adds 1e-6 to g² in Grad-CAM++, which must be
            nothing beside it.
    """

    ours: Way
    peers: Mapping[str, Peer]
    either: bool = False
    weights: float = 1.0


def side(work: Workload) -> int:
    """A window of occlusion: a fifth of the picture, as `explain` has it; it moves by half of that."""
    return max(2, round(work.batch.images.shape[2] / 5))


# Ours


def _pixels(method: Callable[..., Tensor], **options: Any) -> Way:  # noqa: ANN401
    return lambda work: method(work.task, work.batch, work.targets, **options)[0].cpu()


def _occlusion(work: Workload) -> Tensor:
    return _pixels(occlusion, window=side(work), stride=side(work) // 2)(work)


def _maps(method: str) -> Way:
    return lambda work: explain(work.task, work.batch, work.targets, method)[0].signed


def _score_cam(masks: Masks) -> Way:
    def run(work: Workload) -> Tensor:
        with torch.no_grad():
            activations = work.task.trunk(work.batch)
            return score_cam(Subject(work.task, activations, work.batch, work.targets), masks)[0].cpu()

    return run


def _finer_cam(work: Workload) -> Tensor:
    batch = replace(work.batch, memo={})
    with torch.no_grad():
        activations = work.task.trunk(batch)
        references = nearest(work.head(activations), work.targets.ids, 3)
    return explain_finer(work.task, batch, work.targets, references, activations=activations)[0].signed


# captum


def _numbers(work: Workload) -> list[int]:
    return work.columns[0].tolist()


def _captum(name: str, *, layer: bool = False, at_once: bool = False, **options: Any) -> Way:  # noqa: ANN401
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


def _captum_occlusion(at_once: int) -> Way:
    def run(work: Workload) -> Tensor:
        window, step = side(work), side(work) // 2
        shapes: dict[str, Any] = {"sliding_window_shapes": (3, window, window), "strides": (3, step, step)}
        return _captum("Occlusion", **shapes, perturbations_per_eval=at_once)(work)[:, 0]

    return run


def _captum_ablation(work: Workload) -> Tensor:
    """`LayerFeatureAblation` with a channel as a feature gives the weights."""
    with torch.no_grad():
        a = work.trunk(work.batch.images)
    mask = torch.arange(a.shape[1], device=a.device)[None, :, None, None].expand(1, -1, *a.shape[2:])
    weights = _captum("LayerFeatureAblation", layer=True, layer_mask=mask)(work)[:, :, 0, 0]
    return torch.einsum("tk,khw->thw", weights, a[0].cpu())


def _over_channels(run: Way) -> Way:
    return lambda work: run(work).sum(1)


# torchcam


def _torchcam(name: str, **options: Any) -> Peer:  # noqa: ANN401
    def run(work: Workload) -> Tensor:
        from torchcam import methods

        with getattr(methods, name)(work.whole, target_layer=work.trunk, **options) as extractor:
            scores = work.whole(work.batch.images)
            found = [
                extractor([number], scores, normalized=False, retain_graph=True)[0][0] for number in _numbers(work)
            ]
        return torch.stack(found).detach().cpu()

    return Peer(run, _rectified)


def _torchcam_without_gradients(name: str, like: Callable[[Tensor, Workload], Tensor], **options: Any) -> Peer:  # noqa: ANN401
    def run(work: Workload) -> Tensor:
        from torchcam import methods

        with getattr(methods, name)(work.whole, work.trunk, **options) as extractor, torch.no_grad():
            work.whole(work.batch.images)
            found = [extractor([number], normalized=False)[0][0] for number in _numbers(work)]
        return torch.stack(found).cpu()

    return Peer(run, like)


def _rectified(found: Tensor, work: Workload) -> Tensor:
    return found.clamp(min=0)


def _same(found: Tensor, work: Workload) -> Tensor:
    return found


# pytorch-grad-cam


def _pytorch_grad_cam(name: str, like: Callable[[Tensor, Workload], Tensor] | None = None) -> Peer:
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


def _shown_by_sign(found: Float[Tensor, "t h w"], work: Workload) -> Float[Tensor, "t H W"]:
    """Divided by the score, which turns the maps of negative ones round."""
    with torch.no_grad():
        scores = work.whole(work.batch.images)[0, work.columns[0]].cpu()
    return _shown(found * scores.sign()[:, None, None], work)


PAIRS: Mapping[str, Pair] = {
    "gradient": Pair(
        _pixels(pixel_gradients),
        {
            "captum": Peer(_captum("Saliency", abs=False)),
            "captum, one batch": Peer(_captum("Saliency", at_once=True, abs=False)),
        },
    ),
    "guided_backprop": Pair(
        _pixels(pixel_gradients, rule="guided"),
        {
            "captum": Peer(_captum("GuidedBackprop")),
            "captum, one batch": Peer(_captum("GuidedBackprop", at_once=True)),
        },
    ),
    "deconvnet": Pair(
        _pixels(pixel_gradients, rule="deconv"),
        {
            "captum": Peer(_captum("Deconvolution")),
            "captum, one batch": Peer(_captum("Deconvolution", at_once=True)),
        },
    ),
    "guided_grad_cam": Pair(
        _pixels(guided_grad_cam),
        {
            "captum": Peer(_captum("GuidedGradCam", layer=True, interpolate_mode="bilinear")),
            "captum, one batch": Peer(_captum("GuidedGradCam", layer=True, at_once=True, interpolate_mode="bilinear")),
        },
    ),
    "integrated_gradients": Pair(
        _pixels(integrated_gradients, steps=STEPS),
        {
            "captum": Peer(_captum("IntegratedGradients", n_steps=STEPS)),
            "captum, 5 steps at once": Peer(_captum("IntegratedGradients", n_steps=STEPS, internal_batch_size=5)),
        },
    ),
    "occlusion": Pair(
        _occlusion,
        {
            "captum": Peer(_captum_occlusion(1)),
            "captum, 16 windows at once": Peer(_captum_occlusion(16)),
        },
    ),
    "grad_cam": Pair(
        lambda work: ours(work)[0],
        {
            "captum": Peer(_over_channels(_captum("LayerGradCam", layer=True))),
            "torchcam": _torchcam("GradCAM"),
            "pytorch-grad-cam": _pytorch_grad_cam("GradCAM"),
        },
    ),
    "hires_cam": Pair(
        _maps("hires_cam"),
        {
            "captum": Peer(_over_channels(_captum("LayerGradientXActivation", layer=True))),
            "pytorch-grad-cam": _pytorch_grad_cam("HiResCAM"),
        },
    ),
    "layer_cam": Pair(
        _maps("layer_cam"),
        {"torchcam": _torchcam("LayerCAM"), "pytorch-grad-cam": _pytorch_grad_cam("LayerCAM")},
    ),
    "elementwise_grad_cam": Pair(
        _maps("elementwise_grad_cam"), {"pytorch-grad-cam": _pytorch_grad_cam("GradCAMElementWise")}
    ),
    "xgrad_cam": Pair(
        _maps("xgrad_cam"),
        {"torchcam": _torchcam("XGradCAM"), "pytorch-grad-cam": _pytorch_grad_cam("XGradCAM")},
    ),
    "grad_cam_plus_plus": Pair(
        _maps("grad_cam_plus_plus"),
        {"torchcam": _torchcam("GradCAMpp"), "pytorch-grad-cam": _pytorch_grad_cam("GradCAMPlusPlus")},
        weights=1e4,
    ),
    "eigen_grad_cam": Pair(
        _maps("eigen_grad_cam"), {"pytorch-grad-cam": _pytorch_grad_cam("EigenGradCAM")}, either=True
    ),
    "cam": Pair(_maps("cam"), {"torchcam": _torchcam_without_gradients("CAM", _same, fc_layer="1.2")}),
    "finer_cam": Pair(_finer_cam, {"torchcam": _torchcam("FinerCAM", num_references=3)}),
    "ablation_cam": Pair(
        _maps("ablation_cam"),
        {"captum": Peer(_captum_ablation), "pytorch-grad-cam": _pytorch_grad_cam("AblationCAM", _shown_by_sign)},
    ),
    "score_cam, torchcam's masks": Pair(
        _score_cam(conventions.score_cam_masks_of_torchcam),
        {"torchcam": _torchcam_without_gradients("ScoreCAM", _rectified)},
    ),
    "score_cam, pytorch-grad-cam's masks": Pair(
        _score_cam(conventions.score_cam_masks_of_pytorch_grad_cam),
        {"pytorch-grad-cam": _pytorch_grad_cam("ScoreCAM")},
    ),
}
"""By name. SmoothGrad and Smooth Grad-CAM++ draw their noise differently, Eigen-CAM and FullGrad of the peers are other
maps (`tests/methods/test_cam_parity.py`), the rest has no peer."""
