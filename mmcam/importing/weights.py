"""State dicts: from what was read to the weights of a model of ours, which has no room for them before they fit."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from mmcam.errors import UserError
from mmcam.importing.checkpoints import LARGEST, read_checkpoint
from mmcam.networks.weightless import weightless

__all__ = ["built", "group", "load_weights", "read_weights", "renamed", "shape_of", "state_dict_in", "weights_of"]

FREE = 2**30
"""Bytes that tensors may show without having them; of some peers' CNNs there are files of a few numbers (stride 0)."""

MOST_SHOWN = 4
"""How many times what they have; float16 is written out twice as long."""

Made = TypeVar("Made", bound=nn.Module)


def weights_of(tree: object, where: str) -> dict[str, Tensor]:
    """Turn a state dict into weights of one's own: contiguous, float32 where they are numbers of any float type.

    Args:
        tree: What was read; names may begin with "module.", as DataParallel makes them.
        where: The file, for errors.

    Returns:
        The tensors by name, without `num_batches_tracked`, which nothing uses and old files lack.

    Raises:
        UserError: It is no state dict, or holds tensors that are sparse, complex, quantised, not finite or too large.
    """
    if not isinstance(tree, Mapping) or not tree or not all(isinstance(name, str) for name in tree):
        raise UserError(f"{where}: expected a state dict of named tensors, got {_described(tree)}")
    chosen = {
        str(name).removeprefix("module."): value
        for name, value in tree.items()
        if not str(name).endswith("num_batches_tracked")
    }
    total, storages = 0, {}
    for name, value in chosen.items():
        if not isinstance(value, Tensor):
            raise UserError(f"{where}: expected a state dict of tensors, got {_described(value)} at {name!r}")
        if value.layout != torch.strided or value.is_quantized or value.is_complex() or value.is_meta:
            raise UserError(
                f"{where}: expected plain numbers, got a {value.layout} tensor of {value.dtype} at {name!r}"
            )
        total += value.numel() * max(value.element_size(), 4)
        storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    most = min(LARGEST, MOST_SHOWN * sum(storages.values()) + FREE)
    if total > most:  # a view of one number may show any size
        raise UserError(f"{where}: expected tensors of {most / 2**30:.2g} GiB at most, got {total / 2**30:.2g} GiB")
    weights = {}
    for name, value in chosen.items():
        own = value.detach().float() if value.is_floating_point() else value.detach()
        weights[name] = torch.empty(own.shape, dtype=own.dtype).copy_(own)
        if own.is_floating_point() and not bool(torch.isfinite(own).all()):
            raise UserError(f"{where}: expected finite weights, got NaN or infinity at {name!r}; train the model again")
    return weights


def shape_of(weights: Mapping[str, Tensor], name: str, axes: int, where: str) -> tuple[int, ...]:
    """Give the shape of a tensor that must be there.

    Raises:
        UserError: It is not, is empty, or has another number of axes; names what is there.
    """
    if name not in weights:
        there = ", ".join(list(weights)[:6])
        raise UserError(f"{where}: expected a tensor {name!r}, got {there} and so on; is this another model's file?")
    shape = tuple(weights[name].shape)
    if len(shape) != axes:
        raise UserError(f"{where}: expected {name!r} with {axes} axes, got the shape {shape}")
    if 0 in shape:
        raise UserError(f"{where}: expected numbers at {name!r}, got none, the shape {shape}; is the file whole?")
    return shape


def built(make: Callable[[], Made]) -> Made:
    """Make a module of the sizes that a file says, without room for its numbers until `load_weights` brings them.

    Sizes are read off single tensors, and a small one may say a large size: what no file brings is never allocated.

    Raises:
        UserError: There is no module of these sizes.
    """
    try:
        return weightless(make)
    except UserError:
        raise
    except (ValueError, RuntimeError, OverflowError, ZeroDivisionError) as error:  # by torch's layers
        reason = " ".join(str(error).split())
        raise UserError(f"expected sizes that fit one another, got a model that cannot be: {reason}") from error


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], where: str, hint: str = "") -> None:
    """Give a module exactly these weights.

    Args:
        model: The module; of one that `built` made they become the parameters themselves.
        weights: By the module's own names; `num_batches_tracked` is passed over.
        where: The file, for errors.
        hint: What is the likely cause if they do not fit.

    Raises:
        UserError: Some are missing, left over or of another shape; names them.
    """
    own, weights = (
        {name: value for name, value in part.items() if not name.endswith("num_batches_tracked")}
        for part in (model.state_dict(), weights)
    )
    missing = [name for name in own if name not in weights]
    left = [name for name in weights if name not in own]
    wrong = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if name in weights and weights[name].shape != value.shape
    ]
    told = [
        f"{what} {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for what, names in (("lacks", missing), ("has also", left), ("has", wrong))
        if names
    ]
    if told:
        raise UserError(f"{where}: expected the weights of {type(model).__name__}, but it {'; it '.join(told)}. {hint}")
    fitting = {name: weights[name].to(own[name].dtype) for name in own}
    model.load_state_dict(fitting, strict=False, assign=any(value.is_meta for value in own.values()))
    for part in model.modules():
        for name, buffer in part.named_buffers(recurse=False):
            if buffer.is_meta:  # num_batches_tracked
                part.register_buffer(name, torch.zeros(buffer.shape, dtype=buffer.dtype))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict; also one inside a dictionary under the key "state_dict"."""
    return state_dict_in(read_checkpoint(path), str(path))


def state_dict_in(tree: object, where: str) -> dict[str, Tensor]:
    """The weights of a state dict, or of a checkpoint that holds one as "state_dict"."""
    inside = tree.get("state_dict", tree) if isinstance(tree, Mapping) else tree
    return weights_of(inside, where)


def renamed(weights: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Replace the beginnings of names, whole parts of them, the longest that fits.

    Args:
        weights: By the peer's names.
        names: What the peer's names begin with, and ours instead: "decode_step" and "lstm".

    Returns:
        The weights; those of a name that is not in the table keep it, for the error that follows.
    """
    result = {}
    for name, value in weights.items():
        starts = [start for start in names if name == start or name.startswith(f"{start}.")]
        start = max(starts, key=len, default="")
        result[f"{names[start]}{name[len(start) :]}" if starts else name] = value
    return result


def group(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights whose names begin so, without that beginning."""
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _described(value: object) -> str:
    if isinstance(value, Mapping):
        return f"a dictionary with {', '.join(map(str, list(value)[:6])) or 'nothing in it'}"
    return f"a {type(value).__name__}"
