"""CNNs by name, each cut in two: `trunk` up to the explained maps, `vector` from the maps to one vector a picture."""

import math
from typing import Any, Protocol

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from mmcam.errors import UserError, unknown
from mmcam.resources import weights_path
from mmcam.scenes.kinds import NAMES


class Backbone(Protocol):
    """What captioners and VQA models need of a CNN.

    Attributes:
        channels: k, the channels of the maps.
        dim: Length of the image vector.
        size: Height and width that pictures are brought to.
        mean: Of the input's channels, for pixels in 0 to 1.
        std: Likewise.
    """

    channels: int
    dim: int
    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def trunk(self, images: Float[Tensor, "b 3 x y"]) -> tuple[Float[Tensor, "b k h w"], dict[str, Any]]: ...  # noqa: D102

    def vector(self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any]) -> Float[Tensor, "b d"]: ...  # noqa: D102


class SceneCNN(nn.Module):
    """The embedded CNN: six convolutions, stride 4; alone it is a multi-label classifier of the 48 kinds of things.

    A place of the last map sees 33 pixels, about as many as a thing is large, on a grid of 24 x 24. With stride 8 and
    60 pixels the kinds were named as well, but the peaks of the maps missed thin things by some pixels (76 % inside the
    exact masks, against 91 %).

    A class's logit is a soft maximum over places of a linear map of the activations (log-mean-exp of sharpness 3), so
    the gradient's spatial mean is that linear map's row over Z, whatever the picture: Grad-CAM is CAM here.
    """

    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)
    size = (96, 96)

    def __init__(self, channels: int = 96, classes: int = len(NAMES)) -> None:
        """Make the network with random weights.

        Args:
            channels: k, of the last convolution.
            classes: Number of logits.
        """
        super().__init__()
        self.features = nn.Sequential(
            *_block(3, 32, stride=2),
            *_block(32, 48),
            nn.MaxPool2d(2),
            *_block(48, 96),
            *_block(96, 96),
            *_block(96, 128),
            *_block(128, channels, side=1),
        )
        self.classifier = nn.Conv2d(channels, classes, 1)
        self.channels = channels
        self.dim = 3 * channels

    def forward(self, images: Float[Tensor, "b 3 x y"]) -> Float[Tensor, "b c"]:
        """One logit a kind: positive where the thing is in the picture."""
        return self.classify(self.features(images))

    def classify(self, activations: Float[Tensor, "b k h w"]) -> Float[Tensor, "b c"]:
        """The head: a linear map of the activations, then log-mean-exp over places."""
        sharpness = 3.0
        maps = sharpness * self.classifier(activations).flatten(2).float()
        return (maps.logsumexp(2) - math.log(maps.shape[2])) / sharpness

    def trunk(self, images: Float[Tensor, "b 3 x y"]) -> tuple[Float[Tensor, "b k h w"], dict[str, Any]]:
        """The last convolution's output after ReLU; nothing else crosses the cut."""
        return self.features(images), {}

    def vector(self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any]) -> Float[Tensor, "b d"]:
        """The zeroth and first moments of every channel: means of A, A·x and A·y with x and y in -1 to 1.

        Plain average pooling cannot tell left from right; a linear map of the moments can, and its gradient's spatial
        mean is still that of average pooling, because x and y have mean zero.
        """
        grid = coordinates(activations)
        moments = torch.einsum("bkhw,chw->bkc", activations, grid) / grid[0].numel()
        return moments.flatten(1)


def coordinates(activations: Float[Tensor, "b k h w"]) -> Float[Tensor, "3 h w"]:
    """The functions 1, x and y on the grid, x and y from -1 to 1 at the outermost cells."""
    h, w = activations.shape[2:]
    y = torch.linspace(-1, 1, h, device=activations.device, dtype=activations.dtype)[:, None].expand(h, w)
    x = torch.linspace(-1, 1, w, device=activations.device, dtype=activations.dtype).expand(h, w)
    return torch.stack([torch.ones_like(x), x, y])


PLACES = 18
"""Length of a place code: x, y, and sines and cosines of both at four frequencies."""


def place_code(activations: Float[Tensor, "b k h w"]) -> Float[Tensor, "p n"]:
    """Name every place of the grid, row by row, so that linear maps can ask for regions of any size."""
    xy = coordinates(activations)[1:].flatten(1)  # (2, n)
    waves = [wave(xy * (math.pi * scale)) for scale in (0.5, 1.0, 1.5, 2.5) for wave in (torch.sin, torch.cos)]
    return torch.cat([xy, *waves])


