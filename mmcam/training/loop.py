"""The loop: steps, epochs, what is written after each, and going on after a kill.

An epoch's random numbers depend on the seed and the epoch's number only, and the rate on the number of steps done, so a
run that was killed and resumed ends with the same weights as one that was not.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sized
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from mmcam.checkpoint import save_model
from mmcam.errors import UserError
from mmcam.training.curves import Curves, add_row, draw, open_board
from mmcam.training.processes import ByNumber, Share, count, of_first, processes, rank, total
from mmcam.training.recipe import Recipe
from mmcam.training.saved import CHECKPOINT, best_epoch, keep_best, read, write

logger = logging.getLogger(__name__)


def train(
    recipe: Recipe,
    out: Path,
    device: torch.device,
    *,
    amp: bool = False,
    workers: int = 0,
    accumulate: int = 1,
    tensorboard: bool = False,
    stop_after: int | None = None,
) -> Path:
    """Train by a recipe; called again on the same folder it goes on where it was.

    Started by torchrun, the processes share every step: neither their number nor `accumulate` changes what a step is.
    What an example draws (which captions) comes from torch's stream in one process without workers, as the shipped
    models were trained, and otherwise from the example's number: the same for any number of workers and processes.

    Args:
        recipe: What to train.
        out: Gets `config.json`, `model.safetensors`, `curves.csv`, `curves.png`, `best/` if the recipe says what is
            best; `checkpoint.pt` until it is finished. Of several machines all must see it.
        device: Where to train.
        amp: Compute the forward in bfloat16 where that is safe; in float16, with scaled losses, on a GPU without it.
        workers: Processes that load examples, for each process that trains; 0: itself.
        accumulate: In how many parts a step is computed, one after the other, to save memory.
        tensorboard: Write the curves for TensorBoard too.
        stop_after: Stop after so many epochs of this call, as a kill would.

    Returns:
        The folder.

    Raises:
        UserError: The folder holds a run of another recipe or a damaged checkpoint, or another process trains into it;
            there are fewer examples than a batch has, a batch cannot be shared evenly, or the loss became NaN or
            infinite.
    """
    if workers < 0 or accumulate < 1:
        raise UserError(f"expected 0 workers and 1 part at least, got {workers} and {accumulate}")
    if recipe.patience is not None and not recipe.best_by:
        raise UserError("patience: expected best_by with it, the measure that shall become better; got none")
    with processes(device) as device:
        if recipe.batch_size % (count() * accumulate):
            raise UserError(
                f"batch_size: expected a multiple of {count() * accumulate} ({count()} processes, {accumulate} parts), "
                f"got {recipe.batch_size}"
            )
        recipe.workers = workers
        out.mkdir(parents=True, exist_ok=True)
        with _alone(out) if rank() == 0 else nullcontext():
            run = _Run(recipe, out, device, amp, workers, accumulate)
            return run.go(tensorboard, stop_after)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep other runs from the folder: torchrun's processes may outlive a torchrun that was killed."""
    try:
        with FileLock(out / ".lock", blocking=False):
            yield
    except Timeout as error:
        raise UserError(
            f"expected {out} for this run alone, but another process trains into it; stop that or wait"
        ) from error


