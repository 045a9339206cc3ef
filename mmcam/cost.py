"""What a computation costs: its time, and the memory that it holds at once."""

import statistics
import time
import weakref
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Live", "compare", "peak", "seconds"]


def compare(
    ways: Mapping[str, Callable[[], object]], device: torch.device, repeats: int = 5
) -> dict[str, tuple[float, int]]:
    """Measure several computations side by side, in turns, so that a busy moment hits all of them.

    Args:
        ways: The computations by name.
        device: Where they run.
        repeats: How often each is timed, after one run that warms it up.

    Returns:
        For each the median of its seconds, and its peak in bytes.
    """
    peaks = {name: peak(way, device) for name, way in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            times[name].append(seconds(way, device))
    return {name: (statistics.median(times[name]), peaks[name]) for name in ways}


def seconds(way: Callable[[], object], device: torch.device) -> float:
    """How long a computation takes, until the device has finished."""
    began = time.perf_counter()
    way()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def peak(way: Callable[[], object], device: torch.device) -> int:
    """The most bytes that were held at once beside those that were there before."""
    if device.type == "cuda":
        way()
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        way()
        return torch.cuda.max_memory_allocated(device) - before
    with Live() as live:
        way()
    return live.peak


class Live(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make, for as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        there = {id(x.untyped_storage()) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and id(storage := tensor.untyped_storage()) not in there | self._known:
                self._known.add(id(storage))
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._gone, id(storage), storage.nbytes())
        return result

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
