"""What is seen where a model looks: a soft maximum over places, whose gradient can be read.

    e_v = 1/s · log (e^(s·c) + Σ_x a(x) exp(s · v(x)))

with a(x) the weight of place x (Σ_x a(x) = 1) and v(x) what the place says for word or answer v. The derivatives by
v(x) are positive and sum to one, but for the floor c below which nothing is told apart.
"""

from jaxtyping import Float
from torch import Tensor

__all__ = ["SHARPNESS", "Said", "lay_out", "soft_maximum"]

SHARPNESS = 3.0
"""s; as in `mmcam.networks.scene_cnn.SceneCNN.classify`."""

FLOOR = -3.0
"""c; about what places say for things that are not there."""

LEAST = 1e-24
"""Least e^(s·c) beside the largest term, so that float32 can divide by it."""

Said = tuple[Float[Tensor, "b v n"], Float[Tensor, "b v"]]
"""What the places say: exp(s · (v(x) - max v)), and that maximum."""


def lay_out(votes: Float[Tensor, "b v n"]) -> Said:
    """Prepare what the places say, once for all looks at them."""
    most = votes.amax(2)
    return (SHARPNESS * (votes - most[..., None])).exp(), most


def soft_maximum(look: Float[Tensor, "b m n"], said: Said) -> Float[Tensor, "b m v"]:
    """What is seen by each of m looks.

    Args:
        look: The places' weights.
        said: What `lay_out` made of the votes.

    Returns:
        e_v. The maximum cancels, but where the floor is reached; autograd sees to both.
    """
    powers, most = said
    least = (SHARPNESS * (FLOOR - most)).exp().clamp(min=LEAST)
    return most[:, None] + (look @ powers.mT + least[:, None]).log() / SHARPNESS


def whole(counts: Float[Tensor, "*b"], training: bool) -> Float[Tensor, "*b"]:
    """Round sums of densities to whole numbers, as counts are; so no map is drawn to what has only been counted.

    The derivative of a whole number is zero. While training it is taken to be one (a straight-through estimate).
    """
    rounded = counts.round()
    return counts + (rounded - counts).detach() if training else rounded
