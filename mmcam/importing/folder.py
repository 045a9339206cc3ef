"""What an importer writes: a model's folder that is a configuration too, and says where it comes from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmcam import __version__
from mmcam.checkpoint import FILES, save_model
from mmcam.errors import UserError
from mmcam.importing.files import sha256

__all__ = ["write_model"]


def write_model(
    model: nn.Module, folder: Path, peer: str, files: Sequence[Path], task: str, arguments: Mapping[str, Any]
) -> Path:
    """Write an imported model as `config.json` and `model.safetensors`.

    Args:
        model: A module with huggingface_hub's `PyTorchModelHubMixin`.
        folder: Where to write; must not hold a model yet.
        peer: Whose files they were.
        files: The files.
        task: The class that explains it, "captioning.CaptioningTask".
        arguments: Of the task, besides `model`: how many hypotheses are kept, the longest caption.

    Returns:
        The folder, which `mmcam.load_task` takes.

    Raises:
        UserError: The folder holds a model, or a part of one, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out: expected a folder, got the file {folder}; choose another")
    if any((folder / name).exists() for name in FILES):
        raise UserError(f"--out: expected a folder without a model, got {folder}, which has one; choose another")
    folder.mkdir(parents=True, exist_ok=True)
    source = {
        "peer": peer,
        "files": {file.name: sha256(file) for file in files},
        "importer": f"mmcam {__version__}",
    }
    with torch.no_grad():
        return save_model(model.eval(), folder, task={"class_path": task, "init_args": dict(arguments)}, source=source)
