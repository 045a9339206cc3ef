"""VGG with the layers that a checkpoint has; ResNets are in `mmcam.importing.resnet`."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["PlainVGG"]


class PlainVGG(nn.Module):
    """VGG without batch norm and without its last layer, with torchvision's names."""

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    size = (224, 224)
    layer = "features"

    def __init__(self, stages: Sequence[Sequence[int]], dim: int = 4096) -> None:
        """Make the network with random weights.

        Args:
            stages: The channels of the convolutions between two poolings; there are five stages in VGG-19.
            dim: Length of both fully connected layers' outputs.
        """
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for stage in stages:
            for out in stage:
                layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU(inplace=True)]
                channels = out
            layers.append(nn.MaxPool2d(2))
        self.pool = layers.pop()  # the last map is the one before it
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            OrderedDict(
                {
                    "0": nn.Linear(49 * channels, dim),
                    "1": nn.ReLU(inplace=True),
                    "3": nn.Linear(dim, dim),
                    "4": nn.ReLU(inplace=True),
                }
            )
        )
        self.channels, self.dim = channels, dim

    def trunk(self, images: Float[Tensor, "b 3 x y"]) -> tuple[Float[Tensor, "b k h w"], dict[str, Any]]:
        """The last convolution's output after ReLU, before it is pooled; nothing else crosses the cut."""
        return self.features(images), {}

    def vector(self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any]) -> Float[Tensor, "b d"]:
        """What the last layer of VGG would see."""
        return self.classifier(self.avgpool(self.pool(activations)).flatten(1))
