"""Classifiers of torchvision and timm in two halves, behind their last feature map, without their last linear layer."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmcam.errors import UserError


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
