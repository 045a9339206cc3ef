"""Compare our Grad-CAM with the peers' in one process: first the maps, then, where they agree, time and peak memory.

    python benchmarks/bench_engine.py --workload b --batch 1 8 --threads 2 --out runs/bench/b

Everything is given as a ratio to plain inference (trunk and head, no graph). See benchmarks/README.md.
"""

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import TOLERANCE, add_options, deviation, interleaved, peaks, prepare, timed
from benchmarks.methods import METHODS, ours, plain
from benchmarks.workloads import FULL, TINY, Case, Size, build, cases

Row = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark.

    Args:
        arguments: Of the command line.

    Returns:
        1 if any method's maps differ from ours, 0 otherwise.
    """
    options = _parse(arguments)
    size = TINY if options.quick else FULL
    prepare(options.threads)
    report: dict[str, Any] = {"machine": machine(options.device), "seed": options.seed, "cases": []}
    say = sayer(options.out)
    say(describe(report["machine"], options.seed))
    for workload in options.workload:
        for case in cases(workload, options.batch, size):
            if options.targets and case.targets not in options.targets:
                continue
            rows = measure(case, size, options)
            report["cases"].append({**asdict(case), "title": case.title, "rows": rows})
            say(f"\n### {case.title}\n\n{table(rows)}\n")
            if options.out:
                options.out.with_suffix(".json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    return int(any(row["deviation"] > TOLERANCE for case in report["cases"] for row in case["rows"]))


def measure(case: Case, size: Size, options: argparse.Namespace) -> list[Row]:
    """Compare the maps of one case, then time and memory of the methods whose maps are right.

    Args:
        case: Which.
        size: How large.
        options: Of the command line.

    Returns:
        One row a method, plain inference first.
    """
    work = build(case, size, options.seed, options.device)
    timed(plain, work)
    signed = ours(work)
    if not signed.abs().amax((2, 3)).all():
        raise RuntimeError("some of our maps are zero, so there is nothing to compare; choose another seed")
    deviations: dict[str, float] = {}
    first: dict[str, float] = {}
    for name in options.methods:
        first[name], maps = timed(METHODS[name].run, work)
        deviations[name] = deviation(maps, signed, METHODS[name], work)
    right = [name for name in options.methods if deviations[name] <= TOLERANCE]
    rows: dict[str, Row] = {"plain": {"method": "plain", "deviation": 0.0}}
    rows |= {name: {"method": name, "deviation": value} for name, value in deviations.items()}
    if "time" in options.measure:
        times = interleaved({name: first[name] for name in right}, work, options.repeats, options.seed)
        for name, found in times.items():
            rows[name] |= {"seconds": found.seconds, "ratios": found.ratios, "quartiles": found.quartiles}
    if "memory" in options.measure:
        found = peaks(["plain", *right], case, size, options.seed, options.device, options.threads)
        for name, bytes_ in found.items():
            rows[name] |= {"peak": bytes_, "peak_ratio": bytes_ / max(1, found.get("plain", bytes_))}
    return list(rows.values())


def table(rows: list[Row]) -> str:
    """Write the rows of a case as a Markdown table."""
    lines = [
        "| method | maps differ by | runs | time × plain (quartiles) | × ours | seconds | memory × plain | MiB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    middle = {row["method"]: row["quartiles"][1] for row in rows if "quartiles" in row}
    for row in rows:
        name = row["method"]
        off = f"{row['deviation']:.0e}{' **wrong**' if row['deviation'] > TOLERANCE else ''}"
        runs = time = relative = seconds = memory = mebibytes = ""
        if "quartiles" in row:
            low, median, high = row["quartiles"]
            runs = str(len(row["seconds"]))
            time = f"{median:.3g} ({low:.3g} to {high:.3g})" if len(row["ratios"]) > 1 else f"{median:.3g}"
            relative = f"{median / middle['ours']:.3g}" if "ours" in middle else ""
            seconds = f"{sorted(row['seconds'])[len(row['seconds']) // 2]:.3g}"
        if "peak" in row:
            memory, mebibytes = f"{row['peak_ratio']:.2f}", f"{row['peak'] / 2**20:.0f}"
        lines.append(f"| {name} | {off} | {runs} | {time} | {relative} | {seconds} | {memory} | {mebibytes} |")
    return "\n".join(lines)


def machine(device: str) -> dict[str, str]:
    """What the figures depend on: processor, load, versions."""
    packages = ("mmcam", "torch", "torchvision", "captum", "grad-cam", "torchcam")
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "load": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown",
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
    }


def describe(facts: dict[str, str], seed: int) -> str:
    """The same as a line."""
    return ", ".join(f"{name} {value}" for name, value in facts.items()) + f", seed {seed}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def sayer(out: Path | None) -> Any:  # noqa: ANN401
    """Print, and keep a copy in OUT.md."""
    if out is None:
        return lambda text: print(text, flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    page = out.with_suffix(".md")
    page.write_text("", encoding="utf-8")

    def say(text: str) -> None:
        print(text, flush=True)
        with page.open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    return say


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--workload", nargs="+", choices=["a", "b", "c"], default=["a", "b", "c"])
    parser.add_argument("--batch", nargs="+", type=int, help="pictures at once (default: a 1 8, b 1 8 32, c 1 8)")
    parser.add_argument("--targets", nargs="+", type=int, help="only cases with so many targets a picture")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--measure", nargs="*", choices=["time", "memory"], default=["time", "memory"])
    parser.add_argument("--repeats", type=int, default=20, help="rounds; slow methods take part in fewer")
    add_options(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
