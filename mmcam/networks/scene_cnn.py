"""The embedded CNN of the scenes: a trunk for captioners and VQA models, alone a classifier of kinds of things."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from mmcam.networks.places import coordinates
from mmcam.scenes.kinds import NAMES

SPARSE = 5.0
"""Taken off before a density's softplus, so that at first nearly nothing is anywhere."""


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


def _block(channels: int, out: int, side: int = 3, stride: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels, out, side, stride, padding=side // 2, bias=False)
    return convolution, nn.BatchNorm2d(out), nn.ReLU(inplace=True)
