"""Modules without room for their numbers, so that what a file asks for can be held against what it brings."""

from collections.abc import Callable
from threading import get_ident
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from mmcam.errors import UserError

__all__ = ["MOST_PARTS", "weightless"]

MOST_PARTS = 50_000
"""Parameters and modules of one model; ResNet-152 has 900, a module takes some kilobytes however small it is."""

DRAWS = ("normal_", "uniform_", "orthogonal_")  # how the names of the functions of torch.nn.init end that draw

Made = TypeVar("Made", bound=nn.Module)


class Undrawn(TorchFunctionMode):
    """Draws no numbers: there is no room for them, and on the meta device torch would import its compiler for it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        """Leave a tensor that is to be filled as it is."""
        if getattr(func, "__name__", "").endswith(DRAWS):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def weightless(make: Callable[[], Made], most: int = MOST_PARTS) -> Made:
    """Make a module on torch's meta device: its shapes without its numbers.

    Args:
        make: The constructor with its arguments.
        most: Parameters and modules that it may have, those that it makes and drops again among them.

    Returns:
        The module; all its tensors are on the meta device.

    Raises:
        UserError: It has more.
    """
    here, count = get_ident(), 0

    def counted(*registered: object) -> None:  # the hooks are torch's for all threads
        nonlocal count
        count += get_ident() == here
        if count > most:
            raise UserError(f"expected a model of {most} parts at most, got more; is its file whole?")

    hooks = [
        register_module_parameter_registration_hook(counted),
        register_module_module_registration_hook(counted),
    ]
    try:
        with torch.device("meta"), Undrawn():
            return make()
    finally:
        for hook in hooks:
            hook.remove()
