"""What is made sure of at the first picture: answers depend on the leaf, and on nothing else of the tower."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmcam.errors import UserError
from mmcam.huggingface.leaf import Wrappers
from mmcam.networks.twin import named

__all__ = ["plain_readout", "prove", "unread"]

Ask = Callable[[Tensor, Wrappers], Tensor]
"""(one sample's activations, calls of modules that shall be other ones) → the logits of its first token."""


def prove(model: nn.Module, layer: str, ask: Ask, canvas: Float[Tensor, "1 k h w"]) -> Float[Tensor, "1 *t v"]:
    """Ask for one token, and differentiate it.

    Args:
        model: The model.
        layer: Name of the leaf.
        ask: Gives its logits.
        canvas: What was seen of one sample.

    Returns:
        The logits.

    Raises:
        UserError: Answers depend on the leaf not at all, or on more of the tower, or cannot be differentiated.
    """
    name = type(model).__name__
    first = canvas.detach().clone().requires_grad_()
    try:
        logits = ask(first, {})
    except (TypeError, AttributeError, LookupError) as error:  # it reads what the tower kept on its way
        raise UserError(
            f"cut at {layer!r}, {name} cannot go on: {type(error).__name__}: {_line(error)}; choose another layer"
        ) from error
    gradient = None
    if logits.requires_grad:
        # Weighted, since softmax and norms may make a plain sum constant.
        weights = torch.linspace(-1, 1, logits.numel(), device=logits.device).view_as(logits).square()
        try:
            (gradient,) = torch.autograd.grad((logits.float() * weights).sum(), first, allow_unused=True)
        except (NotImplementedError, RuntimeError) as error:
            raise UserError(f"{name} cannot be differentiated: {_line(error)}; load it without quantisation") from error
    if not bool(torch.isfinite(logits.detach()).all()):
        raise UserError(
            f"cut at {layer!r}, {name} reads more of its tower than this layer, or gives numbers that are not finite; "
            "choose another layer, or float32"
        )
    if gradient is None or not bool(gradient.any()):
        raise UserError(f"no answer of {name} depends on the picture's places in {layer!r}; choose an earlier layer")
    return logits.detach()


@torch.no_grad()
def plain_readout(model: nn.Module, ask: Ask, canvas: Float[Tensor, "1 k h w"], logits: Float[Tensor, "1 1 v"]) -> str:
    """Find the layer whose product with the states before it the logits are, with nothing else done to them.

    Args:
        model: The model.
        ask: Gives its logits.
        canvas: What was seen of one sample.
        logits: What it gave.

    Returns:
        The layer's name; "" if there is none.
    """
    name, readout = _readout(model)
    if type(readout) is not nn.Linear:
        return ""
    states = ask(canvas.detach(), unread(name))
    if states.shape[-1] != readout.in_features:
        return ""
    return name if torch.allclose(readout(states).float(), logits.float(), atol=1e-3, rtol=1e-3) else ""


def unread(readout: str) -> Wrappers:
    """Make the wrapper by which a twin gives the states before its readout in the place of logits."""
    return {readout: lambda call: lambda states: states}


def _readout(model: nn.Module) -> tuple[str, Any]:
    holders: list[Any] = [module for module in model.modules() if hasattr(module, "get_output_embeddings")]
    found = next((x for holder in holders if (x := holder.get_output_embeddings()) is not None), None)
    return next(((name, x) for name, x in named(model) if x is found), ("", None))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
