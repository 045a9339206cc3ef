"""Where a model is cut: at its family's leaf, or at another layer of the user's."""

from torch import nn

from mmcam.errors import UserError
from mmcam.huggingface.families import Family
from mmcam.huggingface.features import METHOD, Features
from mmcam.huggingface.leaf import Tower

__all__ = ["tower"]


def tower(model: nn.Module, family: Family, layer: str | None = None) -> Tower | Features:
    """Cut a model.

    Args:
        model: The model.
        family: What is particular to it.
        layer: Name of a module whose output shall be explained; the family's own leaf if not given.

    Raises:
        UserError: There is no such module, or its places are not those of the family's leaf.
    """
    if family.leaf == METHOD:
        if layer not in (None, METHOD):
            raise UserError(
                f"a family without a row is cut at {METHOD}, not at {layer!r}; leave the layer out, or give family=, a "
                "row like those of mmcam.huggingface.families.FAMILIES"
            )
        return Features(model)
    own = _named(model, family.leaf)
    if layer in (None, own):
        return Tower(model, [*family.towers, *_siblings(model, own)], own, family.side, family.fields)
    if family.fields and layer.startswith(f"{own}."):
        raise UserError(
            f"inside {own!r} {type(model).__name__} has its places in an order of its own (windows, blocks to be "
            f"merged), which maps of {layer!r} would get wrong; only what {own!r} gives can be explained"
        )
    return Tower(model, _siblings(model, layer), layer)


def _named(model: nn.Module, name: str) -> str:
    """A module's name whose negative numbers count from the end, as in "encoder.layer.-2"."""
    parts: list[str] = []
    for part in name.split("."):
        if part.startswith("-"):
            part = str(len(list(model.get_submodule(".".join(parts)).children())) + int(part))
        parts.append(part)
    return ".".join(parts)


def _siblings(model: nn.Module, leaf: str) -> list[str]:
    """The modules before the leaf in its list, whose work is done when the leaf is reached."""
    parent, _, own = leaf.rpartition(".")
    if not own.isdecimal():
        return []
    return [f"{parent}.{i}" for i in range(int(own))]
