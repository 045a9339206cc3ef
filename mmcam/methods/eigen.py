"""Maps that are principal components of what the channels say: Eigen-CAM and Eigen-Grad-CAM."""

import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.methods.elementwise import widened


def eigen_cam(activations: Float[Tensor, "b k h w"]) -> Float[Tensor, "b h w"]:
    """Eigen-CAM (Muhammad and Yeasin, arXiv 2008.00299): L = O v₁, the first component of the activations.

    O (h·w, k) holds the activations place by place, O = U Σ Vᵀ, v₁ the first right singular vector. It knows nothing of
    the score: every row of a picture has the same map.

    Differs from the paper, which leaves the sign open: the map's sum is not negative. pytorch-grad-cam takes the mean
    of each channel away first, and gives the sign that its solver happens to find.

    Args:
        activations: A.

    Returns:
        One map a picture; of activations that are nowhere negative it is nowhere negative.
    """
    component = first_component(activations)
    return component * _sign(component.sum((1, 2)))


def eigen_grad_cam(
    gradients: Float[Tensor, "b r k h w"], activations: Float[Tensor, "b k h w"]
) -> Float[Tensor, "b r h w"]:
    """Eigen-Grad-CAM: the first principal component of g ⊙ A, each channel less its mean.

    There is no paper; the method is pytorch-grad-cam's. Differs from it in the sign, which there is the solver's: here
    the map lies on the side of HiResCAM's, so that what speaks for the score is positive.

    Args:
        gradients: ∂y/∂A.
        activations: A.

    Returns:
        One map a row, before ReLU; it sums to zero.
    """
    product = (widened(gradients) * widened(activations)[:, None]).flatten(0, 1)  # (b·r, k, h, w)
    centred = product - product.mean((2, 3), keepdim=True)
    component = first_component(centred)
    side = (component * centred.sum(1)).sum((1, 2))
    return (component * _sign(side)).unflatten(0, gradients.shape[:2])


def first_component(x: Float[Tensor, "n k h w"]) -> Float[Tensor, "n h w"]:
    """Project the places of maps upon their first right singular vector, in float64.

    It is found from the smaller of the two Gram matrices, places or channels: L = O v₁ = σ₁ u₁.

    Args:
        x: Maps of k channels; nothing is taken away.

    Returns:
        One map each, of either sign; NaN where there is a number that is not finite. Where the two largest singular
        values are equal, any of their components may come out.
    """
    broken = ~x.isfinite().flatten(1).all(1)[:, None, None]
    o = x.masked_fill(broken[..., None], 0).double().flatten(2).mT  # (n, h·w, k)
    if o.shape[1] <= o.shape[2]:
        values, vectors = torch.linalg.eigh(o @ o.mT)
        map = vectors[..., -1] * values[..., -1:].clamp(min=0).sqrt()
    else:
        map = (o @ torch.linalg.eigh(o.mT @ o).eigenvectors[..., -1:]).squeeze(2)
    return map.unflatten(1, x.shape[2:]).to(widened(x).dtype).masked_fill(broken, torch.nan)


def _sign(x: Float[Tensor, " n"]) -> Float[Tensor, "n 1 1"]:
    """1 or -1; a sum of zero turns nothing round."""
    return torch.where(x < 0, -1, 1)[:, None, None].to(x.dtype)
