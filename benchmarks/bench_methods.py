"""Compare each method with the peers that have it, for one target and for twelve: first the maps, then time.

    python -m benchmarks.bench_methods --threads 1 --targets 1 12 --out runs/bench/methods

One picture, a ResNet with random weights, its last convolutions. A peer's figure is its time over ours in the same
round, so more than 1 is good for us. Of methods that go backwards through the trunk once a target the table says what
sharing the forward can give at most. See benchmarks/README.md.
"""

import argparse
import gc
import json
import statistics
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.bench_engine import describe, machine, sayer
from benchmarks.measure import TOLERANCE, add_options, prepare, timed
from benchmarks.pairs import PAIRS, Pair
from benchmarks.peers import Peer
from benchmarks.workloads import FULL, TINY, Case, Size, Workload, build

THROUGH_THE_TRUNK = ("gradient", "guided_backprop", "deconvnet", "guided_grad_cam", "integrated_gradients")
"""Methods whose every target needs a backward of its own down to the pixels."""

PATIENCE = 20.0
"""Seconds that all rounds of one way may take; a call of more than half of it is not repeated."""

Row = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark.

    Args:
        arguments: Of the command line.

    Returns:
        1 if some peer's maps differ from ours where they are not known to be others, 0 otherwise.
    """
    options = _parse(arguments)
    prepare(options.threads)
    warnings.filterwarnings("ignore", module=r"captum|torch\.nn|pytorch_grad_cam")
    gc.freeze()  # the collections between runs pass over what the libraries hold, which takes them half a second
    try:
        rows = _cases(options)
    finally:
        gc.unfreeze()
    return int(any(row["deviation"] > TOLERANCE and not _known(row) for row in rows))


def _cases(options: argparse.Namespace) -> list[Row]:
    """Measure everything that was asked for, and write it down as it comes."""
    size = _size(options)
    facts = machine(options.device) | {"model": size.classifier, "picture": f"{size.picture} px"}
    report: dict[str, Any] = {"machine": facts, "seed": options.seed, "repeats": options.repeats, "cases": []}
    say = sayer(options.out)
    say(describe(facts, options.seed))
    for targets in options.targets:
        case: Row = {"targets": targets, "rows": []}
        report["cases"].append(case)
        work = workload(targets, size, options.seed, options.device)
        case |= _limit(work, options.repeats)
        say(_heading(case))
        for name in options.methods:
            rows = measure(name, work, options.repeats, options.seed)
            case["rows"] += rows
            say("\n".join(map(_line, rows)))
            if options.out:
                options.out.with_suffix(".json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    return [row for case in report["cases"] for row in case["rows"]]


def workload(targets: int, size: Size, seed: int, device: str) -> Workload:
    """A classifier of random weights, and one random picture.

    Args:
        targets: Classes that are explained.
        size: Says which ResNet and how large the picture is.
        seed: Of everything random.
        device: Where.

    Returns:
        The workload.
    """
    return build(Case("a", 1, targets), size, seed, device)


@contextmanager
def enlarged(work: Workload, factor: float) -> Iterator[None]:
    """Multiply the weights of the last layer for the length of a block.

    Args:
        work: The workload.
        factor: By which.
    """
    last = next(iter(work.head.parameters()))
    before = last.detach().clone()
    with torch.no_grad():
        last.mul_(factor)
    try:
        yield
    finally:
        with torch.no_grad():
            last.copy_(before)


def measure(method: str, work: Workload, repeats: int, seed: int) -> list[Row]:
    """Compare the maps of one method, then time ours and the peers whose maps are right in turn.

    Args:
        method: Name in `PAIRS`.
        work: What is explained.
        repeats: Rounds; slow ways take part in fewer.
        seed: Of their order.

    Returns:
        One row a peer.
    """
    with enlarged(work, PAIRS[method].weights):
        return _measure(method, work, repeats, seed)


def _measure(method: str, work: Workload, repeats: int, seed: int) -> list[Row]:
    """`measure` with the weights as they shall be."""
    pair, found = PAIRS[method], {}
    pair.ours(work)  # what is learnt once a model is learnt now
    first = {"ours": timed(pair.ours, work)}
    for name, peer in pair.peers.items():
        if len(work.columns[0]) > 1 or not name.endswith("one batch"):
            first[name] = timed(peer.run, work)
            found[name] = deviation(pair, peer, first["ours"][1], first[name][1], work)
    right = [name for name, off in found.items() if off <= TOLERANCE]
    times = _interleaved(pair, {name: first[name][0] for name in ("ours", *right)}, work, repeats, seed)
    rows = []
    for name, off in found.items():
        row: Row = {"method": method, "peer": name, "deviation": off, "targets": work.columns.shape[1]}
        if name in right:
            ratios = [theirs / mine for mine, theirs in zip(times["ours"], times[name], strict=False)]
            row |= {"ours": times["ours"], "seconds": times[name], "ratios": ratios}
            row["quartiles"] = np.quantile(ratios, [0.25, 0.5, 0.75]).tolist()
        rows.append(row)
    return rows


def deviation(pair: Pair, peer: Peer, mine: Tensor, theirs: Tensor, work: Workload) -> float:
    """How far a peer's maps are from ours, relative to the largest value of each.

    Args:
        pair: Says whether the sign is free.
        peer: Says what it would make of ours.
        mine: Ours.
        theirs: The peer's.
        work: What was explained.

    Returns:
        The largest deviation of all targets.
    """
    signs = (1, -1) if pair.either else (1,)
    offs = []
    for sign in signs:
        expected = peer.like(sign * mine, work)
        if expected.shape != theirs.shape:
            raise ValueError(f"expected maps {tuple(expected.shape)}, got {tuple(theirs.shape)}")
        raw = mine if expected.shape == mine.shape else expected  # rectified maps may be all zero
        scale = raw.abs().flatten(1).amax(1).clamp(min=torch.finfo(torch.float32).tiny)
        offs.append((theirs - expected).abs().flatten(1).amax(1) / scale)
    return float(torch.stack(offs).amin(0).max())


def _interleaved(
    pair: Pair, first: dict[str, float], work: Workload, repeats: int, seed: int
) -> dict[str, list[float]]:
    """Seconds of each way, in a new random order every round; ways that are slow keep their first call."""
    random = Random(seed)
    slowest = max(first.values())
    rounds = 0 if slowest > PATIENCE / 2 else min(repeats, max(2, int(PATIENCE / slowest)))
    runs = {name: pair.ours if name == "ours" else pair.peers[name].run for name in first}
    seconds: dict[str, list[float]] = {name: [] for name in first}
    for _ in range(rounds):
        order = list(runs)
        random.shuffle(order)
        for name in order:
            seconds[name].append(timed(runs[name], work)[0])
    return seconds if rounds else {name: [value] for name, value in first.items()}


def _limit(work: Workload, repeats: int) -> Row:
    """What a forward with a graph (F) and a backward to the pixels (B) take; sharing F gives t (F + B) / (F + t B)."""

    def both(work: Workload) -> Tensor:
        images = work.batch.images.clone().requires_grad_()
        y = work.whole(images)[0, int(work.columns[0, 0])]
        return torch.autograd.grad(y, images)[0].cpu()

    def forward(work: Workload) -> Tensor:
        return work.whole(work.batch.images.clone().requires_grad_())[0, 0].detach().cpu()

    both(work)
    pairs = [(timed(forward, work)[0], timed(both, work)[0]) for _ in range(repeats)]
    f, whole = (statistics.median(column) for column in zip(*pairs, strict=True))
    t = work.columns.shape[1]
    return {"forward": f, "backward": whole - f, "limit": t * whole / (f + t * (whole - f))}


def _heading(case: Row) -> str:
    return (
        f"\n### {case['targets']} target{'s' if case['targets'] > 1 else ''}\n\n"
        f"Forward with a graph {case['forward']:.3g} s, backward to the pixels {case['backward']:.3g} s: where each "
        f"target goes backwards through the trunk, sharing the forward gives at most {case['limit']:.2f} ×.\n\n"
        "| method | peer | maps differ by | ours, s | peer, s | peer ÷ ours (quartiles) | runs |\n"
        "|---|---|---:|---:|---:|---:|---:|"
    )


def _line(row: Row) -> str:
    method = row["method"] + (" †" if row["method"] in THROUGH_THE_TRUNK else "")
    cells = [method, row["peer"], f"{row['deviation']:.0e}"]
    if "ratios" not in row:
        return f"| {' | '.join(cells)} **other maps** | | | | |"
    low, middle, high = row["quartiles"]
    spread = f" ({low:.3g} to {high:.3g})" if len(row["ratios"]) > 1 else ""
    cells += [f"{statistics.median(row[name]):.3g}" for name in ("ours", "seconds")]
    return f"| {' | '.join([*cells, f'{middle:.3g}{spread}', str(len(row['ratios']))])} |"


def _known(row: Row) -> bool:
    """Whether it is known that this peer makes other maps: torchcam never divides in Grad-CAM++."""
    return (row["method"], row["peer"]) == ("grad_cam_plus_plus", "torchcam")


def _size(options: argparse.Namespace) -> Size:
    size = TINY if options.quick else FULL
    given = {"classifier": options.model, "picture": options.size}
    return replace(size, **{name: value for name, value in given.items() if value is not None})


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--methods", nargs="+", choices=list(PAIRS), default=list(PAIRS), metavar="METHOD")
    parser.add_argument("--targets", nargs="+", type=int, default=[1, 12], help="classes of the picture")
    parser.add_argument("--model", help="a ResNet of torchvision (default: resnet50)")
    parser.add_argument("--size", type=int, help="of the picture in pixels (default: 224)")
    parser.add_argument("--repeats", type=int, default=9, help="rounds; slow methods take part in fewer")
    add_options(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
