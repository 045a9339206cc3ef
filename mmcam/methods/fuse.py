"""Maps of several layers (or methods): fused into one, or side by side."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mmcam import draw
from mmcam.errors import UserError, unknown
from mmcam.explanation import Explanation

HOW: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda maps: maps.mean(0),
    "max": lambda maps: maps.amax(0),
    "product": lambda maps: maps.prod(0),
}


def fuse(explanations: Sequence[Explanation], how: Literal["mean", "max", "product"] = "mean") -> Explanation:
    """Make one map a word out of those of several layers.

    Each map is rectified, divided by its maximum, as layers differ in scale, and resized bilinearly to the finest
    resolution among them. pytorch-grad-cam takes the mean, LayerCAM and torch-cam the maximum, RefineCAM
    (arXiv 2605.14641) the product. A layer whose map is zero adds nothing to a mean or
    maximum and makes a product zero.

    Args:
        explanations: Of one picture and the same words, by layer or by method.
        how: What becomes of the maps of a word.

    Returns:
        The fused explanation, its maps in [0, 1]; NaN stays where any of them has NaN.

    Raises:
        UserError: There is none, they are not of the same words, or `how` is another word.
    """
    if how not in HOW:
        raise unknown("way to fuse", how, HOW)
    first = _alike(explanations)
    maps = torch.stack([F.relu(_resized(_to_maximum(e.maps), explanations)) for e in explanations])
    return replace(
        first,
        signed=HOW[how](maps),
        method=_joined([e.method for e in explanations], f" {how} "),
        layer=_joined([e.layer for e in explanations], f" {how} "),
        weights=None,
    )


def beside(explanations: Sequence[Explanation]) -> Explanation:
    """Put the maps of several layers side by side, "dog (layer3)" before "dog (layer4)", to be drawn as one strip.

    Args:
        explanations: Of one picture and the same words, by layer or by method.

    Returns:
        One row a word and layer, word by word; not scaled, at the finest resolution among them.

    Raises:
        UserError: There is none, or they are not of the same words.
    """
    first = _alike(explanations)
    by_layer = len({e.layer for e in explanations}) > 1
    order = [(r, e) for r in range(len(first.words)) for e in explanations]
    maps = [_resized(e.signed, explanations) for e in explanations]
    return replace(
        first,
        words=tuple(f"{e.words[r]} ({e.layer if by_layer else e.method})" for r, e in order),
        scores=torch.stack([e.scores for e in explanations], 1).flatten(),
        signed=torch.stack(maps, 1).flatten(0, 1),
        method=_joined([e.method for e in explanations], " | "),
        layer=_joined([e.layer for e in explanations], " | "),
        weights=None,
    )


def _alike(explanations: Sequence[Explanation]) -> Explanation:
    kinds = {(e.id, e.prompt, e.words, e.size, e.window) for e in explanations}
    if len(kinds) != 1:
        names = sorted({f"{e.id}: {', '.join(e.words)}" for e in explanations})
        raise UserError(f"expected explanations of one picture and the same words, got {names or 'none'}")
    return explanations[0]


def _to_maximum(maps: Float[Tensor, "r h w"]) -> Float[Tensor, "r h w"]:
    broken = ~maps.isfinite().flatten(1).all(1)[:, None, None]
    return draw.scale(maps, "own").masked_fill(broken, torch.nan)


def _resized(maps: Float[Tensor, "r h w"], explanations: Sequence[Explanation]) -> Float[Tensor, "r H W"]:
    size = (max(e.signed.shape[1] for e in explanations), max(e.signed.shape[2] for e in explanations))
    return draw.upsample(maps, size)


def _joined(names: Sequence[str], between: str) -> str:
    return between.join(dict.fromkeys(names))
