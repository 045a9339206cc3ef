"""ResNets of whatever depth and width a checkpoint has, as torchvision builds them or as Caffe did."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from mmcam.errors import UserError
from mmcam.image import Interpolation
from mmcam.importing.weights import shape_of
from mmcam.networks.halves import Average

__all__ = ["ResNet", "named_like_torchvision", "sizes_of"]

STAGES = ("layer1", "layer2", "layer3", "layer4")
IN_SEQUENCE = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


class Block(nn.Module):
    """A residual block of two or three convolutions, with torchvision's names.

    Differs from torchvision in Caffe's form: the stride is in the first convolution, not in the 3 x 3 one.
    """

    def __init__(
        self, channels: int, width: int, out: int, stride: int, groups: int, bottleneck: bool, caffe: bool
    ) -> None:
        super().__init__()
        if bottleneck:
            early, late = (stride, 1) if caffe else (1, stride)
            self.conv1 = nn.Conv2d(channels, width, 1, early, bias=False)
            self.conv2 = nn.Conv2d(width, width, 3, late, padding=1, groups=groups, bias=False)
            self.conv3 = nn.Conv2d(width, out, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(out)
        else:
            self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
            self.conv2 = nn.Conv2d(width, out, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(self.conv2.out_channels)
        self.relu = nn.ReLU()
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        self.bottleneck = bottleneck

    def forward(self, x: Float[Tensor, "b k h w"]) -> Float[Tensor, "b l y x"]:
        """What the convolutions add to the input, and ReLU."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.bottleneck:
            y = self.bn3(self.conv3(self.relu(y)))
        return self.relu(y + self.downsample(x))


class ResNet(nn.Module):
    """A ResNet (arXiv 1512.03385) up to its last map, as a backbone of captioners and VQA models.

    In Caffe's form the first convolution of a stage makes every second step, where torchvision's second one does; and
    max pooling has no margin but rounds its size up. Weights of the one in the other run, and give other features.
    """

    layer = "layer4"

    def __init__(
        self,
        blocks: Sequence[int],
        widths: Sequence[int],
        outs: Sequence[int],
        bottleneck: bool = True,
        groups: int = 1,
        stem: int = 64,
        caffe: bool = False,
        size: Sequence[int] | None = (224, 224),
        interpolation: Interpolation = "bilinear",
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        """Make the network with random weights.

        Args:
            blocks: How many each stage has.
            widths: Channels inside a stage's blocks.
            outs: Channels that a stage gives.
            bottleneck: Whether blocks have three convolutions.
            groups: Of the second of three convolutions.
            stem: Channels of the first convolution.
            caffe: Whether strides and pooling are Caffe's.
            size: Height and width that pictures are brought to; None leaves them as they are.
            interpolation: How they are resized.
            mean: Of the input's channels, for pixels in 0 to 1; ImageNet's if not given.
            std: Likewise.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, ceil_mode=True) if caffe else nn.MaxPool2d(3, 2, padding=1)
        channels = stem
        for stage, (count, width, out) in enumerate(zip(blocks, widths, outs, strict=True)):
            parts = nn.Sequential(Block(channels, width, out, 1 if stage == 0 else 2, groups, bottleneck, caffe))
            for _ in range(1, count):
                parts.append(Block(out, width, out, 1, groups, bottleneck, caffe))
            self.add_module(STAGES[stage], parts)
            channels = out
        self.average = Average()
        self.channels = self.dim = channels
        self.size = None if size is None else (int(size[0]), int(size[1]))
        self.interpolation = interpolation
        self.mean, self.std = tuple(mean), tuple(std)

    def trunk(self, images: Float[Tensor, "b 3 x y"]) -> tuple[Float[Tensor, "b k h w"], dict[str, Any]]:
        """The last stage's maps; nothing else crosses the cut."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for stage in STAGES:
            x = getattr(self, stage)(x)
        return x, {}

    def vector(self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any]) -> Float[Tensor, "b d"]:
        """The spatial mean."""
        return self.average(activations).flatten(1)


def sizes_of(weights: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """Read a ResNet's sizes off its weights.

    Args:
        weights: With torchvision's names.
        where: The file, for errors.

    Returns:
        Arguments of `ResNet`: blocks, widths, outs, bottleneck, groups and stem.

    Raises:
        UserError: It is no ResNet.
    """
    stem = shape_of(weights, "conv1.weight", 4, where)[0]
    bottleneck = "layer1.0.conv3.weight" in weights
    last = "conv3" if bottleneck else "conv2"
    blocks, widths, outs = [], [], []
    for stage in STAGES:
        widths.append(shape_of(weights, f"{stage}.0.conv1.weight", 4, where)[0])
        outs.append(shape_of(weights, f"{stage}.0.{last}.weight", 4, where)[0])
        blocks.append(len({name.split(".")[1] for name in weights if name.startswith(f"{stage}.")}))
    inside = shape_of(weights, "layer1.0.conv2.weight", 4, where)[1]
    if inside == 0 or widths[0] % inside or 0 in outs:
        raise UserError(f"{where}: expected the weights of a ResNet, got a convolution of {inside} channels in layer1")
    return {
        "blocks": blocks,
        "widths": widths,
        "outs": outs,
        "bottleneck": bottleneck,
        "groups": widths[0] // inside if bottleneck else 1,
        "stem": stem,
    }


def named_like_torchvision(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Name the parts of `nn.Sequential(*resnet.children())`, which have numbers, as torchvision does.

    Args:
        weights: By their names in the sequence: "resnet.4.0.conv1.weight".
        prefix: Of the sequence: "resnet.".

    Returns:
        Its weights alone, by their names in a ResNet: "layer1.0.conv1.weight".
    """
    named = {}
    for name, value in weights.items():
        if name.startswith(prefix):
            number, _, rest = name.removeprefix(prefix).partition(".")
            named[f"{IN_SEQUENCE.get(number, number)}.{rest}"] = value
    return named
