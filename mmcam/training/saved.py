"""What a run leaves on the disk to go on from: the checkpoint after each epoch, and the best epoch's weights."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmcam.checkpoint import save_model
from mmcam.errors import UserError, unknown
from mmcam.training.recipe import Recipe

CHECKPOINT = "checkpoint.pt"
BEST = "best"


def key(recipe: Recipe) -> dict[str, Any]:
    """What must be the same for a run to be resumed; how examples are loaded is no part of it."""
    values = {
        name: value
        for name, value in vars(recipe).items()
        if isinstance(value, str | int | float | bool | dict) and not name.startswith("_") and name != "workers"
    }
    steps = {f"steps.{name}": value for name, value in vars(recipe.steps).items()}
    return {"class": type(recipe).__name__, **values, **steps}


def read(checkpoint: Path, recipe: Recipe) -> dict[str, Any]:
    """Read a checkpoint of the same recipe.

    Raises:
        UserError: It is damaged, or of another recipe.
    """
    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)  # it may come from another machine
        before = saved["recipe"]
    except Exception as error:  # of a damaged file torch raises many kinds
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{checkpoint} is no checkpoint of mmcam ({reason}); delete it to start afresh") from error
    now = key(recipe)
    changed = [
        f"{k}: {before.get(k)!r} → {now.get(k)!r}" for k in sorted({*now, *before}) if before.get(k) != now.get(k)
    ]
    if changed:
        raise UserError(
            f"{checkpoint} is of another recipe ({'; '.join(changed)}); train into another folder or delete it"
        )
    return saved


def write(checkpoint: Path, content: dict[str, Any], recipe: Recipe) -> None:
    """Write under another name first, so that a kill leaves the former checkpoint whole."""
    part = checkpoint.with_suffix(".tmp")
    torch.save(content | {"recipe": key(recipe)}, part)
    part.replace(checkpoint)


def best_epoch(curves: list[dict[str, int | float]], name: str) -> int:
    """The number of the best epoch so far, from 0; of equal ones the first, and NaN is the worst.

    Raises:
        UserError: There is no such measure.
    """
    if name not in curves[-1]:
        raise unknown("measure in best_by", name, [known for known in curves[-1] if known not in ("epoch", "seconds")])
    sign = -1 if "loss" in name else 1
    scores = [-math.inf if math.isnan(row[name]) else sign * row[name] for row in curves]
    return max(range(len(scores)), key=lambda i: (scores[i], -i))


def keep_best(model: nn.Module, out: Path) -> None:
    """Write the weights into `best/`; a kill leaves the former ones whole."""
    part = save_model(model, out / f"{BEST}.tmp")
    (out / BEST).mkdir(exist_ok=True)
    for file in sorted(part.iterdir()):
        file.replace(out / BEST / file.name)
    part.rmdir()
