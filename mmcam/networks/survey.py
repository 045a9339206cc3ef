"""Which layers of a network can be explained, which one is chosen if the user names none, and why not the others.

A layer is chosen if it runs once, gives maps or tokens on a grid of the picture's aspect, and the output depends on its
places; the last such layer is it. One forward and one backward of a picture of noise tell all that.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mmcam.errors import UserError
from mmcam.networks.backbones import Backbone
from mmcam.networks.layout import Layout, Size, alike, layout_of, prefixes
from mmcam.networks.twin import named, observe, plain, twin
from mmcam.task import Batch, Sample, Targets, Task

__all__ = ["Surveyed", "last_map", "survey", "survey_task"]

READS = re.compile("class_?(token)?_?(attn|attention|block)")
"""Classes of the modules in which a class token that comes late reads the places: CaiT's, XCiT's and VOLO's."""


@dataclass(frozen=True)
class Surveyed:
    """A layer of a network, and whether it can be explained.

    Attributes:
        name: As in `named_modules`.
        kind: Its class.
        shape: Of the first tensor that it gives; empty if it gives none.
        layout: How that lies in space; None if it does not.
        refused: Why it cannot be explained; "" if it can.
        passed: Why it is never chosen, though it can be explained; "" if it might be.
    """

    name: str
    kind: str
    shape: tuple[int, ...] = ()
    layout: Layout | None = None
    refused: str = ""
    passed: str = ""


def survey(model: nn.Module, images: Float[Tensor, "b c x y"], prefix: int | None = None) -> list[Surveyed]:
    """Go over all layers of a network.

    Args:
        model: Takes images; only read.
        images: Only their shape, type and device matter, and of the shape only one image.
        prefix: Tokens before those of the grid; known of timm's and torchvision's models.

    Returns:
        One entry a layer, in the order in which they finish; last those that do not run.
    """
    model, size = plain(model), (images.shape[2], images.shape[3])
    with torch.inference_mode(False), torch.enable_grad():
        source = _noise(images[:1]).requires_grad_()
        outputs, result = observe(_awake(model), source * 1)  # no leaf, so that it may be overwritten
        seen = {name: _tensor(output) for name, output in outputs}
        counts = Counter(name for name, _ in outputs)
        shapes = [tuple(x.shape) for x in seen.values() if x is not None and len(x) == 1]
        tokens = {shape[1] for shape in shapes if len(shape) == 3}
        grids = _grids(shapes, size, tokens)
        known = prefixes(model, prefix)
        layouts = {name: None if x is None else layout_of(x, size, model, known) for name, x in seen.items()}
        refused = {
            name: f"runs {counts[name]} times in a forward"
            if counts[name] > 1
            else _refusal(x, layouts[name], size, grids, tokens)
            for name, x in seen.items()
        }
        living = _living({name: x for name, x in seen.items() if x is not None and not refused[name]}, result)
    modules = dict(named(model))
    passed = _passed_over(modules, list(seen))
    found = []
    for name, x in seen.items():
        layout, why = layouts[name], refused[name]
        if not why and layout is not None:
            gradient = living.get(name)
            if gradient is None or not bool(layout.spread(gradient)[0].any()):
                why = "the output does not depend on its places"
        shape = () if x is None else tuple(x.shape)
        found.append(
            Surveyed(name, type(modules[name]).__name__, shape, None if why else layout, why, passed.get(name, ""))
        )
    return found + [
        Surveyed(name, type(module).__name__, refused="does not run, or not through the module tree")
        for name, module in modules.items()
        if name and name not in seen
    ]


def last_map(model: nn.Module, images: Float[Tensor, "b c x y"], prefix: int | None = None) -> str:
    """Find the layer to explain if the user names none: the last one with maps that the model's output depends on.

    Of a CNN it is the last one before pooling. Of a vision transformer that is read at its class token it is the norm
    before the last attention: what comes after it at the other tokens changes nothing. Where the class token comes late
    and reads several times, it is the last layer before it. Parts of attention modules are passed over.

    Args:
        model: Takes images.
        images: Only their shape, type and device matter.
        prefix: Tokens before those of the grid; known of timm's and torchvision's models.

    Returns:
        The layer's name.

    Raises:
        UserError: There is none.
    """
    found = survey(model, images, prefix)
    name = next((layer.name for layer in reversed(found) if not (layer.refused or layer.passed)), "")
    if not name:
        reasons = Counter(layer.refused or layer.passed for layer in found if layer.shape)
        most = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(2))
        raise UserError(
            f"found no layer with maps that the output of {type(plain(model)).__name__} depends on: of most, {most}; "
            "name one with layer="
        )
    return name


def survey_task(task: Task, sample: Sample) -> tuple[list[Surveyed], Size]:
    """Go over the layers of a task's network: its CNN, its classifier, or else of all of it.

    Args:
        task: In eval mode.
        sample: Only its text matters, to tasks that cannot do without a question.

    Returns:
        The layers, named as the task names its own, and height and width of the input.
    """
    model = getattr(task, "model", None)
    backbone = getattr(model, "backbone", None)
    if isinstance(backbone, nn.Module) and isinstance(backbone, Backbone):
        return survey(_Trunk(backbone), torch.empty(1, 3, *backbone.size, device=task.device)), backbone.size
    batch = task.collate([sample]).to(task.device)
    size = batch.images.shape[-2], batch.images.shape[-1]
    if batch.images.numel() == 0 or "input_ids" in batch.inputs:  # a language model, whose tower cannot be told apart
        return [], size
    if isinstance(model, nn.Module) and task.layer in dict(named(model)):
        kind = next((p.dtype for p in model.parameters() if p.is_floating_point()), batch.images.dtype)
        return survey(model, batch.images.to(kind), getattr(task, "prefix", None)), size
    with torch.no_grad():
        targets = task.predict(task.trunk(batch), batch)
    found = survey(_Whole(task, batch, targets), batch.images)
    return [replace(layer, name=layer.name.removeprefix("task.")) for layer in found if layer.name != "task"], size


