"""Who explains: ours, the peers as their documentation says, and a careful loop by hand.

Each method turns a workload into maps (b, t, h, w) on the CPU; `expected` is what ours become after that method's own
documented post-processing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from benchmarks.workloads import Workload
from mmcam import explain

Maps = Float[Tensor, "b t h w"]


@dataclass(frozen=True)
class Method:
    """A way to all maps of a workload.

    Attributes:
        run: Makes them.
        expected: Our maps before ReLU, as this method would post-process them.
        how: One line for the table.
    """

    run: Callable[[Workload], Maps]
    expected: Callable[[Maps, Workload], Maps]
    how: str


def plain(work: Workload) -> Tensor:
    """Plain inference, the unit of everything: trunk and head, all scores, no graph."""
    with torch.no_grad():
        return work.whole(work.batch.images).cpu()


def ours(work: Workload) -> Maps:
    """All targets of all pictures in one call."""
    return torch.stack([explanation.signed for explanation in explain(work.task, work.batch, work.targets)])


def by_hand(work: Workload) -> Maps:
    """One trunk forward without a graph, one head forward, one partial backward a target."""
    with torch.no_grad():
        activations = work.trunk(work.batch.images)
    scores = work.head(activations.requires_grad_())
    maps = []
    for column in work.columns.T:
        y = scores.gather(1, column[:, None]).sum()
        (gradient,) = torch.autograd.grad(y, activations, retain_graph=True)
        maps.append((gradient.mean((2, 3), keepdim=True) * activations.detach()).sum(1))
    return torch.stack(maps, 1).cpu()


def torchcam(work: Workload) -> Maps:
    """One forward with a graph, one extractor call a target."""
    from torchcam.methods import GradCAM

    with GradCAM(work.whole, target_layer=work.trunk) as extractor:
        scores = work.whole(work.batch.images)
        maps = [
            extractor(class_idx=column.tolist(), scores=scores, normalized=False, retain_graph=True)[0]
            for column in work.columns.T
        ]
    return torch.stack(maps, 1).cpu()


def captum(work: Workload) -> Maps:
    """One `attribute` call a target."""
    from captum.attr import LayerGradCam

    cam = LayerGradCam(work.whole, work.trunk)
    maps = [cam.attribute(work.batch.images, target=column) for column in work.columns.T]
    return torch.cat(maps, 1).detach().cpu()  # pyright: ignore[reportArgumentType]  # one layer gives one tensor


def captum_frozen(work: Workload) -> Maps:
    """The same on a model whose parameters want no gradient: then captum's graph begins at the layer."""
    with _frozen(work.whole):
        return captum(work)


def pytorch_grad_cam(work: Workload) -> Maps:
    """One call a target, with one `ClassifierOutputTarget` a picture."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with GradCAM(model=work.whole, target_layers=[work.trunk]) as cam:
        maps = [
            cam(input_tensor=work.batch.images, targets=[ClassifierOutputTarget(number) for number in column.tolist()])  # pyright: ignore[reportArgumentType]  # its annotation says modules, its documentation callables
            for column in work.columns.T
        ]
    return torch.from_numpy(np.stack(maps, 1))


def _like_pytorch_grad_cam(signed: Maps, work: Workload) -> Maps:
    """ReLU, min-max, resize to the input, min-max again: `compute_cam_per_layer` and `aggregate_multi_layers`."""
    from pytorch_grad_cam.utils.image import scale_cam_image

    height, width = work.batch.images.shape[2:]
    small = signed.clamp(min=0).flatten(0, 1).numpy()
    large = scale_cam_image(scale_cam_image(small, (width, height)))
    return torch.from_numpy(large).unflatten(0, signed.shape[:2])


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    wanting = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in wanting:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanting:
            parameter.requires_grad_()


def _raw(signed: Maps, work: Workload) -> Maps:
    return signed


def _rectified(signed: Maps, work: Workload) -> Maps:
    return signed.clamp(min=0)


METHODS = {
    "ours": Method(ours, _raw, "`mmcam.explain`, one call"),
    "by-hand": Method(by_hand, _raw, "trunk without a graph, one head forward, one partial backward a target"),
    "torchcam": Method(torchcam, _rectified, "one forward, one extractor call a target, `normalized=False`"),
    "captum-frozen": Method(captum_frozen, _raw, "`LayerGradCam`, one call a target, parameters frozen beforehand"),
    "captum": Method(captum, _raw, "`LayerGradCam`, one call a target"),
    "pytorch-grad-cam": Method(pytorch_grad_cam, _like_pytorch_grad_cam, "`GradCAM`, one call a target"),
}
"""By name, the slow ones last."""
