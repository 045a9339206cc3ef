"""Pictures of a data set as network inputs, and what a frozen trunk makes of them, computed once."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from mmcam.errors import UserError
from mmcam.image import read_image, to_tensor
from mmcam.networks.backbones import Backbone


class Pictures(Dataset[Float[Tensor, "3 x y"]]):
    """Pictures by number, at a backbone's size and normalisation."""

    def __init__(self, paths: Sequence[Path], backbone: Backbone) -> None:
        """Name the pictures.

        Args:
            paths: The files.
            backbone: Says size, mean and standard deviation.
        """
        self.paths = list(paths)
        self.form = backbone.size, backbone.mean, backbone.std

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Float[Tensor, "3 x y"]:
        return to_tensor(read_image(self.paths[index]), *self.form)


def frozen_activations(
    backbone: Any,  # noqa: ANN401
    pictures: Dataset[Tensor] | Sequence[Tensor],
    device: torch.device,
    *,
    amp: bool = False,
    workers: int = 0,
) -> Float[Tensor, "n k h w"]:
    """Run a trunk that will not change over all pictures once.

    Args:
        backbone: The backbone, whose `trunk` leaves nothing in its memo.
        pictures: The pictures.
        device: Where to compute.
        amp: Compute in bfloat16.
        workers: Processes that read pictures; 0: this one.

    Returns:
        The activations in float16 on the CPU: n·k·h·w·2 bytes of memory.
    """
    parts = []
    backbone.eval()
    loader = DataLoader(cast(Dataset[Tensor], pictures), 64, num_workers=workers)
    for images in tqdm(loader, desc="activations", mininterval=5):
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=amp):
            activations, _ = backbone.trunk(images.to(device))
        parts.append(activations.to(torch.float16).cpu())
    return torch.cat(parts)


def read_json(path: Path, *keys: str) -> dict[str, Any]:
    """Read a JSON object and see that it has the keys that its format promises.

    Raises:
        UserError: There is no such file, it is not JSON, or a key is missing.
    """
    if not path.is_file():
        raise UserError(
            f"{path} is missing; for the embedded world make it with: mmcam scenes --out {path.parent.parent}"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no JSON, brackets without end, or no text at all
        raise UserError(f"{path} is not whole JSON: {error}") from error
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise UserError(f"{path} lacks {missing}; expected an object with the keys {list(keys)}")
    return content
