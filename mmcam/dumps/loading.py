"""Reading the samples of a source in worker processes; what cannot be read becomes a failure, not the end."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset

from mmcam.errors import UserError
from mmcam.sources import Source
from mmcam.task import Batch, Sample, Task

__all__ = ["Loaded", "Loading", "is_out_of_memory", "read"]

logger = logging.getLogger(__name__)

FATAL = "its reader died; was it killed, out of memory, or did a decoder crash?"
MOST_FATAL = 20
"""So many samples of a part may kill their readers before something else must be wrong."""


@dataclass(frozen=True)
class Loading:
    """How samples are read; the maps do not depend on it.

    Attributes:
        batch_size: Samples at a time.
        workers: Processes that read ahead; 0 reads in the main one.
    """

    batch_size: int = 8
    workers: int = 1


@dataclass(frozen=True, eq=False)
class Loaded:
    """Some samples, read.

    Attributes:
        batch: Those that could be read, as tensors; None if none could.
        numbers: Their numbers in the source.
        given: What people gave for each.
        failures: Reasons of the others, by number.
    """

    batch: Batch | None
    numbers: tuple[int, ...]
    given: tuple[tuple[str, ...], ...]
    failures: dict[int, str] = field(default_factory=dict)

    def pin_memory(self) -> "Loaded":
        """Called by `DataLoader`."""
        return self if self.batch is None else replace(self, batch=self.batch.pin_memory())


def read(source: Source, task: Task, numbers: Sequence[int], loading: Loading, *, with_given: bool) -> Iterator[Loaded]:
    """Read samples in order, ahead of their turn.

    If a worker dies, what is left is read again by a single one, so that the sample that kills its reader is known
    and can be left out.

    Args:
        source: The samples.
        task: Turns them into batches, in the workers.
        numbers: Which, in order.
        loading: How.
        with_given: Ask the source also for what people gave.

    Yields:
        Batches; together all numbers, each once.

    Raises:
        UserError: Too many samples kill their readers.
    """
    done, fatal = set[int](), dict[int, str]()
    while True:
        samples = _Samples(source, with_given)
        try:
            for loaded in _load(samples, task, [n for n in numbers if n not in done and n not in fatal], loading):
                done.update(loaded.numbers, loaded.failures)
                yield loaded
        except (RuntimeError, ConnectionError, EOFError) as error:
            if not _is_death(error):
                raise
            if loading.workers == 1:
                killer = int(samples.current.value)
                fatal[killer] = FATAL
                logger.warning("%s: %s", source.ids[killer], FATAL)
            if len(fatal) > MOST_FATAL:
                raise UserError(
                    f"{len(fatal)} readers died; give the machine more memory, or use --workers 0"
                ) from error
            loading = replace(loading, workers=1)
            continue
        if fatal:
            yield Loaded(None, (), (), fatal)
        return


class _Samples(Dataset[tuple[int, Sample | str, tuple[str, ...]]]):
    """The samples of a source; one that cannot be read is the reason why."""

    def __init__(self, source: Source, with_given: bool) -> None:
        self.source, self.with_given = source, with_given
        self.current = multiprocessing.Value("q", -1, lock=False)  # whose turn it is, for when the reader has died

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, number: int) -> tuple[int, Sample | str, tuple[str, ...]]:
        self.current.value = number
        try:
            sample = self.source.sample(number)
            return number, sample, self.source.given(number) if self.with_given else ()
        except UserError as error:
            return number, str(error), ()
        except MemoryError:
            return number, "out of memory while it was read", ()


class _Collate:
    """Samples → batch, one by one where they do not go together; an object, so that it can go to another process."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.dtype = next((p.dtype for p in task.parameters() if p.is_floating_point()), torch.float32)

    def __call__(self, read: Sequence[tuple[int, Sample | str, tuple[str, ...]]]) -> Loaded:
        failures = {number: sample for number, sample, _ in read if isinstance(sample, str)}
        good = [(number, sample, given) for number, sample, given in read if isinstance(sample, Sample)]
        try:
            batch = self.task.collate([sample for _, sample, _ in good]) if good else None
        except UserError:
            parts = []
            for one in good:
                try:
                    self.task.collate([one[1]])
                except UserError as error:
                    failures[one[0]] = str(error)
                else:
                    parts.append(one)
            good = parts
            batch = self.task.collate([sample for _, sample, _ in good]) if good else None
        if batch is not None:
            batch = replace(batch, images=batch.images.to(self.dtype))
        return Loaded(batch, tuple(one[0] for one in good), tuple(one[2] for one in good), failures)


def _load(samples: _Samples, task: Task, numbers: Sequence[int], loading: Loading) -> Iterator[Loaded]:
    """One loader, and the transfer of the next batch begun before this one is handed on."""
    device = task.device
    loader = DataLoader(
        cast(Dataset[Any], samples),
        loading.batch_size,
        sampler=cast(Any, numbers),
        num_workers=loading.workers,
        collate_fn=_Collate(task),
        pin_memory=device.type == "cuda",
        worker_init_fn=_quiet if loading.workers else None,
    )
    ahead: Loaded | None = None
    for loaded in _patiently(loader):
        moved = loaded if loaded.batch is None else replace(loaded, batch=loaded.batch.to(device))
        if ahead is not None:
            yield ahead
        ahead = moved
    if ahead is not None:
        yield ahead


def _patiently(loader: DataLoader[Any]) -> Iterator[Loaded]:
    """Go through a loader, and hear of a worker's death when the next batch is asked for.

    Torch's own handler would raise wherever the main process is at that moment, in the middle of anything.
    """
    if not loader.num_workers or threading.current_thread() is not threading.main_thread() or os.name == "nt":
        yield from loader
        return
    before = signal.getsignal(signal.SIGCHLD)
    iterator = iter(loader)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield from iterator
    finally:
        del iterator  # ends the workers before the old handler is told of anything
        signal.signal(signal.SIGCHLD, before)


def _quiet(_: int) -> None:
    """Ctrl-C reaches the workers too; it is the main process that stops them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _is_death(error: Exception) -> bool:
    """Whether a loader says that its worker died, and not what went wrong in it."""
    if isinstance(error, RuntimeError):
        return any(words in str(error) for words in ("exited unexpectedly", "killed by signal"))
    return "Caught" not in str(error)  # the worker was gone when its tensors were fetched


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short, on whatever device."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
