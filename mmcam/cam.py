"""From channel weights or gradients to maps: pure functions, batched over images and rows.

Every function returns the map *before* ReLU, which is linear in the score: the sentence's map is the sum of its words'
maps. `Explanation.maps` rectifies it (Eq. 2's ReLU).
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor


def grad_cam(weights: Float[Tensor, "b r k"], activations: Float[Tensor, "b k h w"]) -> Float[Tensor, "b r h w"]:
    """Grad-CAM (Selvaraju et al., arXiv 1610.02391), Eq. 2 before its ReLU: Σ_k α_k A^k, one matrix product.

    Args:
        weights: α, the spatial mean of ∂y/∂A (Eq. 1). The authors' Torch code *sums* instead, which scales the map by
            Z = h·w.
        activations: A, the explained layer's output.

    Returns:
        One map a row, in float32 at least.
    """
    a = activations.to(_at_least_float32(activations)).flatten(2)
    maps = torch.bmm(weights.to(a.dtype), a)  # (b, r, k) @ (b, k, h·w)
    return maps.unflatten(2, activations.shape[2:])


def hires_cam(gradients: Float[Tensor, "b r k h w"], activations: Float[Tensor, "b k h w"]) -> Float[Tensor, "b r h w"]:
    """HiResCAM (Draelos and Carin, arXiv 2011.08891): Σ_k ∂y/∂A^k ⊙ A^k, without averaging the gradient.

    Args:
        gradients: ∂y/∂A.
        activations: A.

    Returns:
        One map a row; equal to Grad-CAM where the gradient is the same at every place.
    """
    a = activations.to(_at_least_float32(activations))
    return torch.einsum("brkhw,bkhw->brhw", gradients.to(a.dtype), a)


def activation_norm(weights: Float[Tensor, "b r k"], activations: Float[Tensor, "b k h w"]) -> Float[Tensor, "b r h w"]:
    """The baseline that knows nothing of the score: ‖A(x)‖ over the channels, the same for every row.

    A method that does not beat it explains nothing.

    Args:
        weights: Only their number of rows is used.
        activations: A.

    Returns:
        The same map for every row of an image.
    """
    norm = activations.to(_at_least_float32(activations)).norm(dim=1, keepdim=True)
    return norm.expand(-1, weights.shape[1], -1, -1).clone()


def _at_least_float32(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


FROM_WEIGHTS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "grad_cam": grad_cam,
    "activation_norm": activation_norm,
}
FROM_GRADIENTS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"hires_cam": hires_cam}
