"""Which classifiers are tried, and what comes of each: the layer found, a map, and where its places lie."""

import json
import logging
import re
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from classification import ClassificationTask
from mmcam.engine import explain
from mmcam.errors import UserError
from mmcam.task import Batch, Sample

logger = logging.getLogger(__name__)

LARGEST = 320_000_000
"""Parameters of a model that is tried."""

SMALL, MANY, WIDE = 128, 28_000_000, 300
"""From so many parameters, or pixels a side, on, the input is so small, where the model can take that."""

WORDS = {
    "distilled",
    "gap",
    "reg1",
    "reg4",
    "reg8",
    "dinov2",
    "dinov3",
    "clip",
    "siglip",
    "rope",
    "mci",
    "relpos",
    "hybrid",
    "so150m2",
}
"""In timm's names, what changes how the picture is laid out in tokens or where the answer is read."""


def sizes(path: Path) -> dict[str, dict[str, Any]]:
    """All models by name, with what they are; counted without memory, and kept in a file since it takes minutes."""
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    import timm
    from timm.models import _registry
    from torchvision import models

    found = {}
    for name in models.list_models(module=models):
        family = models.get_model_builder(name).__module__.rpartition(".")[2]
        count = next(iter(models.get_model_weights(name))).meta["num_params"]
        found[name] = {"family": family, "class": "", "parameters": count, "classes": 1000}
    for name in timm.list_models():
        with torch.device("meta"):
            model = timm.create_model(name)
        count = sum(p.numel() for p in model.parameters())
        family = _registry._model_to_module[name]
        kind, classes = type(model).__name__, model.num_classes
        found[f"timm/{name}"] = {"family": family, "class": kind, "parameters": count, "classes": classes}
    path.write_text(json.dumps(found), encoding="utf-8")
    return found


def chosen(models: dict[str, dict[str, Any]]) -> list[str]:
    """All of torchvision's, the smallest of each kind of timm's that has classes."""
    smallest: dict[Any, str] = {}
    for name, model in models.items():
        if not model["classes"]:
            continue
        words = name.removeprefix("timm/").split("_")
        kind: Any = name
        if name.startswith("timm/"):
            stem = re.match(r"[a-z]+", words[0])
            kind = (model["family"], model["class"], stem and stem[0], *sorted(WORDS & {*words}))
        best = smallest.setdefault(kind, name)
        if model["parameters"] < models[best]["parameters"]:
            smallest[kind] = name
    return list(smallest.values())


def side(name: str, parameters: int) -> int | None:
    """The input's side; None for the model's own."""
    import timm

    own = timm.get_pretrained_cfg(name.removeprefix("timm/")) if name.startswith("timm/") else None
    return SMALL if parameters > MANY or (own is not None and own.input_size[1] > WIDE) else None


def attempt(name: str, size: int | None = None) -> dict[str, Any]:
    """Make a model, let its layer be found, and explain one picture with it."""
    torch.manual_seed(0)
    began = time.perf_counter()
    try:
        task = ClassificationTask(name, size=size)
        took = time.perf_counter() - began
        wake(task.model)
        batch = task.collate([Sample(noise(task.form.size), name)])
        with torch.no_grad():
            activations = task.trunk(batch)
        layout = batch.memo["layout"]
        began = time.perf_counter()
        (explanation,) = explain(task, batch)
        explained = time.perf_counter() - began
        return {
            "name": name,
            "layer": task.layer,
            "kind": layout.order,
            "grid": list(activations.shape[2:]),
            "channels": activations.shape[1],
            "prefix": layout.prefix,
            "size": list(task.form.size),
            "flags": list(explanation.flags),
            "seen": seen(task, batch, activations),
            "placed": placed(task, batch),
            "found in": round(took, 2),
            "explained in": round(explained, 2),
        }
    except Exception as error:  # whatever a model's own code raises is what is looked for here
        if size is not None:
            return attempt(name)
        if isinstance(error, UserError):
            return {"name": name, "refused": str(error)}
        logger.exception(name)
        return {"name": name, "refused": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", "bug": True}


def noise(size: list[int] | tuple[int, int]) -> Image.Image:
    """A picture of smooth noise."""
    small = torch.randint(0, 256, (8, 8, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Image.fromarray(small.numpy()).resize((size[1], size[0]))


def wake(model: nn.Module) -> None:
    """Give numbers to heads and scales that are zero before training."""
    with torch.no_grad():
        for p in model.parameters():
            if not p.any():
                p.normal_(std=0.02)


def seen(task: ClassificationTask, batch: Batch, activations: Tensor) -> float:
    """Share of the layer's places on which the scores depend."""
    x = activations.detach().requires_grad_()
    with torch.enable_grad():
        y = task._logits(x, batch)
        weights = torch.arange(y.numel()).cos().view_as(y)
        (gradient,) = torch.autograd.grad((y * weights).sum(), x)
    return round(float(gradient.ne(0).any(1).float().mean()), 4)


def placed(task: ClassificationTask, batch: Batch) -> float:
    """How well places of the layer lie where they should in the picture: a correlation, 1 if all do.

    Of the four corners, how far down and how far to the right each is, against the centre of the squared gradients of
    two mixtures of its channels by the picture, and the smaller of the two correlations.
    """
    with torch.enable_grad():
        images = batch.images.clone().requires_grad_()
        activations = task._cut.below(images)[0]
    sides = activations.shape[2:]
    mixes = [(step * torch.arange(activations.shape[1])).cos() for step in (1.0, 2.0)]
    where, centres = [], []
    for row in (0, sides[0] - 1):
        for column in (0, sides[1] - 1):
            mass = torch.zeros(images.shape[2:], dtype=torch.float64)
            for mix in mixes:
                place = (activations[0, :, row, column] * mix).sum()
                (gradient,) = torch.autograd.grad(place, images, retain_graph=True)
                mass += gradient[0].double().square().sum(0) / gradient.double().square().sum() / len(mixes)
            down, right = (torch.arange(side, dtype=torch.float64) for side in mass.shape)
            where.append((row, column))
            centres.append((float((mass.sum(1) * down).sum()), float((mass.sum(0) * right).sum())))
    pairs = zip(zip(*where, strict=True), zip(*centres, strict=True), strict=True)
    return round(min(float(torch.corrcoef(torch.tensor(pair, dtype=torch.float64))[0, 1]) for pair in pairs), 3)
