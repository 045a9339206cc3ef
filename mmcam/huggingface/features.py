"""Families without a row: cut where transformers itself hands pictures over, at `get_image_features`.

What that method gives are the tokens as the language model sees them. They are explained if they lie on a grid: by
`image_grid_thw` where the processor tells it, else as a square; anything else is refused.
"""

from collections.abc import Mapping, Sequence
from functools import wraps
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from mmcam.errors import UserError
from mmcam.huggingface.families import Family
from mmcam.huggingface.grids import Grid, Packed, Raster
from mmcam.huggingface.leaf import NONE, Repeated, Run, Wrappers, hollow, shallow
from mmcam.networks.twin import Nest, Reached, twin

__all__ = ["METHOD", "Features", "fallback"]

METHOD = "get_image_features"


class Features:
    """A model cut at `get_image_features`, like `mmcam.huggingface.leaf.Tower`.

    Attributes:
        model: The model; only read.
        leaf: Name of the method.
        towers: None; the method is not called at all in the runs above.
    """

    def __init__(self, model: nn.Module) -> None:
        """Take the model.

        Raises:
            UserError: It has no such method.
        """
        if not any(hasattr(module, METHOD) for module in model.modules()):
            raise UserError(
                f"{type(model).__name__} is of an unknown family and has no {METHOD}; give family=, a row like "
                "those of mmcam.huggingface.families.FAMILIES"
            )
        self.model, self.leaf, self.side, self.towers = model, METHOD, "out", ()
        self._form: Nest = None

    def below(self, run: Run) -> list[Tensor]:
        """Run the forward up to the pictures' tokens."""

        def reached(call: Any) -> Any:  # noqa: ANN401
            def stop(*args: object, **kwargs: object) -> Nest:
                raise Reached(call(*args, **kwargs))

            return stop

        try:
            run(self._twin(reached))
        except Reached as found:
            self._form = hollow(found.output)
            tokens = found.output.pooler_output
            return [tokens] if isinstance(tokens, Tensor) else list(tokens)
        raise UserError(f"{type(self.model).__name__} does not call {METHOD} for these inputs; give family=")

    def above(self, leaf: Repeated, run: Run, tapped: str = "", others: Wrappers = NONE) -> Nest:
        """Run the rest, on other tokens of pictures."""

        def answer(*args: object, **kwargs: object) -> Nest:
            output = shallow(self._form)
            tokens = [x.clone() for x in leaf(1)]
            output["pooler_output"] = tokens[0] if isinstance(output.pooler_output, Tensor) else tuple(tokens)
            return output

        return run(self._twin(lambda call: answer, others))

    def _twin(self, wrap: Any, others: Wrappers = NONE) -> nn.Module:  # noqa: ANN401
        other = twin(self.model, others)
        for module in other.modules():
            if hasattr(module, METHOD):
                method = getattr(module, METHOD)
                # `generate` reads the method's signature.
                object.__setattr__(module, METHOD, wraps(method)(wrap(method)))
        return other


class _Listed(Packed):
    """Tokens of each picture in a tensor of its own."""

    def spread(self, leaf: Sequence[Tensor]) -> tuple[Tensor, None]:
        """Pad every picture to the largest."""
        return super().spread([torch.cat(list(leaf))])

    def gather(self, canvas: Tensor, rest: None) -> list[Tensor]:
        """Drop the padding."""
        return [x[:, :h, :w].flatten(1).T for x, (h, w) in zip(canvas, self.sizes, strict=True)]


def fallback(config: Any) -> Family:  # noqa: ANN401
    """Make the row of a family without one.

    Args:
        config: The model's configuration.
    """
    packed = hasattr(getattr(config, "vision_config", None), "spatial_merge_size")
    return Family((config.model_type,), (), METHOD, _rule, packed=packed, shown="whole" if packed else "one")


def _rule(config: Any, inputs: Mapping[str, Tensor], shape: tuple[int, ...]) -> Grid:  # noqa: ANN401
    if "image_grid_thw" in inputs:
        merge = getattr(config.vision_config, "spatial_merge_size", 1)
        rows = inputs["image_grid_thw"].view(-1, 3).tolist()
        return _Listed(tuple((h // merge, w // merge) for _, h, w in rows))
    side = isqrt(shape[-2])
    if side * side != shape[-2] or side < 2:
        raise UserError(
            f"a picture of {config.model_type!r} becomes {shape[-2]} tokens, which is no square and no grid that its "
            "processor tells; give family=, a row like those of mmcam.huggingface.families.FAMILIES"
        )
    if len(shape) == 3:
        return Raster(side, side)
    return _Listed(((side, side),) * len(inputs["input_ids"]))
