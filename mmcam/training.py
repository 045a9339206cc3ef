"""Training any model by one loop: seeded, resumable after a kill, with learning curves.

An epoch's random numbers depend on the seed and the epoch's number only, so a run that was killed and resumed ends with
the same weights as one that was not.
"""

import csv
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from mmcam.checkpoint import save_model
from mmcam.errors import UserError

logger = logging.getLogger(__name__)


class Recipe(ABC):
    """What is trained, on what, and how well it does; one subclass a kind of model.

    Attributes:
        epochs: Passes over the data.
        batch_size: Examples a step.
        rate: Highest learning rate (AdamW; linear warm-up over the first twentieth, then cosine to zero).
        decay: Weight decay.
        seed: Of weights, order and dropout.
    """

    epochs: int
    batch_size: int
    rate: float
    decay: float = 0.01
    seed: int = 0

    @abstractmethod
    def build(self) -> nn.Module:
        """Make the model as it is before the first step."""

    @abstractmethod
    def examples(self, model: nn.Module, device: torch.device) -> Dataset[Any]:
        """The training examples; may let the model's frozen parts compute what never changes."""

    def collate(self, examples: Sequence[Any]) -> Any:  # noqa: ANN401
        """Join examples into a batch; PyTorch's way unless a recipe has its own."""
        return torch.utils.data.default_collate(list(examples))

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> Tensor:  # noqa: ANN401
        """The loss of a batch."""

    @abstractmethod
    def measure(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """How well the model does on the validation data."""

    def rates(self, model: nn.Module) -> list[dict[str, Any]]:
        """Parameter groups with their highest learning rates; all that require a gradient, unless a recipe differs."""
        return [{"params": [p for p in model.parameters() if p.requires_grad], "lr": self.rate}]


def train(recipe: Recipe, out: Path, device: torch.device, *, amp: bool = False, stop_after: int | None = None) -> Path:
    """Train by a recipe; called again on the same folder it goes on where it was.

    Args:
        recipe: What to train.
        out: Gets `config.json`, `model.safetensors`, `curves.csv`, `curves.png`; `checkpoint.pt` until it is finished.
        device: Where to train.
        amp: Compute the forward in bfloat16 where that is safe.
        stop_after: Stop after so many epochs of this call, as a kill would.

    Returns:
        The folder.

    Raises:
        UserError: The folder holds a run of another recipe or a damaged checkpoint, there are fewer examples than a
            batch has, or the loss became NaN or infinite.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    model = recipe.build().to(device)
    optimiser = torch.optim.AdamW(recipe.rates(model), weight_decay=recipe.decay)
    curves: list[dict[str, int | float]] = []
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        saved = _read(checkpoint, recipe)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        curves = saved["curves"]
        logger.info("going on after epoch %d of %s", len(curves), out)
    data = recipe.examples(model, device)
    steps = len(data) // recipe.batch_size  # pyright: ignore[reportArgumentType]
    if steps == 0:
        raise UserError(f"expected a batch of {recipe.batch_size} examples at least, got fewer; lower `batch_size`")
    peaks = [group["lr"] if "peak" not in group else group["peak"] for group in optimiser.param_groups]
    for group, peak in zip(optimiser.param_groups, peaks, strict=True):
        group["peak"] = peak
    for epoch in range(len(curves), recipe.epochs):
        if stop_after is not None and stop_after <= 0:
            return out
        stop_after = None if stop_after is None else stop_after - 1
        began = time.monotonic()
        torch.manual_seed(recipe.seed * 100_003 + epoch + 1)
        loader = DataLoader(data, recipe.batch_size, shuffle=True, drop_last=True, collate_fn=recipe.collate)
        model.train()
        total = 0.0
        for step, batch in enumerate(
            progress := tqdm(loader, desc=f"epoch {epoch + 1}/{recipe.epochs}", mininterval=5)
        ):
            _set_rates(optimiser, (epoch * steps + step) / (recipe.epochs * steps))
            with torch.autocast(device.type, torch.bfloat16, enabled=amp):
                loss = recipe.loss(model, _move(batch, device))
            if not bool(torch.isfinite(loss)):
                raise UserError(f"the loss became {loss.item()} in epoch {epoch + 1}; lower `rate` or switch `amp` off")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], 5.0)
            optimiser.step()
            total += loss.item()
            if step % 20 == 0:
                progress.set_postfix(loss=f"{total / (step + 1):.3f}")
        model.eval()
        row = {"epoch": epoch + 1, "loss": total / steps, "seconds": time.monotonic() - began}
        curves.append(row | recipe.measure(model, device))
        logger.info("%s", " ".join(f"{name} {value:.4g}" for name, value in curves[-1].items()))
        _write(
            checkpoint,
            {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "curves": curves, **_key(recipe)},
        )
        _draw(curves, out)
    save_model(model.cpu(), out)
    checkpoint.unlink(missing_ok=True)
    return out


def _set_rates(optimiser: torch.optim.Optimizer, done: float) -> None:
    """Linear warm-up over the first twentieth of the run, then a cosine to zero; `done` is from 0 to 1."""
    warm = 0.05
    factor = (
        done / warm
        if done < warm
        else 0.5 * (1 + torch.cos(torch.tensor((done - warm) / (1 - warm) * torch.pi)).item())
    )
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * max(factor, 1e-3)


def _key(recipe: Recipe) -> dict[str, Any]:
    """What must be the same for a run to be resumed."""
    values = {name: value for name, value in vars(recipe).items() if isinstance(value, str | int | float | bool | dict)}
    return {"recipe": {"class": type(recipe).__name__, **values}}


def _read(checkpoint: Path, recipe: Recipe) -> dict[str, Any]:
    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)  # it may come from another machine
        before = saved["recipe"]
    except Exception as error:  # of a damaged file torch raises many kinds
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{checkpoint} is no checkpoint of mmcam ({reason}); delete it to start afresh") from error
    now = _key(recipe)["recipe"]
    changed = [
        f"{k}: {before.get(k)!r} → {now.get(k)!r}" for k in sorted({*now, *before}) if before.get(k) != now.get(k)
    ]
    if changed:
        raise UserError(
            f"{checkpoint} is of another recipe ({'; '.join(changed)}); train into another folder or delete it"
        )
    return saved


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write under another name first, so that a kill leaves the former checkpoint whole."""
    torch.save(content, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def _draw(curves: list[dict[str, int | float]], out: Path) -> None:
    """Write the curves as a table and as a picture."""
    from matplotlib.figure import Figure

    with (out / "curves.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(curves[-1]), extrasaction="ignore")
        table.writeheader()
        table.writerows(curves)
    names = [name for name in curves[-1] if name not in ("epoch", "seconds")]
    figure = Figure(figsize=(3 * len(names), 2.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        axes.plot([row["epoch"] for row in curves], [row.get(name, float("nan")) for row in curves])
        axes.set_title(name)
    figure.savefig(out / "curves.png", dpi=80)


def _move(batch: Any, device: torch.device) -> Any:  # noqa: ANN401
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {name: _move(value, device) for name, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(_move(value, device) for value in batch)
    return batch
