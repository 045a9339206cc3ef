"""Maps that keep the gradient at its place: gradients times activations, place by place, and what is made of them.

Pure functions, batched over images and rows. g = ∂y/∂A (b, r, k, h, w), A (b, k, h, w); every sum is over the
channels k. Nothing here divides, so a gradient of zeros gives a map of zeros.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def hires_cam(gradients: Float[Tensor, "b r k h w"], activations: Float[Tensor, "b k h w"]) -> Float[Tensor, "b r h w"]:
    """HiResCAM (Draelos and Carin, arXiv 2011.08891): Σ_k g^k ⊙ A^k, without averaging the gradient.

    Args:
        gradients: ∂y/∂A.
        activations: A.

    Returns:
        One map a row, before ReLU; equal to Grad-CAM where the gradient is the same at every place. It sums to y where
        the head is piecewise linear without biases.
    """
    a = widened(activations)
    return torch.einsum("brkhw,bkhw->brhw", gradients.to(a.dtype), a)


def layer_cam(gradients: Float[Tensor, "b r k h w"], activations: Float[Tensor, "b k h w"]) -> Float[Tensor, "b r h w"]:
    """LayerCAM (Jiang et al., IEEE TIP 30, 2021, Eq. 5 and 6): Σ_k ReLU(g^k) ⊙ A^k.

    Equal to HiResCAM where no gradient is negative. Not linear in the score: a sentence's map is not the sum of its
    words'. Differs from the paper: no layer's map is scaled by tanh (Eq. 9), which only serves the fusion of layers.

    Args:
        gradients: ∂y/∂A.
        activations: A; the paper takes them after ReLU.

    Returns:
        One map a row, before the outer ReLU.
    """
    return hires_cam(gradients.relu(), activations)


def elementwise_grad_cam(
    gradients: Float[Tensor, "b r k h w"], activations: Float[Tensor, "b k h w"]
) -> Float[Tensor, "b r h w"]:
    """Σ_k ReLU(g^k ⊙ A^k): what speaks for the score, channel by channel; pytorch-grad-cam's `GradCAMElementWise`.

    There is no paper. Equal to LayerCAM where no activation is negative.

    Args:
        gradients: ∂y/∂A.
        activations: A.

    Returns:
        One map a row, nowhere negative.
    """
    a = widened(activations)
    return (gradients.to(a.dtype) * a[:, None]).relu().sum(2)


def gradient_norm(
    gradients: Float[Tensor, "b r k h w"], activations: Float[Tensor, "b k h w"]
) -> Float[Tensor, "b r h w"]:
    """How much the score depends on a place, for or against: ‖g(x)‖ over the channels.

    The saliency of Simonyan et al. (arXiv 1312.6034) at a layer instead of the picture. Differs from the paper: the
    Euclidean norm over the channels, where it takes the largest absolute value.

    Args:
        gradients: ∂y/∂A.
        activations: Not used.

    Returns:
        One map a row, nowhere negative.
    """
    return widened(gradients).norm(dim=2)


def widened(x: Tensor) -> Tensor:
    """In float32 at least, so that sums over channels and places keep their digits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
