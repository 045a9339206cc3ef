"""Which peer has which method: both ways to the same maps, for all targets of one picture."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.methods import ours
from benchmarks.peers import (
    Peer,
    Way,
    captum,
    captum_ablation,
    captum_occlusion,
    over_channels,
    pytorch_grad_cam,
    rectified,
    same,
    shown_by_sign,
    side,
    torchcam,
    torchcam_without_gradients,
)
from benchmarks.workloads import Workload
from mmcam.engine import explain
from mmcam.methods import conventions
from mmcam.methods.finer import explain_finer, nearest
from mmcam.methods.masking import Masks, score_cam
from mmcam.methods.occlusion import occlusion
from mmcam.methods.subject import Subject
from mmcam.pixels import guided_grad_cam, integrated_gradients, pixel_gradients

STEPS = 50
"""Of integrated gradients, as captum's default."""


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


PAIRS: Mapping[str, Pair] = {
    "gradient": Pair(
        _pixels(pixel_gradients),
        {
            "captum": Peer(captum("Saliency", abs=False)),
            "captum, one batch": Peer(captum("Saliency", at_once=True, abs=False)),
        },
    ),
    "guided_backprop": Pair(
        _pixels(pixel_gradients, rule="guided"),
        {
            "captum": Peer(captum("GuidedBackprop")),
            "captum, one batch": Peer(captum("GuidedBackprop", at_once=True)),
        },
    ),
    "deconvnet": Pair(
        _pixels(pixel_gradients, rule="deconv"),
        {
            "captum": Peer(captum("Deconvolution")),
            "captum, one batch": Peer(captum("Deconvolution", at_once=True)),
        },
    ),
    "guided_grad_cam": Pair(
        _pixels(guided_grad_cam),
        {
            "captum": Peer(captum("GuidedGradCam", layer=True, interpolate_mode="bilinear")),
            "captum, one batch": Peer(captum("GuidedGradCam", layer=True, at_once=True, interpolate_mode="bilinear")),
        },
    ),
    "integrated_gradients": Pair(
        _pixels(integrated_gradients, steps=STEPS),
        {
            "captum": Peer(captum("IntegratedGradients", n_steps=STEPS)),
            "captum, 5 steps at once": Peer(captum("IntegratedGradients", n_steps=STEPS, internal_batch_size=5)),
        },
    ),
    "occlusion": Pair(
        _occlusion,
        {
            "captum": Peer(captum_occlusion(1)),
            "captum, 16 windows at once": Peer(captum_occlusion(16)),
        },
    ),
    "grad_cam": Pair(
        lambda work: ours(work)[0],
        {
            "captum": Peer(over_channels(captum("LayerGradCam", layer=True))),
            "torchcam": torchcam("GradCAM"),
            "pytorch-grad-cam": pytorch_grad_cam("GradCAM"),
        },
    ),
    "hires_cam": Pair(
        _maps("hires_cam"),
        {
            "captum": Peer(over_channels(captum("LayerGradientXActivation", layer=True))),
            "pytorch-grad-cam": pytorch_grad_cam("HiResCAM"),
        },
    ),
    "layer_cam": Pair(
        _maps("layer_cam"),
        {"torchcam": torchcam("LayerCAM"), "pytorch-grad-cam": pytorch_grad_cam("LayerCAM")},
    ),
    "elementwise_grad_cam": Pair(
        _maps("elementwise_grad_cam"), {"pytorch-grad-cam": pytorch_grad_cam("GradCAMElementWise")}
    ),
    "xgrad_cam": Pair(
        _maps("xgrad_cam"),
        {"torchcam": torchcam("XGradCAM"), "pytorch-grad-cam": pytorch_grad_cam("XGradCAM")},
    ),
    "grad_cam_plus_plus": Pair(
        _maps("grad_cam_plus_plus"),
        {"torchcam": torchcam("GradCAMpp"), "pytorch-grad-cam": pytorch_grad_cam("GradCAMPlusPlus")},
        weights=1e4,
    ),
    "eigen_grad_cam": Pair(
        _maps("eigen_grad_cam"), {"pytorch-grad-cam": pytorch_grad_cam("EigenGradCAM")}, either=True
    ),
    "cam": Pair(_maps("cam"), {"torchcam": torchcam_without_gradients("CAM", same, fc_layer="1.2")}),
    "finer_cam": Pair(_finer_cam, {"torchcam": torchcam("FinerCAM", num_references=3)}),
    "ablation_cam": Pair(
        _maps("ablation_cam"),
        {"captum": Peer(captum_ablation), "pytorch-grad-cam": pytorch_grad_cam("AblationCAM", shown_by_sign)},
    ),
    "score_cam, torchcam's masks": Pair(
        _score_cam(conventions.score_cam_masks_of_torchcam),
        {"torchcam": torchcam_without_gradients("ScoreCAM", rectified)},
    ),
    "score_cam, pytorch-grad-cam's masks": Pair(
        _score_cam(conventions.score_cam_masks_of_pytorch_grad_cam),
        {"pytorch-grad-cam": pytorch_grad_cam("ScoreCAM")},
    ),
}
"""By name. SmoothGrad and Smooth Grad-CAM++ draw their noise differently, Eigen-CAM and FullGrad of the peers are other
maps (`tests/methods/test_cam_parity.py`), the rest has no peer."""
