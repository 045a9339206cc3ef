"""Models as folders of two files, `config.json` and `model.safetensors`; loading never unpickles."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from mmcam.errors import UserError, unknown
from mmcam.networks.weightless import weightless
from mmcam.resources import weights_path

KEY = "architecture"
ABOUT = ("task", "source")
"""Keys of config.json that are no arguments of the model: by which task it is explained, and where it comes from."""

FILES = ("config.json", "model.safetensors")


def save_model(model: nn.Module, folder: Path, **about: Any) -> Path:  # noqa: ANN401
    """Write a model of ours: its constructor's arguments, the name of its class, and its weights.

    Args:
        model: A module with huggingface_hub's `PyTorchModelHubMixin`.
        folder: Where to write.
        about: What config.json shall say besides: `task`, as in a configuration but for the model itself, so that the
            folder is a configuration; `source`, where the model comes from.

    Returns:
        The folder.
    """
    model.save_pretrained(folder)  # pyright: ignore[reportCallIssue]
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(
        json.dumps({KEY: type(model).__name__, **config, **about}, indent=1, ensure_ascii=False), encoding="utf-8"
    )
    return folder


def load_model(name: str, classes: Sequence[type[Any]]) -> Any:  # noqa: ANN401
    """Load a model of ours.

    Args:
        name: Shipped weights, a folder, or a hub id ("owner/name").
        classes: The classes that it may be of.

    Returns:
        The model, in eval mode, on the CPU.

    Raises:
        UserError: Nothing of that name, a model of another class, a broken file, or weights that are not finite.
    """
    if _is_hub_id(name):
        try:
            config_file, weights_file = (Path(hf_hub_download(name, file)) for file in FILES)
        except (OSError, ValueError) as error:  # no network, no such model, no valid name
            reason = " ".join(str(error).split())
            raise UserError(f"{name!r} is no folder here, and the hub does not give it: {reason}") from error
    else:
        config_file, weights_file = (weights_path(name) / file for file in FILES)
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no text at all
        raise UserError(f"{config_file} is not whole JSON: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{config_file}: expected an object with the key {KEY!r}, got {type(config).__name__}")
    architecture = config.pop(KEY, "")
    for key in ABOUT:
        config.pop(key, None)
    by_name = {cls.__name__: cls for cls in classes}
    if architecture not in by_name:
        raise unknown(f"architecture in {config_file}", architecture, by_name)
    _compare(by_name[architecture], config, config_file, weights_file)
    model = by_name[architecture](**config)
    model.load_state_dict(load_file(weights_file))
    if not all(bool(torch.isfinite(value).all()) for value in model.state_dict().values()):
        raise UserError(f"{weights_file} holds NaN or infinity; train the model again")
    return model.eval()


def _compare(cls: type[Any], config: Mapping[str, Any], config_file: Path, weights_file: Path) -> None:
    """Make sure that a model is as large as its file, before there is room for it."""
    try:
        with safe_open(weights_file, "pt") as file:
            there = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{weights_file} does not hold the weights of a {cls.__name__}: {reason}") from error
    try:
        own = weightless(lambda: cls(**config)).state_dict()
    except UserError:
        raise
    except Exception as error:  # a configuration may say anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{config_file} does not fit {cls.__name__}: {reason}") from error
    wanted = {name: tuple(value.shape) for name, value in own.items()}
    for name in wanted | there:
        if wanted.get(name) != there.get(name):
            raise UserError(
                f"{weights_file} does not hold the weights of a {cls.__name__}: expected {name!r} of shape "
                f"{wanted.get(name, 'nothing')}, got {there.get(name, 'nothing')}"
            )


def _is_hub_id(name: str) -> bool:
    """A hub id has one slash and is no folder here; what is trained here lies in runs/, which nobody shall wait for."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~", "runs/")) and not Path(name).exists()