class _Run:
    """A run: the model, its optimiser, and how far it has come."""

    def __init__(
        self, recipe: Recipe, out: Path, device: torch.device, amp: bool, workers: int, accumulate: int
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.out, self.device, self.workers, self.accumulate = recipe, out, device, workers, accumulate
        self.model = recipe.build().to(device)
        self.optimiser = recipe.steps.make(recipe.rates(self.model))
        self.dtype = precision(device) if amp else None
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype is torch.float16)
        self.curves: Curves = []
        if (out / CHECKPOINT).exists():
            saved = read(out / CHECKPOINT, recipe)
            self.model.load_state_dict(saved["model"])
            self.optimiser.load_state_dict(saved["optimiser"])
            if saved["scaler"] and self.scaler.is_enabled():
                self.scaler.load_state_dict(saved["scaler"])
            self.curves = saved["curves"]
            logger.info("going on after epoch %d of %s", len(self.curves), out)

    def go(self, tensorboard: bool, stop_after: int | None) -> Path:
        """Train to the end, or for some epochs."""
        recipe, out, first = self.recipe, self.out, rank() == 0
        board = open_board(out, len(self.curves)) if tensorboard and first else None
        data = recipe.examples(self.model, self.device)
        steps = len(cast(Sized, data)) // recipe.batch_size
        if steps == 0:
            raise UserError(f"expected a batch of {recipe.batch_size} examples at least, got fewer; lower `batch_size`")
        for epoch in range(len(self.curves), recipe.epochs):
            if stop_after is not None and stop_after <= 0:
                return out
            if self._tired():
                logger.info("no better epoch for %d epochs: the end", recipe.patience)
                break
            stop_after = None if stop_after is None else stop_after - 1
            began = time.monotonic()
            loss = self._epoch(epoch, steps, data)
            self.model.eval()
            row = {"epoch": epoch + 1, "loss": loss, "seconds": time.monotonic() - began}
            self.curves.append(of_first(row | recipe.measure(self.model, self.device)))
            logger.info("%s", " ".join(f"{name} {value:.4g}" for name, value in self.curves[-1].items()))
            if board is not None:
                add_row(board, self.curves[-1])
            if first:
                self._write()
        if board is not None:
            board.close()
        if first:
            save_model(self.model.cpu(), out)
            (out / CHECKPOINT).unlink(missing_ok=True)
        return out

    def _epoch(self, epoch: int, steps: int, data: Dataset[Any]) -> float:
        """Train for one epoch; gives the mean loss of its steps."""
        recipe = self.recipe
        seed = recipe.seed * 100_003 + epoch + 1
        torch.manual_seed(seed)
        recipe.begin(self.model, epoch + 1)
        learner = _Learner(recipe, self.model)
        if count() > 1:  # anew in each epoch, in which other parameters may learn; not all have a part in every loss
            learner = DistributedDataParallel(learner, find_unused_parameters=True)
        self.model.train()
        batches = self._batches(data, seed)
        summed = 0.0
        for step in (
            progress := tqdm(range(steps), f"epoch {epoch + 1}/{recipe.epochs}", mininterval=5, disable=rank() > 0)
        ):
            parts = [_move(next(batches), self.device) for _ in range(self.accumulate)]
            if step == 0 and rank() > 0:
                torch.manual_seed(seed + 7919 * rank())  # the order is drawn: dropout must not be the same everywhere
            recipe.steps.set_rates(self.optimiser, epoch * steps + step, recipe.epochs * steps)
            summed += self._step(learner, parts, epoch)
            if step % 20 == 0:
                progress.set_postfix(loss=f"{summed / (step + 1):.3f}")
        return total(summed, self.device) / count() / steps

    def _step(self, learner: nn.Module, parts: list[Any], epoch: int) -> float:
        """Change the weights once; gives this process's loss."""
        weights = [self.recipe.weight(part) for part in parts]
        whole = total(sum(weights), self.device) / count()  # the processes' gradients are averaged, not summed
        self.optimiser.zero_grad(set_to_none=True)
        summed = 0.0
        for number, (part, weight) in enumerate(zip(parts, weights, strict=True), start=1):
            more = number < len(parts)  # gradients are exchanged after the last part only
            with learner.no_sync() if more and isinstance(learner, DistributedDataParallel) else nullcontext():
                with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
                    loss = learner(part) * (weight / whole)
                if not bool(torch.isfinite(loss)):
                    raise UserError(
                        f"the loss became {loss.item()} in epoch {epoch + 1}; lower `rate` or switch `amp` off"
                    )
                self.scaler.scale(loss).backward()
            summed += loss.item()
        self.scaler.unscale_(self.optimiser)
        self.recipe.steps.shorten(p for group in self.optimiser.param_groups for p in group["params"])
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return summed

    def _batches(self, data: Dataset[Any], seed: int) -> Iterator[Any]:
        """The parts of one step after the other."""
        if self.workers or count() > 1:
            data = ByNumber(data, seed)
        sampler = Share(cast(Sized, data), self.recipe.batch_size)
        size = self.recipe.batch_size // count() // self.accumulate
        pinned = self.device.type == "cuda"
        options: Any = {"num_workers": self.workers, "collate_fn": self.recipe.collate, "pin_memory": pinned}
        try:
            yield from DataLoader(data, size, sampler=sampler, **options)
        except UserError as error:  # torch adds a worker's traceback to the message
            raise UserError(str(error).strip().splitlines()[-1].removeprefix("mmcam.errors.UserError: ")) from error

    def _tired(self) -> bool:
        """Whether there was no better epoch for too long."""
        patience = self.recipe.patience
        if patience is None or not self.curves:
            return False
        return len(self.curves) - 1 - best_epoch(self.curves, self.recipe.best_by) >= patience

    def _write(self) -> None:
        """Write what an epoch made: the checkpoint last, so that a kill before it repeats the epoch and all it made."""
        if self.recipe.best_by and best_epoch(self.curves, self.recipe.best_by) == len(self.curves) - 1:
            keep_best(self.model, self.out)
        state = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}
        draw(self.curves, self.out)
        write(self.out / CHECKPOINT, state | {"scaler": self.scaler.state_dict(), "curves": self.curves}, self.recipe)


class _Learner(nn.Module):
    """The loss as a module's forward, which is where `DistributedDataParallel` listens."""

    def __init__(self, recipe: Recipe, model: nn.Module) -> None:
        super().__init__()
        self.recipe, self.model = recipe, model

    def forward(self, batch: Any) -> Tensor:  # noqa: ANN401
        return self.recipe.loss(self.model, batch)


def precision(device: torch.device) -> torch.dtype:
    """The type of `amp`: bfloat16, which needs no scaled losses, unless a GPU can only emulate it."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def _move(batch: Any, device: torch.device) -> Any:  # noqa: ANN401
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {name: _move(value, device) for name, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(_move(value, device) for value in batch)
    return batch
