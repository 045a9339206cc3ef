"""A model or a backbone cut at any of its layers: maps below, the rest of the network above.

`Cut` joins `mmcam.networks.split`, which runs the two halves, and `mmcam.networks.layout`, which makes maps of what
the layer gives. `Trunk` is the same for the backbones of captioners and VQA models, whose own cut needs neither.
"""

from copy import copy
from typing import Any, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from mmcam.errors import unknown
from mmcam.networks.backbones import Backbone
from mmcam.networks.layout import Layout, find_layout
from mmcam.networks.split import Split
from mmcam.networks.twin import Nest, named

__all__ = ["Cut", "Trunk", "at_layer"]

M = TypeVar("M", bound=nn.Module)


class Cut:
    """A model cut at a layer, whose output is laid out as maps; the model is only read.

    Attributes:
        layer: The layer's name.
    """

    def __init__(self, model: nn.Module, layer: str, prefix: int | None = None) -> None:
        """Name the cut.

        Args:
            model: Takes images.
            layer: Name of one of its modules; must run exactly once a forward.
            prefix: Tokens that come before the grid; known of torchvision's and timm's vision transformers.

        Raises:
            UserError: There is no such layer.
        """
        self._split = Split(model, layer)
        self._prefix = prefix
        self._layouts: dict[tuple[object, ...], Layout] = {}  # by shapes, as looking through the model takes its time
        self.layer = self._split.layer

    def at(self, layer: str) -> "Cut":
        """Cut the same model at another layer."""
        return Cut(self._split.model, layer, self._prefix)

    def below(self, images: Float[Tensor, "b c x y"]) -> tuple[Float[Tensor, "b k h w"], dict[str, Any]]:
        """Run the model up to the layer, without a graph unless the images themselves are differentiated.

        Args:
            images: The model's input.

        Returns:
            The activations, and for `Batch.memo` what `above` needs besides them.

        Raises:
            UserError: The model cannot be cut there, or the layer gives neither maps nor tokens on a grid.
        """
        output, memo = self._split.below(images)
        size = images.shape[2], images.shape[3]
        shapes = (*output.shape[1:], *size)
        layout = self._layouts.get(shapes)
        if layout is None:
            layout = find_layout(output, size, self._split.model, self._prefix, self.layer)
            self._layouts[shapes] = layout
        activations, prefix = layout.spread(output)
        return activations, {**memo, "layout": layout, "prefix": prefix}

    def above(self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any]) -> Nest:
        """Run the rest of the model; with a graph where grad mode is on."""
        return self._split.above(memo["layout"].gather(activations, memo["prefix"]), memo)


class Trunk:
    """A backbone's trunk, explained at its last map or at any layer before.

    Attributes:
        layer: The layer's name in a model that calls the backbone `backbone`.
    """

    def __init__(self, backbone: Any, layer: str | None = None) -> None:  # noqa: ANN401
        """Name the explained layer.

        Args:
            backbone: See `mmcam.networks.backbones.Backbone`.
            layer: Name of one of its modules ("features.10", "layer3"), also with "backbone." in front; its last map if
                not given.

        Raises:
            UserError: There is no such layer; names the nearest.
        """
        self._backbone: Backbone = backbone
        self._cut: Cut | None = None
        self.layer = last = f"backbone.{backbone.layer}"
        if layer is None:
            return
        whole = _Whole(backbone)
        names = {name for name, _ in named(whole)} - {"", "backbone"}
        meant = [name for name in (layer, f"backbone.{layer}", f"{last}.{layer}") if name in names]
        if not meant:
            inside = (name.removeprefix("backbone.") for name in names if f"{name}.".startswith(f"{last}."))
            raise unknown("layer", layer, inside)
        if meant[0] != last:
            self._cut = Cut(whole, meant[0])
            self.layer = self._cut.layer

    def at(self, layer: str) -> "Trunk":
        """Explain the same backbone at another layer."""
        return Trunk(self._backbone, layer)

    def below(self, images: Float[Tensor, "b c x y"]) -> tuple[Float[Tensor, "b k h w"], dict[str, Any]]:
        """Run the trunk up to the layer.

        Args:
            images: The backbone's input.

        Returns:
            The activations, and for `Batch.memo` what `above` needs besides them.

        Raises:
            UserError: The trunk cannot be cut there, or the layer gives no maps.
        """
        return self._backbone.trunk(images) if self._cut is None else self._cut.below(images)

    def above(
        self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any]
    ) -> tuple[Float[Tensor, "b l x y"], dict[str, Any]]:
        """Go on from the layer to the trunk's last map and memo, which the heads are made for."""
        return (activations, memo) if self._cut is None else self._cut.above(activations, memo)


def at_layer(task: M, layer: str) -> M | None:
    """The same task at another layer, with the same modules: nothing is loaded again.

    Args:
        task: Keeps one `Cut` or `Trunk`, and the layer's name in `layer`; not changed.
        layer: As for `Cut` or `Trunk`.

    Returns:
        The other task; None if this one keeps no cut, or several.

    Raises:
        UserError: There is no such layer.
    """
    cuts = {name: value for name, value in vars(task).items() if isinstance(value, Cut | Trunk)}
    if len(cuts) != 1:
        return None
    ((name, cut),) = cuts.items()
    other, new = copy(task), cut.at(layer)
    vars(other).update({name: new, "layer": new.layer})
    return other


class _Whole(nn.Module):
    """A backbone's trunk as a module to be cut."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Any]]:
        return self.backbone.trunk(images)  # pyright: ignore[reportCallIssue]
