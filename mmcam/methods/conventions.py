"""What peers make of a raw map: thin functions that reproduce their output out of ours, to 1e-5.

Our maps are raw: before ReLU, at the layer's resolution, not scaled. The peers differ in what they do next:

    paper             ReLU, then bilinear to the input's size; not scaled
    pytorch-grad-cam  ReLU, min-max, bilinear to the input's size, min-max once more
    torchcam          ReLU, min-max; at the layer's resolution
    captum            no ReLU, nearest neighbour to the input's size (`LayerAttribution.interpolate`'s default)

Min-max subtracts the smallest value also where that is positive, so contrast is invented; that is the peers' business.
"""

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mmcam.draw import upsample
from mmcam.errors import unknown
from mmcam.explanation import Explanation

Size = tuple[int, int]


def present(explanation: Explanation, convention: str, size: Size) -> Float[Tensor, "r H W"]:
    """Show an explanation's maps as a peer would.

    Args:
        explanation: By the method that the peer was asked for.
        convention: "paper", "pytorch-grad-cam", "torchcam" or "captum".
        size: Height and width of the network's input, which is what the peers know of the picture.

    Returns:
        The maps; torchcam's keep the layer's resolution.

    Raises:
        UserError: The convention is not known.
    """
    if convention not in CONVENTIONS:
        raise unknown("convention", convention, CONVENTIONS)
    return CONVENTIONS[convention](explanation.signed, size)


def paper(signed: Float[Tensor, "r h w"], size: Size) -> Float[Tensor, "r H W"]:
    """Grad-CAM's paper (arXiv 1610.02391): ReLU, then bilinear upsampling; the scale is left to the drawing."""
    return upsample(signed.relu(), size)


def pytorch_grad_cam(signed: Float[Tensor, "r h w"], size: Size) -> Float[Tensor, "r H W"]:
    """`BaseCAM.forward` with one layer: `compute_cam_per_layer`, then `aggregate_multi_layers`."""
    small = min_max(signed.relu(), 1e-7)
    return min_max(upsample(small, size).relu(), 1e-7)


def torchcam(signed: Float[Tensor, "r h w"], size: Size) -> Float[Tensor, "r h w"]:
    """`_CAM.compute_cams` of the gradient methods with `normalized=True`; `size` is not used."""
    return min_max(signed.relu(), 1e-8)


def captum(signed: Float[Tensor, "r h w"], size: Size) -> Float[Tensor, "r H W"]:
    """`LayerGradCam.attribute` and `LayerAttribution.interpolate`, with their defaults."""
    return F.interpolate(signed[None], size, mode="nearest")[0]


def min_max(maps: Float[Tensor, "r h w"], eps: float) -> Float[Tensor, "r h w"]:
    """(M - min M) / (max (M - min M) + ε), map by map."""
    maps = maps - maps.amin((1, 2), keepdim=True)
    return maps / (maps.amax((1, 2), keepdim=True) + eps)


CONVENTIONS: Mapping[str, Callable[[Tensor, Size], Tensor]] = {
    "paper": paper,
    "pytorch-grad-cam": pytorch_grad_cam,
    "torchcam": torchcam,
    "captum": captum,
}


def score_cam_masks_of_pytorch_grad_cam(channels: Float[Tensor, "n h w"], size: Size) -> Float[Tensor, "n H W"]:
    """For `mmcam.methods.masking.score_cam`: resized with `align_corners=True`, then min-max."""
    large = F.interpolate(channels[:, None], size, mode="bilinear", align_corners=True)[:, 0]
    smallest = large.amin((1, 2), keepdim=True)
    return (large - smallest) / (large.amax((1, 2), keepdim=True) - smallest + 1e-8)


def score_cam_masks_of_torchcam(channels: Float[Tensor, "n h w"], size: Size) -> Float[Tensor, "n H W"]:
    """For `mmcam.methods.masking.score_cam`: min-max at the layer's resolution, then resized."""
    return F.interpolate(min_max(channels, 1e-8)[:, None], size, mode="bilinear", align_corners=False)[:, 0]
