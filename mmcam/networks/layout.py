"""How a layer's output lies in space: as maps, with the channels last, or as a sequence of tokens.

Grad-CAM wants maps (b, k, h, w). Swin's blocks give (b, h, w, k), a vision transformer's give (b, n, k): a few tokens
that lie nowhere (class token, registers), then one token a patch, row by row. `Layout` turns either into maps and back.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mmcam.errors import UserError
from mmcam.networks.twin import named, observe, twin

Size = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True)
class Layout:
    """The way from a layer's output to maps and back.

    Attributes:
        order: "maps" (b, k, h, w), "channels last" (b, h, w, k) or "tokens" (b, n, k).
        grid: Height and width of the maps.
        prefix: Tokens before those of the grid.
    """

    order: Literal["maps", "channels last", "tokens"]
    grid: Size
    prefix: int = 0

    def spread(self, output: Float[Tensor, "b ..."]) -> tuple[Float[Tensor, "b k h w"], Float[Tensor, "b p k"] | None]:
        """Lay a layer's output out as maps; tokens that lie nowhere come separately."""
        if self.order == "maps":
            return output, None
        if self.order == "channels last":
            return output.movedim(3, 1), None
        return output[:, self.prefix :].movedim(2, 1).unflatten(2, self.grid), output[:, : self.prefix]

    def gather(
        self, activations: Float[Tensor, "b k h w"], prefix: Float[Tensor, "b p k"] | None
    ) -> Float[Tensor, "b ..."]:
        """Undo `spread`."""
        if self.order == "maps":
            return activations
        if self.order == "channels last":
            return activations.movedim(1, 3)
        tokens = activations.flatten(2).movedim(1, 2)
        return tokens if prefix is None else torch.cat([prefix.to(tokens.dtype), tokens], 1)


def find_layout(output: Tensor, size: Size, model: nn.Module, prefix: int | None = None, layer: str = "") -> Layout:
    """Find out how a layer's output lies in space.

    Args:
        output: Of the layer.
        size: Height and width of the model's input.
        model: The whole model; timm's and torchvision's know their number of prefix tokens.
        prefix: Tokens before those of the grid, if the user knows.
        layer: Its name, for the error.

    Returns:
        The layout.

    Raises:
        UserError: The output is neither maps nor tokens that fill a grid of the picture's aspect.
    """
    found = _layout(output, size, model, prefix)
    if found is not None:
        return found
    shape = tuple(output.shape)
    if output.ndim != 3:
        raise UserError(
            f"layer {layer!r} must give maps (b, k, h, w) or tokens (b, n, k), gives {shape}; choose one before pooling"
        )
    count = "its" if prefix is None else f"{prefix} prefix tokens and"
    raise UserError(
        f"layer {layer!r} gives {shape}: {count} {shape[1]} tokens fill no grid on a picture of {size[0]} x {size[1]}; "
        "say how many tokens come before the grid (prefix=), or choose another layer"
    )


def candidates(
    model: nn.Module, images: Float[Tensor, "b c x y"], prefix: int | None = None
) -> list[tuple[str, tuple[int, ...]]]:
    """List the layers that can be explained: they run once a forward and give maps or tokens on a grid.

    Args:
        model: Takes images.
        images: Only their shape, type and device matter.
        prefix: Tokens before those of the grid; known of timm's and torchvision's models.

    Returns:
        Names and shapes of outputs, in the order in which the layers finish.
    """
    with torch.no_grad():
        seen, _ = observe(model, _noise(images))
    return [(name, tuple(x.shape)) for name, x, _ in _spatial(seen, model, (images.shape[2], images.shape[3]), prefix)]


def last_map(model: nn.Module, images: Float[Tensor, "b c x y"], prefix: int | None = None) -> str:
    """Find the layer to explain if the user names none: the last one with maps that the model's output depends on.

    Of a CNN it is the last one before pooling. Of a vision transformer that is read at its class token it is the norm
    before the last attention: what comes after it at the other tokens changes nothing. Parts of attention modules are
    passed over.

    Args:
        model: Takes images.
        images: Only their shape, type and device matter.
        prefix: Tokens before those of the grid; known of timm's and torchvision's models.

    Returns:
        The layer's name.

    Raises:
        UserError: There is none.
    """
    with torch.inference_mode(False), torch.enable_grad():
        source = _noise(images[:1]).requires_grad_()
        seen, result = observe(_awake(model), source * 1)  # no leaf, so that it may be overwritten
        size = images.shape[2], images.shape[3]
        spatial = [found for found in _spatial(seen, model, size, prefix) if found[1].requires_grad]
        ends = [x for x in tree_leaves(result) if isinstance(x, Tensor) and x.requires_grad]
        if spatial and ends:
            slopes = [
                torch.arange(x.numel(), device=x.device).cos().to(x.dtype).view(x.shape) for x in ends
            ]  # no pattern
            gradients = torch.autograd.grad(ends, [x for _, x, _ in spatial], slopes, allow_unused=True)
            passed = _passed_over(model)
            for (name, _, layout), gradient in zip(reversed(spatial), reversed(gradients), strict=True):
                if name not in passed and gradient is not None and bool(layout.spread(gradient)[0].any()):
                    return name
    raise UserError(
        f"found no layer with maps that the output of {type(model).__name__} depends on; name one with layer="
    )


