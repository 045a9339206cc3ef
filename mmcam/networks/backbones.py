"""CNNs by name, each cut in two: `trunk` up to the explained maps, `vector` from the maps to one vector a picture."""

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import softplus

from mmcam.errors import UserError, unknown
from mmcam.resources import weights_path
from mmcam.scenes.kinds import NAMES


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
    layer = "features"

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
        self.density = nn.Conv2d(channels, classes, 1)
        self.channels = channels
        self.dim = 3 * channels

    def forward(self, images: Float[Tensor, "b 3 x y"]) -> Float[Tensor, "b c"]:
        """One logit a kind: positive where the thing is in the picture."""
        return self.classify(self.features(images))

    def classify(self, activations: Float[Tensor, "b k h w"]) -> Float[Tensor, "b c"]:
        """The head: a linear map of the activations, then log-mean-exp over places."""
        sharpness = 3.0
        maps = sharpness * self.classifier(activations).flatten(2)
        maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
        return (maps.logsumexp(2) - math.log(maps.shape[2])) / sharpness

    def counts(self, activations: Float[Tensor, "b k h w"]) -> Float[Tensor, "b c"]:
        """How many things of each kind there are: the sum over places of a density.

        To be right about the sum the density must lie on the things; only the whole picture's counts are ever shown.
        """
        density = self.density(activations).flatten(2)
        return softplus(density.to(torch.promote_types(density.dtype, torch.float32)) - SPARSE).sum(2)

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


SPARSE = 5.0
"""Taken off before a density's softplus, so that at first nearly nothing is anywhere."""


def coordinates(activations: Float[Tensor, "b k h w"]) -> Float[Tensor, "3 h w"]:
    """The functions 1, x and y on the grid, x and y from -1 to 1 at the outermost cells."""
    h, w = activations.shape[2:]
    y = torch.linspace(-1, 1, h, device=activations.device, dtype=activations.dtype)[:, None].expand(h, w)
    x = torch.linspace(-1, 1, w, device=activations.device, dtype=activations.dtype).expand(h, w)
    return torch.stack([torch.ones_like(x), x, y])


WAVES = 15
"""Number of standing waves that `gist` weighs every channel with."""


def gist(activations: Float[Tensor, "b k h w"]) -> Float[Tensor, "b d"]:
    """Sum up roughly what is where: the lowest cosine coefficients of every channel, without the mean.

    Each wave has spatial mean zero, so whatever is computed from the gist adds nothing to α, the spatial mean of the
    gradient: Grad-CAM of a score that hears of the picture through the gist alone is zero.

    Args:
        activations: A.

    Returns:
        k times `WAVES` numbers.
    """
    h, w = activations.shape[2:]
    options = {"device": activations.device, "dtype": activations.dtype}
    rows = [torch.cos((torch.arange(h, **options) + 0.5) * (math.pi * u / h)) for u in range(4)]
    columns = [torch.cos((torch.arange(w, **options) + 0.5) * (math.pi * v / w)) for v in range(4)]
    waves = torch.stack([row[:, None] * column for row in rows for column in columns][1:])  # (15, h, w)
    return torch.einsum("bkhw,chw->bkc", activations, waves).flatten(1) * (32 / (h * w))


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

    layer = "lower"

    def __init__(
        self,
        model: nn.Module,
        size: tuple[int, int] = (224, 224),
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
    ) -> None:
        """Cut a classifier in two.

        Args:
            model: A classifier of a family that `halves` knows.
            size: Height and width that pictures are brought to.
            mean: Of the input's channels, for pixels in 0 to 1; ImageNet's if not given.
            std: Likewise.

        Raises:
            UserError: The classifier cannot be cut.
        """
        super().__init__()
        self.size, self.mean, self.std = size, mean, std
        self.lower, self.upper = halves(model.eval())
        try:
            with torch.no_grad():
                activations = self.lower(torch.zeros(1, 3, *size))
                self.dim = self.upper(activations).flatten(1).shape[1]
        except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:  # its children are no chain
            raise _uncuttable(model) from error
        # Tokens have no grid, and some transformers put the channels last.
        if activations.ndim != 4 or activations.shape[1] != getattr(model, "num_features", activations.shape[1]):
            raise _uncuttable(model)
        self.channels = activations.shape[1]

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
        names, children = list(parts), list(model.children())
        # Behind the pooling there may be more than a classifier: MobileNetV3 has a convolution there.
        behind = [i for i, name in enumerate(names) if name in ("global_pool", "pre_logits", "head", "head_drop", "fc")]
        if not behind:
            raise _uncuttable(model)
        return _chain(zip(names[: behind[0]], children, strict=False)), nn.Sequential(*children[behind[0] :])
    if "avgpool" in parts and "fc" in parts:  # ResNet, ResNeXt, Wide ResNet, RegNet
        names = list(parts)
        below = [name for name in names[: names.index("avgpool")] if not name.lower().startswith("aux")]
        lower = _chain((name, parts[name]) for name in below)
        return lower, nn.Sequential(_pooling(parts["avgpool"]), nn.Flatten())
    if isinstance(parts.get("features"), nn.Sequential) and isinstance(
        parts.get("classifier"), nn.Sequential | nn.Linear
    ):
        features, head = [*parts["features"].named_children()], parts["classifier"]
        pooled = [features.pop()[1]] if isinstance(features[-1][1], nn.MaxPool2d) else []  # VGG's relu5_3 comes before
        if type(model).__name__ == "DenseNet":
            features.append(("relu", nn.ReLU()))  # DenseNet rectifies in its forward
        layers = [*head.children()] if isinstance(head, nn.Sequential) else [head]
        while layers and not isinstance(layers[-1], nn.Linear):
            layers.pop()
        flat = [] if any(isinstance(layer, nn.Flatten) for layer in layers) else [nn.Flatten()]
        pool = _pooling(parts.get("avgpool", nn.AdaptiveAvgPool2d(1)))
        return _chain(features), nn.Sequential(*pooled, pool, *flat, *layers[:-1])
    raise _uncuttable(model)


def _chain(modules: Iterable[tuple[str, nn.Module]]) -> nn.Sequential:
    """A sequence whose parts keep the names that the user knows, such as layer3."""
    return nn.Sequential(OrderedDict(modules))


class Average(nn.Module):
    """Global average pooling, (b, k, h, w) → (b, k, 1, 1), as a sum and a division.

    The backward of a sum is a view; that of `mean` writes out every place, which for all words of a batch took a fifth
    of the whole head's time.
    """

    def forward(self, activations: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k 1 1"]:
        """Average over places."""
        return activations.sum((2, 3), keepdim=True) / activations.shape[2:].numel()


def _pooling(pool: nn.Module) -> nn.Module:
    """Average in place of torch's own where that does the same."""
    return Average() if isinstance(pool, nn.AdaptiveAvgPool2d) and pool.output_size in (1, (1, 1)) else pool


def _uncuttable(model: nn.Module) -> UserError:
    return UserError(
        f"cannot cut a {type(model).__name__} into trunk and head; use a ResNet, VGG, DenseNet, EfficientNet, "
        "MobileNet or ConvNeXt of torchvision, or a CNN of timm as 'timm/NAME'"
    )


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