class _Trunk(nn.Module):
    """A backbone's trunk as a module."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> object:
        return self.backbone.trunk(images)  # pyright: ignore[reportCallIssue]


class _Whole(nn.Module):
    """A task as a module, from the pictures to the scores."""

    def __init__(self, task: Task, batch: Batch, targets: Targets) -> None:
        super().__init__()
        self.task, self.batch, self.targets = task, batch, targets

    def forward(self, images: Tensor) -> Tensor:
        batch = replace(self.batch, images=images, memo={})
        return self.task.scores(self.task.trunk(batch), batch, self.targets)


def _refusal(x: Tensor | None, layout: Layout | None, size: Size, grids: set[Size], tokens: set[int]) -> str:
    """Why a layer's output cannot be explained, by its shape alone."""
    if x is None:
        return "gives no tensor"
    if len(x) != 1:
        return "gives windows or other parts, several for one picture"
    if x.ndim == 2 or (x.ndim == 3 and x.shape[2] == 1):  # pooled: (b, k, 1) of as many channels as places
        return "gives a vector, without places"
    if layout is None:
        return f"its {x.shape[1]} tokens fill no grid" if x.ndim == 3 else "gives neither maps nor tokens"
    if x.ndim == 4 and tokens & {*layout.grid}:
        return "gives pairs of tokens, or heads"
    if layout.grid == (1, 1):
        return "is 1 x 1, after pooling"
    if not alike(layout.grid, size):
        return f"its grid of {layout.grid[0]} x {layout.grid[1]} has not the picture's aspect"
    if x.ndim == 3 and grids and layout.grid not in grids:
        return f"its {x.shape[1]} tokens lie on no grid that the network has"
    return ""


def _grids(shapes: Iterable[tuple[int, ...]], size: Size, tokens: set[int]) -> set[Size]:
    """Heights and widths of all maps of the network, and of what taking every second place makes of them."""
    grids = set()
    for shape in shapes:
        for grid in {shape[2:], shape[1:3]} if len(shape) == 4 else ():
            while alike(grid, size) and not tokens & {*grid} and grid not in grids:
                grids.add(grid)
                grid = (-(-grid[0] // 2), -(-grid[1] // 2))
    return grids


def _living(seen: Mapping[str, Tensor], result: Any) -> dict[str, Tensor]:  # noqa: ANN401
    """The gradients of the output, mixed, by some layers' outputs."""
    seen = {name: x for name, x in seen.items() if x.requires_grad}
    ends = [x for x in tree_leaves(result) if isinstance(x, Tensor) and x.requires_grad]
    if not seen or not ends:
        return {}
    mixes = [torch.arange(x.numel(), device=x.device).cos().to(x.dtype).view(x.shape) for x in ends]  # no pattern
    gradients = torch.autograd.grad(ends, list(seen.values()), mixes, allow_unused=True)
    return {name: gradient for name, gradient in zip(seen, gradients, strict=True) if gradient is not None}


def _passed_over(modules: Mapping[str, nn.Module], order: Sequence[str]) -> dict[str, str]:
    """Layers whose output is a map, but not the one that is looked for, with the reason."""
    passed = {}
    attention: tuple[str, ...] = ()
    for name, module in modules.items():
        kind, own = type(module).__name__.lower(), name.rpartition(".")[2].lower()
        if name.startswith(attention):
            passed[name] = "is a part of an attention"
        elif isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
            passed[name] = "pools to a size of its own"
        elif isinstance(module, nn.Identity) or "drop" in kind:
            passed[name] = "hands on what it gets"
        if any(word in text for word in ("attention", "attn") for text in (kind, own)):
            attention = (*attention, f"{name}.")
    late = False
    for name in order:
        parents = [name, *(name[:i] for i, letter in enumerate(name) if letter == ".")]
        late = late or any(READS.search(type(modules[part]).__name__.lower()) for part in parents)
        if late:
            passed.setdefault(name, "comes after the class token has begun to read")
    return passed


def _awake(model: nn.Module) -> nn.Module:
    """A twin with numbers for weights that are all zero, as the heads of many untrained vision transformers are."""
    awake = twin(model)
    for _, module in named(awake):
        weights = module._parameters.items()
        module.__dict__["_parameters"] = {k: _noise(w) if w is not None and _asleep(w) else w for k, w in weights}
    return awake


def _asleep(weights: Tensor) -> bool:
    return weights.ndim > 1 and not bool(weights.flatten()[:1].any()) and not bool(weights.any())


def _tensor(output: Any) -> Tensor | None:  # noqa: ANN401
    return next((x for x in tree_leaves(output) if isinstance(x, Tensor) and x.is_floating_point() and x.ndim), None)


def _noise(images: Tensor) -> Tensor:
    """Zeros would pass through many networks as zeros; drawn without touching the random state."""
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    return noise.to(images.device, images.dtype)
