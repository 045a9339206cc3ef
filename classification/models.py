"""Classifiers by name, with what belongs to them: trained weights, the form of the input, the names of classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors.torch import load_file
from torch import nn

from classification.labels import imagenet_labels
from mmcam.errors import UserError, unknown
from mmcam.image import Interpolation

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Form:
    """How a picture becomes a network's input.

    Attributes:
        size: Height and width of the input.
        resize: The short side before the centre is cut out; None squashes the whole picture to the size.
        mean: Of red, green and blue, for values in [0, 1].
        std: Their standard deviations.
        interpolation: How the picture is resized.
    """

    size: tuple[int, int] = (224, 224)
    resize: int | None = 256
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: Interpolation = "bilinear"


@dataclass(frozen=True)
class Classifier:
    """A model with the form of its input and the names of its classes, as far as they are known."""

    model: nn.Module
    form: Form
    labels: tuple[str, ...] | None = None


def classifier(
    model: str | nn.Module,
    weights: str | None = None,
    num_classes: int | None = None,
    size: tuple[int, int] | None = None,
) -> Classifier:
    """Get a classifier.

    Args:
        model: A module, or the name of a torchvision model ("resnet50"), of a timm model
            ("timm/vit_tiny_patch16_224"), or "efficientnet_lite0", whose trained weights need no network.
        weights: Of a named model: None for random ones, "DEFAULT" or another name of trained weights, which are
            downloaded. Of any model: the path of a state dict (.safetensors, .pth, .pt); one that is pickled is read
            without executing it.
        num_classes: Number of classes; the model's own if not given.
        size: Height and width of the input, for models that must know it when they are made.

    Returns:
        The classifier; a named one is in eval mode.

    Raises:
        UserError: A name is not known, a number is not positive, the weights do not fit or cannot be had.
    """
    if size is not None and min(size) < 1:
        raise UserError(f"expected a size of 1 x 1 at least, got {size[0]} x {size[1]}")
    if num_classes is not None and num_classes < 1:
        raise UserError(f"expected num_classes of 1 at least, got {num_classes}")
    path = None if weights is None or not _is_path(weights) else Path(weights)
    name = None if path else weights
    if isinstance(model, nn.Module):
        if name is not None or num_classes is not None:
            raise UserError(
                "weights by name and num_classes go with a model's name; give this model a state dict's path or none"
            )
        found = Classifier(model, _own_form(model), _own_labels(model))
    elif model == "efficientnet_lite0":
        found = _from_wheels(name, num_classes)
    elif model.startswith("timm/"):
        found = _from_timm(model.removeprefix("timm/"), name, num_classes, size)
    else:
        found = _from_torchvision(model, name, num_classes, size)
    if path is not None:
        _load(found.model, path)
    return found


def _from_wheels(weights: str | None, num_classes: int | None) -> Classifier:
    from classification.efficientnet import efficientnet_lite0

    if weights not in (None, "DEFAULT") or num_classes not in (None, 1000):
        raise UserError(f"efficientnet_lite0 has weights DEFAULT and 1000 classes; got {weights} and {num_classes}")
    model = efficientnet_lite0(trained=weights is not None)
    return Classifier(model, _own_form(model), _own_labels(model) if weights else None)


def _from_torchvision(
    name: str, weights: str | None, num_classes: int | None, size: tuple[int, int] | None
) -> Classifier:
    from torchvision import models

    if name not in models.list_models(module=models):
        names = [*models.list_models(module=models), "efficientnet_lite0"]
        raise unknown("model (torchvision's by name, timm's as timm/NAME)", name, names)
    members = models.get_model_weights(name).__members__
    if weights is not None and weights not in members:
        raise unknown(f"weights of {name} (or no such file)", weights, members)
    chosen: Any = None if weights is None else members[weights]
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if name.startswith("vit_") and size is not None:
        if size[0] != size[1]:
            raise UserError(f"expected a square size for {name}, got {size[0]} x {size[1]}; timm's take others")
        options["image_size"] = size[0]
    if name in ("googlenet", "inception_v3") and chosen is None:
        options["init_weights"] = True
    try:
        model = models.get_model(name, weights=chosen, **options)
    except AssertionError as error:
        raise UserError(f"{name} with {options}: {_line(error)}; give another size") from error
    except (ValueError, OSError) as error:  # torchvision's word on what does not fit, or no network
        raise UserError(
            f"{name} with weights {weights}: {_line(error)}; download them first and give the file's path"
        ) from error
    if chosen is None:
        return Classifier(model.eval(), Form())
    preset = chosen.transforms()
    return Classifier(model.eval(), _form_of(preset), tuple(chosen.meta["categories"]))


def _form_of(preset: Any) -> Form:  # noqa: ANN401
    """What torchvision's transforms of some weights do."""
    size, resize = (preset.crop_size[0],) * 2, preset.resize_size[0]
    return Form(size, resize, tuple(preset.mean), tuple(preset.std), _known(preset.interpolation.value))


