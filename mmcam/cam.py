"""From channel weights or gradients to maps: weighted sums of the channels; pure functions over images and rows.

g = ∂y/∂A (b, r, k, h, w), A (b, k, h, w), α (b, r, k). Every function returns the map *before* ReLU, Σ_k α_k A^k;
`Explanation.maps` rectifies it (Eq. 2's ReLU), and `Explanation.signed` is the ablation without it. Only Grad-CAM,
XGrad-CAM and HiResCAM are linear in the score: there the sentence's map is the sum of its words' maps.

A new method of this kind is one function and one line in the tables below; one that must ask the model again is one in
`mmcam.methods.table`.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.methods.eigen import eigen_grad_cam
from mmcam.methods.elementwise import elementwise_grad_cam, gradient_norm, hires_cam, layer_cam, widened

__all__ = [
    "FROM_GRADIENTS",
    "FROM_WEIGHTS",
    "absolute_grad_cam",
    "activation_norm",
    "grad_cam",
    "grad_cam_plus_plus",
    "hires_cam",
    "max_pooled_grad_cam",
    "plus_plus_weights",
    "unrectified_grad_cam",
    "xgrad_cam",
]


def grad_cam(weights: Float[Tensor, "b r k"], activations: Float[Tensor, "b k h w"]) -> Float[Tensor, "b r h w"]:
    """Grad-CAM (Selvaraju et al., arXiv 1610.02391), Eq. 2 before its ReLU: Σ_k α_k A^k, one matrix product.

    Args:
        weights: α, the spatial mean of ∂y/∂A (Eq. 1). The authors' Torch code *sums* instead, which scales the map by
            Z = h·w.
        activations: A, the explained layer's output.

    Returns:
        One map a row, in float32 at least.
    """
    a = widened(activations).flatten(2)
    maps = torch.bmm(weights.to(a.dtype), a)  # (b, r, k) @ (b, k, h·w)
    return maps.unflatten(2, activations.shape[2:])


def unrectified_grad_cam(
    weights: Float[Tensor, "b r k"], activations: Float[Tensor, "b k h w"]
) -> Float[Tensor, "b r h w"]:
    """Grad-CAM without the ReLU of Eq. 2: the paper's ablation (arXiv 1610.02391, section 3.2 and appendix).

    The map is shifted so that its least place is 0, as the authors' code does before it shows one; so what speaks
    against the word is weak and what has nothing to do with it is not.

    Args:
        weights: α.
        activations: A.

    Returns:
        One map a row, nowhere negative.
    """
    maps = grad_cam(weights, activations)
    return maps - maps.amin((2, 3), keepdim=True)


def max_pooled_grad_cam(
    gradients: Float[Tensor, "b r k h w"], activations: Float[Tensor, "b k h w"]
) -> Float[Tensor, "b r h w"]:
    """Grad-CAM with α_k = max_ij g^k_ij: the paper's ablation (arXiv 1610.02391, appendix) of the mean in Eq. 1.

    Args:
        gradients: ∂y/∂A.
        activations: A.

    Returns:
        One map a row, before ReLU.
    """
    return grad_cam(widened(gradients).amax((3, 4)), activations)


def absolute_grad_cam(
    gradients: Float[Tensor, "b r k h w"], activations: Float[Tensor, "b k h w"]
) -> Float[Tensor, "b r h w"]:
    """Grad-CAM with α_k = mean_ij |g^k_ij|: the paper's ablation (arXiv 1610.02391, appendix) of the sign in Eq. 1.

    Args:
        gradients: ∂y/∂A.
        activations: A.

    Returns:
        One map a row, before ReLU.
    """
    return grad_cam(widened(gradients).abs().mean((3, 4)), activations)


def xgrad_cam(gradients: Float[Tensor, "b r k h w"], activations: Float[Tensor, "b k h w"]) -> Float[Tensor, "b r h w"]:
    """XGrad-CAM (Fu et al., arXiv 2008.02312, Eq. 8): α_k = Σ_ij g^k_ij A^k_ij / Σ_ij A^k_ij.

    The map sums to Σ g ⊙ A, which is y where the head is piecewise linear without biases (the paper's conservation);
    it is Grad-CAM where the gradient is the same at every place.

    Differs from the paper: a channel whose activations sum to exactly zero, as a dead one does, gets the weight 0, and
    nothing is added to the sum. Of layers with negative activations the weights may be of any size.

    Args:
        gradients: ∂y/∂A.
        activations: A; the paper takes them after ReLU.

    Returns:
        One map a row, before ReLU.
    """
    a = widened(activations)
    total = a.sum((2, 3))[:, None]  # (b, 1, k)
    weights = torch.einsum("brkhw,bkhw->brk", gradients.to(a.dtype), a) / torch.where(total == 0, 1, total)
    return grad_cam(weights.masked_fill(total == 0, 0), activations)


def grad_cam_plus_plus(
    gradients: Float[Tensor, "b r k h w"], activations: Float[Tensor, "b k h w"]
) -> Float[Tensor, "b r h w"]:
    """Grad-CAM++ (Chattopadhay et al., arXiv 1710.11063, Eq. 5, 7 and 19): see `plus_plus_weights`.

    As g² cancels there, α_ij ReLU(g_ij) = ReLU(g_ij) / (2 + g_ij Σ_ab A_ab): nothing is added to the denominator, so
    gradients of any size keep their shares. Not linear in the score.

    Differs from the paper: y is the score itself, and the paper's Y = exp(y) would multiply every map by exp(y), which
    is left out. torch-cam and MONAI mean Σ_ab A_ab g_ab³ by (Σ_ab A_ab) g_ij³, which is another method, and torch-cam
    0.5 divides a copy, so that its α is g². pytorch-grad-cam adds 10⁻⁶ to the denominator, where g² may be smaller.

    Args:
        gradients: ∂y/∂A.
        activations: A; the paper takes them after ReLU. Where the denominator is exactly 0, α is 0.

    Returns:
        One map a row, before ReLU.
    """
    g, a = widened(gradients), widened(activations)
    denominator = 2 + g * a.sum((2, 3))[:, None, :, None, None]
    alpha = torch.where(denominator == 0, 0, g.relu() / torch.where(denominator == 0, 1, denominator))
    return grad_cam(alpha.sum((3, 4)), activations)


def plus_plus_weights(
    first: Float[Tensor, "b r k h w"],
    second: Float[Tensor, "b r k h w"],
    third: Float[Tensor, "b r k h w"],
    activations: Float[Tensor, "b k h w"],
) -> Float[Tensor, "b r k"]:
    """The weights of Grad-CAM++, w_k = Σ_ij α_ij ReLU(D¹_ij) with α_ij = D²_ij / (2 D²_ij + Σ_ab A_ab · D³_ij).

    Args:
        first: D¹, for Grad-CAM++ g.
        second: D², for Grad-CAM++ g².
        third: D³, for Grad-CAM++ g³.
        activations: A.

    Returns:
        One weight a channel; a place where the denominator is exactly 0 adds nothing.
    """
    denominator = 2 * second + widened(activations).sum((2, 3))[:, None, :, None, None] * third
    alpha = torch.where(denominator == 0, 0, second / torch.where(denominator == 0, 1, denominator))
    return (alpha * first.relu()).sum((3, 4))


def activation_norm(weights: Float[Tensor, "b r k"], activations: Float[Tensor, "b k h w"]) -> Float[Tensor, "b r h w"]:
    """The baseline that knows nothing of the score: ‖A(x)‖ over the channels, the same for every row.

    A method that does not beat it explains nothing.

    Args:
        weights: Only their number of rows is used.
        activations: A.

    Returns:
        The same map for every row of an image.
    """
    norm = widened(activations).norm(dim=1, keepdim=True)
    return norm.expand(-1, weights.shape[1], -1, -1).clone()


FROM_WEIGHTS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "grad_cam": grad_cam,
    "activation_norm": activation_norm,
    "unrectified_grad_cam": unrectified_grad_cam,
}
"""(α, A) → maps: nothing of the size of the gradients is kept."""

FROM_GRADIENTS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "hires_cam": hires_cam,
    "grad_cam_plus_plus": grad_cam_plus_plus,
    "xgrad_cam": xgrad_cam,
    "layer_cam": layer_cam,
    "eigen_grad_cam": eigen_grad_cam,
    "elementwise_grad_cam": elementwise_grad_cam,
    "max_pooled_grad_cam": max_pooled_grad_cam,
    "absolute_grad_cam": absolute_grad_cam,
    "gradient_norm": gradient_norm,
}
"""(g, A) → maps."""
