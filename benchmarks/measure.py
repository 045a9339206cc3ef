"""How maps, times and memory are compared."""

import argparse
import ctypes
import gc
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor

from benchmarks.methods import METHODS, Maps, Method, plain
from benchmarks.workloads import Case, Size, Workload, build

TOLERANCE = 1e-4
"""Largest deviation in float32, relative to the largest value of our map; the tests of parity are stricter."""

PATIENCE = 120.0
"""Seconds that the repetitions of one method may take, if three fit; a call of more than half of it is not repeated."""


@dataclass(frozen=True)
class Times:
    """Seconds of each run, and the same divided by plain inference in the same round."""

    seconds: list[float]
    ratios: list[float]

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Of the ratios: the lower one, the median and the upper one."""
        low, middle, high = np.quantile(self.ratios, [0.25, 0.5, 0.75]).tolist()
        return low, middle, high


def deviation(maps: Maps, signed: Maps, method: Method, work: Workload) -> float:
    """How far a method's maps are from ours.

    Args:
        maps: Its maps.
        signed: Ours, before ReLU.
        method: Says how it post-processes.
        work: What was explained.

    Returns:
        The largest difference, relative to the largest value of the raw (or of the normalised) map.
    """
    expected = method.expected(signed, work)
    if maps.shape != expected.shape:
        raise ValueError(f"expected maps {tuple(expected.shape)}, got {tuple(maps.shape)}")
    whole = signed.abs() if expected.shape == signed.shape else expected.abs()
    scale = whole.amax((2, 3)).clamp(min=torch.finfo(whole.dtype).tiny)
    return float(((maps - expected).abs().amax((2, 3)) / scale).max())


def timed(run: Callable[[Workload], Tensor], work: Workload) -> tuple[float, Tensor]:
    """Run once.

    Args:
        run: Ends on the CPU, so that nothing is left to wait for.
        work: What to run it on.

    Returns:
        Seconds, and what it returned.
    """
    gc.collect()
    if work.batch.images.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = run(work)
    return time.perf_counter() - start, result


def interleaved(first: dict[str, float], work: Workload, repeats: int, seed: int) -> dict[str, Times]:
    """Time methods and plain inference in turn, in a new random order every round.

    Args:
        first: The methods, with the seconds that a first call took.
        work: The workload.
        repeats: Rounds; slow methods take part in some of them, at least three, and very slow ones in none: their first
            call is what counts.
        seed: Of the order.

    Returns:
        The times of each method and of "plain".
    """
    random = Random(seed)
    counts = {name: repetitions(seconds, repeats) for name, seconds in first.items()} | {"plain": repeats}
    seconds: dict[str, list[float]] = {name: [] for name in counts}
    ratios: dict[str, list[float]] = {name: [] for name in counts}
    for r in range(repeats):
        due = [name for name, n in counts.items() if (r + 1) * n // repeats > r * n // repeats]
        random.shuffle(due)
        took = {name: timed(plain if name == "plain" else METHODS[name].run, work)[0] for name in due}
        for name, value in took.items():
            seconds[name].append(value)
            ratios[name].append(value / took["plain"])
    usual = statistics.median(seconds["plain"])
    for name, value in first.items():
        if not counts[name]:
            seconds[name], ratios[name] = [value], [value / usual]
    ratios["plain"] = [value / usual for value in seconds["plain"]]
    return {name: Times(seconds[name], ratios[name]) for name in counts}


def repetitions(seconds: float, repeats: int) -> int:
    """How often to repeat a method whose first call took so long; 0 if that call shall count."""
    if seconds > PATIENCE / 2:
        return 0
    return min(repeats, max(3, int(PATIENCE / max(seconds, 1e-9))))


def peaks(names: Sequence[str], case: Case, size: Size, seed: int, device: str, threads: int) -> dict[str, int]:
    """Measure peak memory, each method in a fresh process of its own.

    Args:
        names: Methods, or "plain".
        case: The workload.
        size: Its size.
        seed: Of weights and pictures.
        device: Where.
        threads: Of torch.

    Returns:
        Bytes above the resting process (models and pictures loaded, libraries warm), by name; not of those that the
        system killed for want of memory.
    """
    found = {}
    for name in names:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            try:
                found[name] = pool.submit(_alone, name, case, size, seed, device, threads).result()
            except BrokenProcessPool:  # the system was short of memory and killed it
                continue
    return found


def _alone(name: str, case: Case, size: Size, seed: int, device: str, threads: int) -> int:
    """What the child does: warm up on one picture, then measure."""
    prepare(threads)
    run = plain if name == "plain" else METHODS[name].run
    run(build(Case(case.workload, 1, case.targets), size, seed, device))
    work = build(case, size, seed, device)
    return peak(lambda: run(work), device)


def peak(run: Callable[[], object], device: str) -> int:
    """How much more memory is used at the worst moment of a call than before it.

    On CUDA by torch's allocator. On Linux by the resident set: freed pages are given back, the kernel's high-water mark
    is reset, the call made, the mark read. Elsewhere the mark cannot be reset, so what was used before hides a part.

    Args:
        run: The call.
        device: Where its memory lies.

    Returns:
        Bytes.
    """
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _high_water()
    run()
    return _high_water() - before


def _high_water() -> int:
    """Largest resident set so far, in bytes."""
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that most benchmarks have: where they run, their seed and size, and what they write."""
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="tiny models: to see whether it works, not for figures")
    parser.add_argument("--out", type=Path, help="write OUT.md and OUT.json")


def prepare(threads: int) -> None:
    """Set threads, and float32 as float32: TensorFloat-32 would hide differences between maps."""
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
