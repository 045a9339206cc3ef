"""Dump pictures from end to end, beside the trunk alone, and see where the time goes.

    python benchmarks/bench_dump.py --threads 2 --out runs/bench/dump
    python benchmarks/bench_dump.py --device cuda --amp --workers 16 --batch 64 --images 8192 --part-size 8192
    python benchmarks/bench_dump.py --rows 100000

Show and Tell with ResNet-101 and 9,568 words explains captions of 12 words. The trunk alone sees the same pictures as
tensors, on the same device, in the same batches and the same precision. With --rows: bytes a row on the disk for maps
of 14 x 14, and the memory that a dump of so many rows takes beside a tenth of them.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
from torch import Tensor

from benchmarks.bench_engine import describe, machine, sayer
from benchmarks.measure import add_options, prepare, timed
from benchmarks.pieces import DISTINCT, PIECES, Bench, prepared
from benchmarks.rows import Weight, weigh
from benchmarks.workloads import FULL, TINY
from mmcam.dumps.reader import MapReader


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark.

    Args:
        arguments: Of the command line.
    """
    options = _parse(arguments)
    size = TINY if options.quick else FULL
    prepare(options.threads)
    say = sayer(options.out)
    report: dict[str, Any] = {"machine": machine(options.device), "seed": options.seed}
    say(describe(report["machine"], options.seed))
    if options.rows:
        weights = weigh([max(1, options.rows // 10), options.rows], options.threads)
        report["rows"] = [asdict(weight) for weight in weights]
        say(f"\n{rows_table(weights)}\n")
    else:
        with TemporaryDirectory() as place:
            bench = prepared(Path(place), size, options)
            found = measure(bench, options.repeats, options.seed)
        report |= {name: getattr(options, name) for name in ("images", "batch", "workers", "part_size", "amp")}
        report |= {"targets": options.targets, **found}
        say(f"\n### {title(options, found)}\n\n{speed_table(found)}\n\n{share_table(found)}\n")
    if options.out:
        options.out.with_suffix(".json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    return 0


def measure(bench: Bench, repeats: int, seed: int) -> dict[str, Any]:
    """Time the dump, the trunk alone and the pieces, in a new random order every round.

    Args:
        bench: What.
        repeats: Rounds.
        seed: Of the order.

    Returns:
        Seconds by name, the number of pictures, of words and of maps that are not empty, and the dump's part of the
        trunk's throughput in each round.
    """
    runs: dict[str, Callable[[], object]] = {name: getattr(bench, name) for name in ("dump", "reading", *PIECES)}
    for name in ("trunk", "dump"):  # warm
        _once(bench, runs[name])
    with MapReader(bench.place / "dumped") as maps:
        words = maps.rows
        full = sum(flag == "" for one in maps for flag in one.flags)
        if maps.failures:
            raise RuntimeError(f"some pictures failed, the first: {next(iter(maps.failures.items()))}")
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    random = Random(seed)
    for _ in range(repeats):
        for name in random.sample([*runs], len(runs)):
            seconds[name].append(_once(bench, runs[name]))
    ratios = [t / d for t, d in zip(seconds["trunk"], seconds["dump"], strict=True)]
    return {
        "images": bench.plan.count,
        "words": words,
        "full": full,
        "picture_bytes": sum(path.stat().st_size for path in bench.place.glob("*.jpg"))
        // min(DISTINCT, bench.plan.count),
        "seconds": seconds,
        "ratios": ratios,
    }


def _once(bench: Bench, run: Callable[[], object]) -> float:
    for name in ("dumped", "written"):
        shutil.rmtree(bench.place / name, ignore_errors=True)
    return timed(lambda _: cast(Tensor, run()), bench.work)[0]


def title(options: argparse.Namespace, found: dict[str, Any]) -> str:
    """One line that says what was done."""
    return (
        f"Show and Tell, {found['images']} pictures of 480 x 640 ({found['picture_bytes'] / 1000:.0f} kB each), "
        f"{found['words']} words {options.targets} ({found['full']} maps not empty), batch {options.batch}, "
        f"{options.workers} workers, parts of {options.part_size}, {'bfloat16' if options.amp else 'float32'} trunk"
    )


def speed_table(found: dict[str, Any]) -> str:
    """The dump beside the trunk alone."""
    lines = ["| | images/s | words/s | seconds (quartiles) | of the trunk's speed |", "|---|---:|---:|---:|---:|"]
    for name, label in (("trunk", "trunk alone"), ("dump", "dump, end to end"), ("reading", "reading alone")):
        low, middle, high = _quartiles(found["seconds"][name])
        words = f"{found['words'] / middle:.4g}" if name == "dump" else ""
        part = "{1:.1%} ({0:.1%} to {2:.1%})".format(*_quartiles(found["ratios"])) if name == "dump" else ""
        lines.append(
            f"| {label} | {found['images'] / middle:.4g} | {words} | {middle:.3g} ({low:.3g} to {high:.3g}) | {part} |"
        )
    return "\n".join(lines)


def share_table(found: dict[str, Any]) -> str:
    """The pieces, timed one by one, nothing beside another."""
    middle = {name: _quartiles(found["seconds"][name])[1] for name in PIECES}
    whole = sum(middle.values())
    lines = ["| piece, alone | ms an image | images/s | share of the sum |", "|---|---:|---:|---:|"]
    for name, value in [*middle.items(), ("sum", whole)]:
        label = "decode, in one process" if name == "decode" else name
        each = value / found["images"]
        lines.append(f"| {label} | {1000 * each:.3g} | {1 / each:.4g} | {value / whole:.1%} |")
    return "\n".join(lines)


def rows_table(weights: Sequence[Weight]) -> str:
    """Size and memory."""
    lines = ["| rows of 14 x 14 | bytes a row, uncompressed | on disk | memory at most, MiB |", "|---:|---:|---:|---:|"]
    lines += [f"| {w.rows:,} | {w.plain:.0f} | {w.packed:.0f} | {w.peak / 2**20:.0f} |" for w in weights]
    return "\n".join(lines)


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return low, middle, high


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8, help="pictures at once")
    parser.add_argument("--workers", type=int, default=1, help="processes that decode; 0: none but this one")
    parser.add_argument("--part-size", type=int, default=1000)
    parser.add_argument("--targets", choices=["given", "predicted"], default="given")
    parser.add_argument("--amp", action="store_true", help="compute the trunk in bfloat16, also where it is alone")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--rows", type=int, default=0, metavar="N", help="measure size and memory of N rows instead")
    add_options(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