def _from_timm(name: str, weights: str | None, num_classes: int | None, size: tuple[int, int] | None) -> Classifier:
    try:
        import timm
    except ImportError as error:
        raise UserError(f"model 'timm/{name}' needs timm: pip install 'mmcam[timm]'") from error
    if not timm.is_model(name):
        raise unknown("timm model", name, timm.list_models())
    full = name if weights in (None, "DEFAULT") else f"{name}.{weights}"
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if size is not None and getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False):
        options["img_size"] = size
    try:
        model = timm.create_model(full, pretrained=weights is not None, **options)
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"timm/{name} with weights {weights}: {_line(error)}; give the path of a state dict instead"
        ) from error
    if getattr(model, "num_classes", None) == 0:
        raise UserError(
            f"timm/{name} is an encoder and knows no classes; give num_classes= and a state dict with a head"
        )
    imagenet = weights is not None and num_classes is None and getattr(model, "num_classes", 0) == 1000
    return Classifier(model.eval(), _own_form(model), imagenet_labels() if imagenet else None)


def _own_form(model: nn.Module) -> Form:
    """What a model says of its input: ours (`size`, `mean`, `std`, `resize` …) and timm's; ImageNet's otherwise."""
    size, mean, std = (getattr(model, key, None) for key in ("size", "mean", "std"))
    if all(isinstance(value, tuple | list) for value in (size, mean, std)):
        resize, interpolation = getattr(model, "resize", None), _known(getattr(model, "interpolation", None))
        return Form(_pair(size), resize, tuple(mean), tuple(std), interpolation)  # pyright: ignore[reportArgumentType]
    timm = getattr(model, "pretrained_cfg", None)
    if isinstance(timm, Mapping) and {"input_size", "crop_pct", "mean", "std"} <= timm.keys():
        size = _pair(getattr(getattr(model, "patch_embed", None), "img_size", None) or timm["input_size"][1:])
        squash = timm.get("crop_mode") == "squash" or size[0] != size[1]
        resize, interpolation = None if squash else int(size[0] / timm["crop_pct"]), _known(timm.get("interpolation"))
        return Form(size, resize, tuple(timm["mean"]), tuple(timm["std"]), interpolation)
    return Form()


def _known(interpolation: object) -> Interpolation:
    """An interpolation by name; timm also says "random" of some weights."""
    return next((name for name in get_args(Interpolation) if name == interpolation), "bilinear")


def _own_labels(model: nn.Module) -> tuple[str, ...] | None:
    labels = getattr(model, "labels", None)
    return tuple(map(str, labels)) if isinstance(labels, tuple | list) else None


def _load(model: nn.Module, path: Path) -> None:
    """Load a state dict, also one that lies inside a training checkpoint or was saved from a parallel model."""
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        for key in ("state_dict", "model", "model_state_dict"):
            state = state[key] if isinstance(state.get(key), Mapping) else state
        model.load_state_dict({key.removeprefix("module.").removeprefix("_orig_mod."): x for key, x in state.items()})
    except Exception as error:  # torch and safetensors raise many kinds
        raise UserError(
            f"{str(path)!r}: expected a state dict of {type(model).__name__}; {_line(error)}; "
            "convert it, or name another model"
        ) from error


def _is_path(weights: str) -> bool:
    return Path(weights).is_file() or Path(weights).suffix in (".safetensors", ".pth", ".pt")


def _pair(size: Sequence[int]) -> tuple[int, int]:
    return int(size[0]), int(size[1])


def _line(error: BaseException) -> str:
    """An error's text, of one line and not too long."""
    return " ".join(str(error).split())[:200]