def _spatial(
    seen: list[tuple[str, Any]], model: nn.Module, size: Size, prefix: int | None
) -> Iterator[tuple[str, Tensor, Layout]]:
    names = [name for name, _ in seen]
    samples = len(next(x for x in tree_leaves(seen) if isinstance(x, Tensor)))
    tokens = {x.shape[1] for _, x in seen if isinstance(x, Tensor) and x.ndim == 3}
    for name, output in seen:
        x = next((leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()), None)
        if x is None or names.count(name) > 1 or len(x) != samples or (x.ndim == 4 and tokens & {*x.shape[1:]}):
            continue  # something of windows or, (b, heads, n, n), of pairs of tokens is no map
        layout = _layout(x, size, model, prefix)
        if layout is not None and layout.grid != (1, 1) and _alike(layout.grid, size):
            yield name, x, layout


def _passed_over(model: nn.Module) -> set[str]:
    """Parts of attention modules, and pooling to a size of its own, whose output is no map of the picture's grid."""
    names = set()
    attention: tuple[str, ...] = ()
    for name, module in named(model):
        kind = type(module).__name__.lower()
        if name.startswith(attention) or isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
            names.add(name)
        if "attention" in kind or "attn" in kind:
            attention = (*attention, f"{name}.")
    return names


def _layout(output: Tensor, size: Size, model: nn.Module, prefix: int | None) -> Layout | None:
    if output.ndim == 4:
        first, last = (output.shape[2], output.shape[3]), (output.shape[1], output.shape[2])
        tie = _misfit(last, size) == _misfit(first, size) and _says_channels_last(model)
        wins = _alike(last, size) and (_misfit(last, size) < _misfit(first, size) or tie)
        return Layout("channels last", last) if wins else Layout("maps", first)
    if output.ndim != 3:
        return None
    known = [prefix] if prefix is not None else [*_prefixes(model), *range(17)]
    for count in known:
        grid = _grid(output.shape[1] - count, size)
        if grid is not None:
            return Layout("tokens", grid, count)
    return None


def _grid(count: int, size: Size) -> Size | None:
    """Height and width of so many square patches over a picture; its edge may cut the last ones, or leave them out."""
    for side in range(1, max(size) + 1):
        for grid in ((ceil(size[0] / side), ceil(size[1] / side)), (size[0] // side, size[1] // side)):
            if grid[0] * grid[1] == count:
                return grid
    return None


def _alike(grid: Size, size: Size) -> bool:
    """Whether a grid has the picture's aspect, up to what rounding at every stage may do to it."""
    return _misfit(grid, size) <= (0 if size[0] == size[1] else 2 * max(size))


def _misfit(grid: Size, size: Size) -> int:
    return abs(grid[0] * size[1] - grid[1] * size[0])


def _prefixes(model: nn.Module) -> list[int]:
    """Numbers of prefix tokens that timm's and torchvision's vision transformers say they have."""
    counts = []
    for _, module in named(model):
        count = getattr(module, "num_prefix_tokens", None)
        if isinstance(count, int):
            counts.append(count)
        elif isinstance(getattr(module, "class_token", None), nn.Parameter):
            counts.append(1)
    return counts


def _says_channels_last(model: nn.Module) -> bool:
    return any(getattr(m, "output_fmt", "") == "NHWC" or "swin" in type(m).__name__.lower() for _, m in named(model))


def _awake(model: nn.Module) -> nn.Module:
    """A twin with numbers for weights that are all zero, as the heads of many untrained vision transformers are."""
    awake = twin(model)
    for _, module in named(awake):
        weights = module._parameters.items()
        module.__dict__["_parameters"] = {k: _noise(w) if w is not None and _asleep(w) else w for k, w in weights}
    return awake


def _asleep(weights: Tensor) -> bool:
    return weights.ndim > 1 and not bool(weights.flatten()[:1].any()) and not bool(weights.any())


def _noise(images: Tensor) -> Tensor:
    """Zeros would pass through many networks as zeros; drawn without touching the random state."""
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    return noise.to(images.device, images.dtype)
