"""CAM and Ablation-CAM: the weight of a channel is what it adds to the score; no passes where the head is linear."""

import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.cam import grad_cam
from mmcam.errors import UserError
from mmcam.methods.elementwise import widened
from mmcam.methods.subject import Subject


def cam(subject: Subject) -> Float[Tensor, "b r h w"]:
    """CAM (Zhou et al., arXiv 1512.04150, Eq. 2): Σ_k w_k A^k with the weights of the linear layer behind the pooling.

    y = Σ_k w_k mean(A^k) + bias, so w_k = Z · α_k and the map is Grad-CAM's times Z = h·w; its mean is y less the bias.
    The weights are read off the gradients, so that a captioner or VQA model may have such a head too; that it is one
    is tried out at three other activations.

    Args:
        subject: What is explained.

    Returns:
        One map a row. The paper has no ReLU.

    Raises:
        UserError: The head is not global average pooling and one linear layer.
    """
    gradients = widened(subject.gradients())
    mean = gradients.mean((3, 4), keepdim=True)
    uneven = (gradients - mean).abs().flatten(1).sum(1) > _tolerance(subject) * gradients.abs().flatten(1).sum(1)
    if bool(uneven.any()) or not is_affine(subject):
        raise UserError(
            "expected a head of global average pooling and one linear layer, which CAM is made for; got another head "
            "behind this layer; use grad_cam, which is the same there and exists for every head"
        )
    return grad_cam(gradients.sum((3, 4)), subject.activations)


def ablation_cam(subject: Subject) -> Float[Tensor, "b r h w"]:
    """Ablation-CAM (Desai and Ramaswamy, WACV 2020, Eq. 2 and 3): the weight of a channel is what its loss costs.

    w_k = y - y_k, where y_k is the score with A^k set to zero. If the head is affine, w_k = Σ_ij g^k_ij A^k_ij, without
    a further pass; otherwise the head runs once a channel, all rows and pictures together. The trunk never runs again.

    Differs from the paper: not divided by y. A log-probability is negative and would turn the map round, and a score of
    zero has no quotient; where y is positive, all maps differ from the paper's by that factor alone. pytorch-grad-cam
    sets channels to -10⁷ instead of 0 where activations are negative.

    Args:
        subject: What is explained.

    Returns:
        One map a row, before ReLU.
    """
    a = subject.activations
    if is_affine(subject):
        return grad_cam(torch.einsum("brkhw,bkhw->brk", widened(subject.gradients()), widened(a)), a)

    def without(index: Tensor, channel: Tensor) -> Tensor:
        altered = a[index]
        altered[torch.arange(len(index), device=a.device), channel] = 0
        return altered

    y_k = subject.scores_of_altered(a.shape[1], without)  # (b, k, r)
    return grad_cam(subject.scores()[..., None] - y_k.mT, a)


def is_affine(subject: Subject) -> bool:
    """Try out whether y(P) = y(A) + g · (P - A) holds at three other activations: 0, -A and A of the next channel.

    Args:
        subject: What is explained.

    Returns:
        Whether it does for every row, up to rounding. What is not finite says nothing against it.
    """
    a, gradients = widened(subject.activations), widened(subject.gradients())
    points = torch.stack([torch.zeros_like(a), -a, a.roll(1, 1)], 1)  # (b, 3, k, h, w)
    found = subject.scores_of_altered(3, lambda i, n: points[i, n].to(subject.activations.dtype))
    steps = torch.einsum("brkhw,bnkhw->bnr", gradients, points - a[:, None])
    size = torch.einsum("brkhw,bkhw->br", gradients.abs(), a.abs()) + subject.scores().abs()
    wrong = (found - subject.scores()[:, None] - steps).abs() > _tolerance(subject) * size[:, None]
    return not bool(wrong.any())


def _tolerance(subject: Subject) -> float:
    return torch.finfo(subject.activations.dtype).eps ** 0.5