def _block(channels: int, out: int, side: int = 3, stride: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels, out, side, stride, padding=side // 2, bias=False)
    return convolution, nn.BatchNorm2d(out), nn.ReLU(inplace=True)


class CutCNN(nn.Module):
    """A CNN of torchvision or timm without its last linear layer, cut at its last feature map."""

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(self, model: nn.Module, size: tuple[int, int] = (224, 224)) -> None:
        """Cut a classifier in two.

        Args:
            model: A classifier of a family that `halves` knows.
            size: Height and width that pictures are brought to.
        """
        super().__init__()
        self.size = size
        self.lower, self.upper = halves(model.eval())
        with torch.no_grad():
            activations, memo = self.trunk(torch.zeros(1, 3, *size))
            self.channels = activations.shape[1]
            self.dim = self.vector(activations, memo).shape[1]

    def trunk(self, images: Float[Tensor, "b 3 x y"]) -> tuple[Float[Tensor, "b k h w"], dict[str, Any]]:
        """Everything up to the last feature map; nothing else crosses the cut."""
        return self.lower(images), {}

    def vector(self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any]) -> Float[Tensor, "b d"]:
        """What the classifier's last linear layer would see: pooled maps, for VGG behind two fully connected layers."""
        return self.upper(activations).flatten(1)


def halves(model: nn.Module) -> tuple[nn.Sequential, nn.Sequential]:
    """Cut a classifier behind its last feature map and drop its last linear layer.

    Args:
        model: ResNet-like (children up to `avgpool`), VGG-like (`features`, `classifier`), or a CNN of timm.

    Returns:
        From pictures to maps, and from maps to the vector that the last linear layer sees.

    Raises:
        UserError: The classifier is of another family.
    """
    parts = dict(model.named_children())
    if hasattr(model, "forward_features") and hasattr(model, "reset_classifier"):  # timm
        model.reset_classifier(0)  # pyright: ignore[reportCallIssue]
        pool = [name for name in parts if name in ("global_pool", "head", "head_drop", "fc", "classifier")]
        below = [part for name, part in parts.items() if name not in pool]
        above = [part for name, part in model.named_children() if name in pool]
        return nn.Sequential(*below), nn.Sequential(*above)
    if "avgpool" in parts and "fc" in parts:  # ResNet, ResNeXt, Wide ResNet, RegNet
        names = list(parts)
        below = [parts[name] for name in names[: names.index("avgpool")]]
        return nn.Sequential(*below), nn.Sequential(parts["avgpool"], nn.Flatten())
    if isinstance(parts.get("features"), nn.Sequential) and isinstance(
        parts.get("classifier"), nn.Sequential | nn.Linear
    ):
        features, head = [*parts["features"].children()], parts["classifier"]
        pooled = [features.pop()] if isinstance(features[-1], nn.MaxPool2d) else []  # VGG's relu5_3 is before the pool
        if not isinstance(features[-1], nn.Module) or type(model).__name__ == "DenseNet":
            features.append(nn.ReLU())  # DenseNet rectifies in its forward
        layers = [*head.children()] if isinstance(head, nn.Sequential) else [head]
        while layers and not isinstance(layers[-1], nn.Linear):
            layers.pop()
        flat = [] if any(isinstance(layer, nn.Flatten) for layer in layers) else [nn.Flatten()]
        pool = parts.get("avgpool", nn.AdaptiveAvgPool2d(1))
        return nn.Sequential(*features), nn.Sequential(*pooled, pool, *flat, *layers[:-1])
    raise UserError(
        f"cannot cut a {type(model).__name__} into trunk and head; use a ResNet, VGG, DenseNet, EfficientNet, "
        "MobileNet or ConvNeXt of torchvision, or a CNN of timm as 'timm/NAME'"
    )


def backbone(name: str, weights: str | None = None) -> Any:  # noqa: ANN401
    """Make a CNN by name.

    Args:
        name: "scenes" for the embedded one, a name of torchvision ("resnet101"), or "timm/NAME".
        weights: None for random ones; "DEFAULT" for those that torchvision or timm offers (needs a network once).

    Returns:
        The backbone.

    Raises:
        UserError: There is no such CNN, or it cannot be cut.
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
        return CutCNN(timm.create_model(name.removeprefix("timm/"), pretrained=weights is not None))
    from torchvision.models import get_model, list_models

    if name not in list_models():
        raise unknown("backbone", name, ["scenes", *list_models()])
    return CutCNN(get_model(name, weights=weights))


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
    state = load_file(weights_path(weights) / "model.safetensors")
    missing, _ = cnn.load_state_dict(state, strict=False)
    if missing:
        raise UserError(f"{weights} lacks {missing[:3]} of the backbone; expected weights of {type(cnn).__name__}")
