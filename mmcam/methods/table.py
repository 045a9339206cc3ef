"""All methods by name, and what each of them needs to know.

    FROM_WEIGHTS      (α (b, r, k), A) → maps              one probe a channel is differentiated   mmcam.cam
    FROM_GRADIENTS    (∂y/∂A (b, r, k, h, w), A) → maps    the head is differentiated              mmcam.cam
    FROM_MODEL        (subject) → maps                     asks whatever it wants of the model     here

A new method is one function and one line in the table of its kind; `explain(…, method=name)` then finds it.
"""

from collections.abc import Callable, Mapping

from jaxtyping import Float
from torch import Tensor

from mmcam.cam import FROM_GRADIENTS, FROM_WEIGHTS
from mmcam.errors import unknown
from mmcam.methods.ablation import ablation_cam, cam
from mmcam.methods.attention.methods import FROM_ATTENTION
from mmcam.methods.eigen import eigen_cam
from mmcam.methods.full_grad import full_grad
from mmcam.methods.masking import score_cam
from mmcam.methods.pixel_maps import FROM_PIXELS
from mmcam.methods.smoothing import smooth_grad_cam_plus_plus
from mmcam.methods.subject import Subject

__all__ = ["FROM_ATTENTION", "FROM_GRADIENTS", "FROM_MODEL", "FROM_PIXELS", "FROM_WEIGHTS", "check_method", "names"]


def _eigen_cam(subject: Subject) -> Float[Tensor, "b r h w"]:
    return eigen_cam(subject.activations)[:, None].expand(-1, subject.rows.shape[1], -1, -1).clone()


FROM_MODEL: Mapping[str, Callable[[Subject], Tensor]] = {
    "cam": cam,
    "ablation_cam": ablation_cam,
    "eigen_cam": _eigen_cam,
    "score_cam": score_cam,
    "smooth_grad_cam_plus_plus": smooth_grad_cam_plus_plus,
    "full_grad": full_grad,
    **FROM_PIXELS,
    **FROM_ATTENTION,
}


def names() -> tuple[str, ...]:
    """Every name that `explain` knows."""
    return (*FROM_WEIGHTS, *FROM_GRADIENTS, *FROM_MODEL)


def check_method(name: str) -> None:
    """Refuse a name that is no method's.

    Raises:
        UserError: Names the nearest.
    """
    if name not in names():
        raise unknown("method", name, names())
