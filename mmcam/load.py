"""Tasks by name, on a device, ready to explain; and one picture explained without a tensor in sight."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from mmcam.config import Config, instantiate, resolve
from mmcam.engine import explain
from mmcam.errors import UserError, unknown
from mmcam.explanation import Explanation
from mmcam.image import read_image
from mmcam.methods.table import check_method
from mmcam.networks.cut import at_layer
from mmcam.task import Sample, Task

__all__ = [
    "check_weights",
    "choose_device",
    "default_config",
    "default_method",
    "explain_image",
    "instantiate",
    "load_layers",
    "load_task",
    "resolve",
    "weights_sha256",
]

DEVICES = ("auto", "cpu", "cuda", "mps")
CHECKED = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def load_task(config: Config, *, device: str = "auto", **overrides: Any) -> Task:  # noqa: ANN401
    """Make the task of a configuration, in eval mode on a device.

    Args:
        config: Name of a shipped configuration ("captioning/scenes"), a YAML file, or a dictionary of its content.
        device: "auto" (CUDA if there is any), "cpu", "cuda", "cuda:1", "mps".
        overrides: Other arguments of the task than the file's: `layer="layer3"`; for nested ones
            `model__init_args__hidden=256` or, in a dictionary, `"model.init_args.hidden"`.

    Returns:
        The task.

    Raises:
        UserError: A name or value in the configuration is wrong, the device is absent, or a weight is not finite.
    """
    where = choose_device(device)
    task = instantiate(config, "task", Task, overrides).eval()
    check_weights(task)
    task.method = default_method(config, overrides)
    return task.to(where)


def load_layers(config: Config, layers: Sequence[str], *, device: str = "auto", **overrides: Any) -> list[Task]:  # noqa: ANN401
    """Make the task of a configuration once a layer, all of one model, which is loaded once.

    Tasks that keep no `Cut` or `Trunk` of `mmcam.networks.cut`, as one's own may not, are loaded once a layer.

    Args:
        config: As for `load_task`, also for the others.
        layers: Names of layers.
        device: Where.
        overrides: Other arguments.

    Returns:
        The tasks, in order; each runs its own trunk up to its layer.
    """

    def load(layer: str) -> Task:
        return load_task(config, device=device, **overrides | {"task.init_args.layer": layer})

    first = load(layers[0])
    others = ((layer, at_layer(first, layer)) for layer in layers[1:])
    return [first, *(load(layer) if task is None else task for layer, task in others)]


@dataclass(frozen=True)
class _Explain:
    """The section `explain:` of a configuration."""

    method: str = "grad_cam"


def default_method(config: Config, overrides: Mapping[str, Any] | None = None) -> str:
    """The method by which a configuration's model is explained if the user names none.

    Args:
        config: As for `load_task`.
        overrides: Of YAML keys; `explain.method` is meant.

    Raises:
        UserError: There is no such method.
    """
    own = {name: value for name, value in (overrides or {}).items() if name.startswith(("explain.", "explain__"))}
    method = instantiate(config, "explain", _Explain, own).method
    check_method(method)
    return method


def explain_image(
    image: Path | str | Image.Image,
    config: Config = "",
    question: str = "",
    caption: str = "",
    classes: str = "",
    answer: str = "",
    method: str = "",
    **overrides: Any,  # noqa: ANN401
) -> Explanation:
    """Explain one picture, from its path to its maps.

    Who has many pictures loads the task once and calls `mmcam.explain` on batches.

    Args:
        image: A file, or a picture.
        config: As for `load_task`; the shipped one that fits the other arguments if it is not given.
        question: For visual question answering.
        caption: Explain this caption and not the model's own.
        classes: Explain these classes (with commas between) and not the likeliest.
        answer: Explain this answer and not the likeliest.
        method: Name of a method in `mmcam.methods.table`; the configuration's if not given.
        overrides: As for `load_task`, `device` among them.

    Returns:
        The explanation.

    Raises:
        UserError: The picture cannot be read, or as for `load_task` and `Task.given`.
    """
    texts = [text for text in (caption, classes, answer) if text]
    if len(texts) > 1:
        raise UserError(f"expected one of caption, classes and answer, got {len(texts)}; call once for each")
    picture = image.convert("RGB") if isinstance(image, Image.Image) else read_image(image)
    name = "picture" if isinstance(image, Image.Image) else Path(image).stem
    task = load_task(config or default_config(question, classes), **overrides)
    batch = task.collate([Sample(picture, name, question)])
    if question and not any(batch.texts):
        raise UserError(f"{type(task).__name__} takes no question, got {question!r}; use a config such as 'vqa/scenes'")
    targets = task.given(texts, batch) if texts else None
    (explanation,) = explain(task, batch, targets, method)
    return replace(explanation, prompt=explanation.prompt or caption)


def default_config(question: str = "", classes: str = "") -> str:
    """Name the shipped configuration that fits what is asked."""
    return "vqa/scenes" if question else "classification/scenes" if classes else "captioning/scenes"


def choose_device(name: str) -> torch.device:
    """Turn a device's name into one that is there.

    Raises:
        UserError: The name is unknown, or this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise unknown("device", name, DEVICES) from None
    if device.type not in DEVICES:
        raise unknown("device", name, DEVICES)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UserError(f"device {name!r}: expected a CUDA device, but there are {count} here; use 'cpu' or 'auto'")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps': expected Apple's Metal, but it is not available here; use 'cpu' or 'auto'")
    return device


def check_weights(module: nn.Module) -> None:
    """Refuse a model with weights that are not numbers: every map would be empty.

    Buffers may hold infinities, as attention masks do, but no NaN.

    Raises:
        UserError: Some are not finite; names the first tensor.
    """
    broken = [name for name, p in module.named_parameters() if p.dtype in CHECKED and not bool(torch.isfinite(p).all())]
    broken += [name for name, b in module.named_buffers() if b.dtype in CHECKED and bool(torch.isnan(b).any())]
    if broken:
        raise UserError(
            f"expected finite weights, got NaN or infinity in {broken[0]} and {len(broken) - 1} other tensors; "
            "load or train the model again"
        )


def weights_sha256(module: nn.Module) -> str:
    """Hash all parameters and buffers with their names: the same model gives the same 64 digits on every device."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
