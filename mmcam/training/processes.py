"""Several processes that train one model together, as torchrun starts them; alone, all of this does nothing.

A step's examples do not depend on how many processes there are: all draw the same order, and each takes its share of
every step.
"""

import os
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import distributed
from torch.utils.data import Dataset, RandomSampler, Sampler

T = TypeVar("T")


@contextmanager
def processes(device: torch.device) -> Iterator[torch.device]:
    """Join the processes that torchrun started, if it did.

    Args:
        device: Where to compute; for "cuda" each process gets the GPU of its own number on its machine.

    Yields:
        The device of this process.
    """
    if not _started_together() or distributed.is_initialized():
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def count() -> int:
    """How many processes train."""
    return distributed.get_world_size() if _joined() else 1


def rank() -> int:
    """The number of this one, from 0."""
    if _joined():
        return distributed.get_rank()
    return int(os.environ["RANK"]) if _started_together() else 0


def _started_together() -> bool:
    """Whether torchrun started several processes; a RANK alone, as some schedulers set, is none of them."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def _joined() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def total(value: float, device: torch.device) -> float:
    """The sum of a number over all processes."""
    if count() == 1:
        return value
    tensor = torch.tensor(value, dtype=torch.float64, device=device)
    distributed.all_reduce(tensor)
    return tensor.item()


def of_first(value: T) -> T:
    """What the first process has, in every process."""
    if count() == 1:
        return value
    box: list[Any] = [value]
    distributed.broadcast_object_list(box)
    return box[0]


def share(items: Sequence[T]) -> Sequence[T]:
    """Every n-th item: those of this process."""
    return items[rank() :: count()] if count() > 1 else items


def everyones(mine: Sequence[T]) -> list[T]:
    """Join what the processes made of their shares, in the order of all items."""
    if count() == 1:
        return list(mine)
    parts: list[Any] = [None] * count()
    distributed.all_gather_object(parts, list(mine))
    return [parts[i % len(parts)][i // len(parts)] for i in range(sum(map(len, parts)))]


class Share(Sampler[int]):
    """Of each step's examples those of this process; examples that make no whole step are left out."""

    def __init__(self, data: Sized, batch_size: int) -> None:
        """Name the examples.

        Args:
            data: All examples.
            batch_size: Examples a step, of all processes together.
        """
        self.data, self.batch_size = data, batch_size
        self.steps = len(data) // batch_size

    def __len__(self) -> int:
        return self.steps * self.batch_size // count()

    def __iter__(self) -> Iterator[int]:
        # Drawn by torch's own generator, which all processes have seeded alike, when the first batch is asked for.
        order = list(RandomSampler(self.data))
        mine = self.batch_size // count()
        for step in range(self.steps):
            begin = step * self.batch_size + rank() * mine
            yield from order[begin : begin + mine]


class ByNumber(Dataset[Any]):
    """Examples whose draws depend on the seed and the example's number, not on which process loads them, or when."""

    def __init__(self, data: Dataset[Any], seed: int) -> None:
        """Wrap a data set.

        Args:
            data: Draws by torch's own generator.
            seed: The epoch's.
        """
        self.data, self.seed = data, seed

    def __len__(self) -> int:
        return len(cast(Sized, self.data))

    def __getitem__(self, index: int) -> Any:  # noqa: ANN401
        before = torch.get_rng_state()
        torch.default_generator.manual_seed((self.seed * 1_000_003 + index) % 2**63)
        try:
            return self.data[index]
        finally:
            torch.set_rng_state(before)
