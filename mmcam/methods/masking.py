"""Score-CAM: the weight of a channel is the score of the picture seen through it."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mmcam.cam import grad_cam
from mmcam.methods.elementwise import widened
from mmcam.methods.subject import Subject

Masks = Callable[[Float[Tensor, "n h w"], tuple[int, int]], Float[Tensor, "n H W"]]


def masks_of(channels: Float[Tensor, "n h w"], size: tuple[int, int]) -> Float[Tensor, "n H W"]:
    """Bring channels to the picture's size, bilinearly with `align_corners=False`, then to 0 … 1.

    Args:
        channels: Activations, one channel each.
        size: Height and width of the network's input.

    Returns:
        (U - min U) / (max U - min U); zeros for a channel that is the same everywhere.
    """
    large = F.interpolate(channels[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    large = large - large.amin((1, 2), keepdim=True)
    largest = large.amax((1, 2), keepdim=True)
    return large / torch.where(largest == 0, 1, largest)


def score_cam(subject: Subject, masks: Masks = masks_of) -> Float[Tensor, "b r h w"]:
    """Score-CAM (Wang et al., arXiv 1910.01279, Eq. 5 to 9 and algorithm 1): Σ_k w_k A^k without any gradient.

    w = softmax over the channels of y(X ⊙ M_k), where X is the network's input and M_k the channel brought to its size
    and to 0 … 1; the score of the baseline, which the paper takes away first, cancels in the softmax. The whole model
    runs once a channel, for all rows of a picture together: peers run it once a channel and row.

    Differs from the paper: y is the task's score (logits, log-probabilities of words), not a probability. Where y does
    not depend on the picture, all weights are 1/k: the map is then the mean of the channels, not zero. A mask is cut
    at the edge of zero, the mean colour of the network's input, as in the paper.

    Args:
        subject: What is explained.
        masks: Makes the masks; `mmcam.methods.conventions` has those of the peers.

    Returns:
        One map a row, before ReLU.
    """
    a, images = subject.activations, subject.images
    size = images.shape[2], images.shape[3]

    def seen_through(index: Tensor, channel: Tensor) -> Tensor:
        return images[index] * masks(widened(a[index, channel]), size)[:, None]

    scores = subject.scores_of_pictures(a.shape[1], seen_through)  # (b, k, r)
    return grad_cam(scores.softmax(1).mT, a)
