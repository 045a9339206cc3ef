"""The methods of pixel space as maps, so that `explain` finds them by name like any other.

Gradients lose their sign (the largest magnitude over the colours, as in Simonyan et al., section 3): that of a pixel
says whether it should be lighter, not whether it speaks for the word. What is a part of the score keeps it.
"""

from collections.abc import Callable, Mapping

from jaxtyping import Float
from torch import Tensor

from mmcam.methods.saliency import pixel_gradients
from mmcam.methods.subject import Subject
from mmcam.pixels import channel_maximum, channel_sum, guided_grad_cam, integrated_gradients, occlusion, smooth_grad

__all__ = ["FROM_PIXELS"]


def _gradient(subject: Subject) -> Float[Tensor, "b r H W"]:
    return channel_maximum(pixel_gradients(*subject.asked))


def _guided_backprop(subject: Subject) -> Float[Tensor, "b r H W"]:
    return channel_maximum(pixel_gradients(*subject.asked, rule="guided"))


def _deconvnet(subject: Subject) -> Float[Tensor, "b r H W"]:
    return channel_maximum(pixel_gradients(*subject.asked, rule="deconv"))


def _guided_grad_cam(subject: Subject) -> Float[Tensor, "b r H W"]:
    return channel_maximum(guided_grad_cam(*subject.asked))


def _deconv_grad_cam(subject: Subject) -> Float[Tensor, "b r H W"]:
    return channel_maximum(guided_grad_cam(*subject.asked, rule="deconv"))


def _smooth_grad(subject: Subject) -> Float[Tensor, "b r H W"]:
    return channel_maximum(smooth_grad(*subject.asked))


def _integrated_gradients(subject: Subject) -> Float[Tensor, "b r H W"]:
    return channel_sum(integrated_gradients(*subject.asked))


def _occlusion(subject: Subject) -> Float[Tensor, "b r H W"]:
    side = max(1, round(min(subject.images.shape[2:]) / 5))  # 45 of 224 pixels
    return occlusion(*subject.asked, window=side, stride=max(1, side // 2))


FROM_PIXELS: Mapping[str, Callable[[Subject], Tensor]] = {
    "gradient": _gradient,
    "guided_backprop": _guided_backprop,
    "deconvnet": _deconvnet,
    "guided_grad_cam": _guided_grad_cam,
    "deconv_grad_cam": _deconv_grad_cam,
    "smooth_grad": _smooth_grad,
    "integrated_gradients": _integrated_gradients,
    "occlusion": _occlusion,
}
