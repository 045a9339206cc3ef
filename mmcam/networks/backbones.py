"""CNNs by name, each cut in two: `trunk` up to the explained maps, `vector` from the maps to one vector a picture."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mmcam.errors import UserError, unknown
from mmcam.networks.halves import CutCNN
from mmcam.networks.scene_cnn import SceneCNN
from mmcam.resources import weights_path


@runtime_checkable
class Backbone(Protocol):
    """What captioners and VQA models need of a CNN.

    Attributes:
        channels: k, the channels of the maps.
        dim: Length of the image vector.
        size: Height and width that pictures are brought to.
        mean: Of the input's channels, for pixels in 0 to 1.
        std: Likewise.
        layer: Name of the submodule whose output the maps are.
    """

    channels: int
    dim: int
    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    layer: str

    def trunk(self, images: Float[Tensor, "b 3 x y"]) -> tuple[Float[Tensor, "b k h w"], dict[str, Any]]: ...  # noqa: D102

    def vector(self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any]) -> Float[Tensor, "b d"]: ...  # noqa: D102


def backbone(name: str, weights: str | None = None) -> Any:  # noqa: ANN401
    """Make a CNN by name.

    Args:
        name: "scenes" for the embedded one, a name of torchvision ("resnet101"), or "timm/NAME".
        weights: None for random ones; "DEFAULT" for those that torchvision or timm offers (needs a network once), or
            torchvision's name of others.

    Returns:
        The backbone.

    Raises:
        UserError: There is no such CNN, it cannot be cut, or its weights cannot be had.
    """
    if name == "scenes":
        return SceneCNN()
    if name.startswith("timm/"):
        try:
            import timm
        except ImportError as error:
            raise UserError("backbones of timm need an extra: pip install 'mmcam[timm]'") from error
        if name.removeprefix("timm/") not in timm.list_models():
            raise unknown("backbone of timm", name.removeprefix("timm/"), timm.list_models())
        if weights not in (None, "DEFAULT"):
            raise UserError(f"expected DEFAULT as the weights of {name}, got {weights!r}")
        with _fetching(name, weights):
            model: Any = timm.create_model(name.removeprefix("timm/"), pretrained=weights is not None)
        form = model.pretrained_cfg
        return CutCNN(model, tuple(form["input_size"][1:]), tuple(form["mean"]), tuple(form["std"]))
    import torchvision

    classifiers = torchvision.models.list_models(module=torchvision.models)
    if name not in classifiers:
        raise unknown("backbone", name, ["scenes", *classifiers])
    with _fetching(name, weights):
        model = torchvision.models.get_model(name, weights=weights)
    return CutCNN(model)


@contextmanager
def _fetching(name: str, weights: str | None) -> Iterator[None]:
    """Say in one line why weights cannot be had: no such name, or no network."""
    try:
        yield
    except (KeyError, ValueError, RuntimeError, OSError) as error:
        if weights is None:
            raise
        raise UserError(
            f"cannot get the weights {weights!r} of {name}; use DEFAULT, with a network, or none: {str(error).strip()}"
        ) from error


def load_backbone(cnn: nn.Module, weights: str | None, name: str = "scenes") -> None:
    """Give a backbone trained weights.

    Args:
        cnn: The backbone.
        weights: None leaves it as it is; "DEFAULT" takes those of torchvision or timm; otherwise a model of ours whose
            trunk is the same (the embedded classifier).
        name: The backbone's name.

    Raises:
        UserError: The weights are not of this backbone.
    """
    if weights is None:
        return
    if name != "scenes":
        cnn.load_state_dict(backbone(name, weights).state_dict())
        return
    try:
        missing, _ = cnn.load_state_dict(load_file(weights_path(weights) / "model.safetensors"), strict=False)
    except (RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"expected weights of {type(cnn).__name__}, got {weights}: {reason}") from error
    if missing:
        raise UserError(f"expected weights of {type(cnn).__name__}, got {weights}, which lacks {missing[:3]}")
