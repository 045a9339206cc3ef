"""Whether the gradients are those of the model: against one backward a row, differences, and what CAM must be."""

import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.doctor.case import SKIPPED, Case, relative, verdict
from mmcam.gradients import channel_weights, full_gradients, looped
from mmcam.task import vjp_of


def batched(case: Case) -> tuple[str, str]:
    """The task's own way of differentiating, and the probe, against one backward a row and the whole gradient."""
    vjp = vjp_of(case.task)
    _, reference = full_gradients(case.head, case.activations, case.targets.rows, looped)
    _, weights = channel_weights(case.head, case.activations, case.targets.rows, vjp)
    _, gradients = full_gradients(case.head, case.activations, case.targets.rows, vjp)
    error = max(relative(gradients, reference), relative(weights, reference.mean((-2, -1))))
    return verdict(
        error, case.tolerance(1e-9, 1e-3)
    ), f"{getattr(vjp, '__name__', 'vjp')}; largest relative error {error:.1e}"


def finite_differences(case: Case) -> tuple[str, str]:
    """∂y/∂probe along random directions against (y(A + εu) - y(A - εu)) / 2ε.

    A longer ε is tried too: norms of language models round to float32 on their way, which drowns small differences.
    """
    _, weights = channel_weights(case.head, case.activations, case.targets.rows, looped)
    tolerance, error = case.tolerance(1e-3, 0.1), float("inf")
    for share in (1e-5, 1e-3) if case.exact else (1e-2,):
        error = min(error, _difference(case, weights, share * float(case.activations.abs().mean())))
        if error <= tolerance:
            break
    return verdict(error, tolerance), f"3 directions; largest relative error {error:.1e}"


def _difference(case: Case, weights: Float[Tensor, "b r k"], step: float) -> float:
    """The largest error of three directions at one ε."""
    area = case.activations.shape[2:].numel()
    generator = torch.Generator().manual_seed(0)
    error = 0.0
    for _ in range(3):
        direction = torch.randn(*case.activations.shape[:2], generator=generator).to(case.activations)
        expected = torch.einsum("brk,bk->br", weights.to(direction.dtype), direction) * area
        shift = step * direction[..., None, None]
        found = (case.rows(case.activations + shift) - case.rows(case.activations - shift)) / (2 * step)
        error = max(error, relative(found, expected))
    return error


def cam_identity(case: Case) -> tuple[str, str]:
    """Where the head is y = Σ_k w_k mean(A^k) + b, Grad-CAM is CAM / Z and its un-rectified map sums to y - b.

    Zhou et al., arXiv 1512.04150; Grad-CAM, arXiv 1610.02391, section 3.
    """
    _, gradients = full_gradients(case.head, case.activations, case.targets.rows, looped)
    mean = gradients.mean((-2, -1), keepdim=True)
    varies = relative(gradients, mean.expand_as(gradients))
    if varies > case.tolerance(1e-9, 1e-4):
        return SKIPPED, "the head is not average pooling and linear: the gradient differs from place to place"
    _, elsewhere = full_gradients(case.head, case.activations.flip(-1) * 0.5 + 0.1, case.targets.rows, looped)
    bends = relative(elsewhere, gradients)
    if bends > case.tolerance(1e-9, 1e-4):
        return SKIPPED, "the head is not average pooling and linear: the gradient changes with the activations"
    rows = torch.einsum("brk,bkhw->br", mean.flatten(2), case.activations)
    error = relative(rows, case.rows(case.activations) - case.rows(torch.zeros_like(case.activations)))
    return verdict(error, case.tolerance(1e-9, 1e-3)), f"each map sums to y - b; largest relative error {error:.1e}"
