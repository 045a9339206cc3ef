"""Models that accelerate has placed: they stay where they are, and all of their weights must be there."""

from torch import nn

from mmcam.errors import UserError

__all__ = ["check_present", "placed"]


def placed(model: nn.Module) -> bool:
    """Whether a model was put where it is by a device map, or by hooks of accelerate's; it must not be moved then."""
    return hasattr(model, "hf_device_map") or any(hasattr(module, "_hf_hook") for module in model.modules())


def check_present(model: nn.Module) -> None:
    """Refuse a model of whose weights some are fetched only when they are needed.

    Raises:
        UserError: Says how many, and what else can be done.
    """
    tensors = [*model.parameters(), *model.buffers()]
    away = sum(tensor.is_meta for tensor in tensors)
    if away:
        raise UserError(
            f"expected all weights of {type(model).__name__} in memory, but {away} of {len(tensors)} tensors are "
            "offloaded; choose a device_map that holds all of it ('cuda:0', 'cpu'), a smaller dtype or a smaller model"
        )
