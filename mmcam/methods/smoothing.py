"""Smooth Grad-CAM++: Grad-CAM++ of derivatives that are averaged over noisy pictures."""

import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.cam import grad_cam, plus_plus_weights
from mmcam.methods.elementwise import widened
from mmcam.methods.subject import Subject

SEED = 0


def smooth_grad_cam_plus_plus(subject: Subject, samples: int = 8, spread: float = 0.15) -> Float[Tensor, "b r h w"]:
    """Smooth Grad-CAM++ (Omeiza et al., arXiv 1908.01224): D^p = the mean of g^p over noisy pictures.

    α_ij = D² / (2 D² + Σ_ab A_ab · D³), w_k = Σ_ij α_ij ReLU(D¹_ij), map Σ_k w_k A^k with the activations A of the
    picture without noise. Without noise it is Grad-CAM++.

    The noise is Gaussian, its deviation a share of each picture's range as in SmoothGrad (arXiv 1706.03825). It is
    drawn from a seed of its own, the same for every picture: the caller's random state is left alone, and a picture's
    map does not depend on the others of its batch.

    Differs from the paper: the numerator of α is D² as in Grad-CAM++, where the paper's is D¹, which torch-cam calls an
    error too. Differs from torch-cam: the sum over the activations is the paper's, and D¹ is the mean over the
    samples, not the gradient of the last one.

    Args:
        subject: What is explained.
        samples: Noisy pictures; the whole model runs once for each.
        spread: Deviation of the noise over the range (max - min) of the picture.

    Returns:
        One map a row, before ReLU.
    """
    images, generator = subject.images, torch.Generator().manual_seed(SEED)
    deviation = spread * (images.flatten(1).amax(1) - images.flatten(1).amin(1))[:, None, None, None]
    everyone = torch.arange(len(images), device=images.device)
    powers = (1, 2, 3)
    sums: list[Tensor | float] = [0.0] * len(powers)
    for _ in range(samples):
        noise = torch.randn(images.shape[1:], generator=generator, dtype=torch.float64).to(images)
        g = widened(subject.see(images + deviation * noise, everyone).gradients())
        sums = [total + g**power for total, power in zip(sums, powers, strict=True)]
    first, second, third = (torch.as_tensor(total) / samples for total in sums)
    return grad_cam(plus_plus_weights(first, second, third, subject.activations), subject.activations)
