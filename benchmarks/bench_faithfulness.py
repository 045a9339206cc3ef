"""Deletion and insertion curves of all words of a caption: all pictures in batches against a loop over words and steps.

    python -m benchmarks.bench_faithfulness --threads 1 --repeats 3 --out runs/bench/faithfulness

Both ask the same task about the same pictures; the curves are compared first, and only what is right is timed. With the
trunk in bfloat16 (a task may do so; the head stays in float32) the tolerance is wider; it is printed.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.bench_engine import describe, machine, sayer
from benchmarks.measure import add_options, prepare, timed
from benchmarks.workloads import FULL, TINY, Case, Workload, build
from mmcam import explain
from mmcam.metrics.curves import blur, deletion, insertion
from mmcam.metrics.perturb import on_input
from mmcam.task import Batch, Task

TOLERANCE = 1e-3
"""Largest deviation from the loop in float32, of a log-probability, as a share of what the widest curve spans."""

ROUGH = 0.1
"""The same with a trunk in bfloat16: the curves of random weights span little, and areas are what one takes of them."""


@dataclass(frozen=True)
class Way:
    """One way to the curves (2, words, steps + 1) of scores.

    Attributes:
        run: Computes them.
        tolerance: How far they may be from those of the loop.
    """

    run: Callable[[Workload], Tensor]
    tolerance: float


def ways(steps: int, chunk: int) -> dict[str, Way]:
    """All ways, by name."""

    def batched(work: Workload, maps: Tensor | None = None) -> Tensor:
        maps = saliency(work) if maps is None else maps
        arguments = work.task, work.batch, work.targets, maps, steps
        curves = deletion(*arguments, chunk=chunk), insertion(*arguments, chunk=chunk)
        return torch.stack([curve.scores[0] for curve in curves]).float().cpu()

    def rough(work: Workload) -> Tensor:
        maps = saliency(work)
        with half_trunk(work.task):
            return batched(work, maps)

    return {
        "loop": Way(lambda work: looped(work, steps), 0.0),
        "batched": Way(batched, TOLERANCE),
        "batched, trunk in bfloat16": Way(rough, ROUGH),
    }


def saliency(work: Workload) -> Tensor:
    """Grad-CAM before ReLU, so that no two pixels are alike; a small part of the time, the same for all ways."""
    return torch.stack([explanation.signed for explanation in explain(work.task, work.batch, work.targets)])


@contextmanager
def half_trunk(task: Task) -> Iterator[None]:
    """Let the trunk run in bfloat16 for the length of a block; its activations are float32 again."""

    def trunk(batch: Batch) -> Tensor:
        with torch.autocast(task.device.type, torch.bfloat16):
            return type(task).trunk(task, batch).float()

    task.trunk = trunk
    try:
        yield
    finally:
        del task.trunk


@torch.no_grad()
def looped(work: Workload, steps: int) -> Tensor:
    """Word by word, step by step, as one would write it: each picture goes through trunk and head alone.

    The score of the word is read off the scores of all words, which teacher forcing gives at once; the probability is
    its exponential.
    """
    task, batch, targets = work.task, work.batch, work.targets
    picture, maps = batch.images[0], on_input(saliency(work), batch)[0]
    blank, soft = torch.zeros_like(picture), blur(batch.images)[0]
    curves = []
    for before, after in ((picture, blank), (soft, picture)):
        for r, large in enumerate(maps):
            pixels = large.flatten().argsort(descending=True, stable=True)
            changed, done, curve = before.clone().flatten(1), 0, []
            for step in range(steps + 1):
                until = round(step * len(pixels) / steps)
                changed[:, pixels[done:until]] = after.flatten(1)[:, pixels[done:until]]
                done = until
                one = replace(batch, images=changed.view_as(picture)[None], memo={})
                score = task.scores(task.trunk(one), one, targets)[0, r]
                curve.append((score, score.exp()))
            curves.append(torch.stack([score for score, _ in curve]))
    return torch.stack(curves).unflatten(0, (2, -1)).cpu()


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark.

    Args:
        arguments: Of the command line.

    Returns:
        1 if any curves differ from the loop's, 0 otherwise.
    """
    options = _parse(arguments)
    size = TINY if options.quick else replace(FULL, captioner=options.cnn, picture=options.picture)
    prepare(options.threads)
    say = sayer(options.out)
    facts = machine(options.device)
    work = build(Case("b", 1, options.words or size.caption), size, options.seed, options.device)
    work.task.to(memory_format=torch.channels_last)  # the better one for batches, and no worse for the loop
    for way in ways(1, options.chunk).values():
        way.run(work)  # the first call of all is slow
    chosen = ways(options.steps, options.chunk)
    chosen = {name: way for name, way in chosen.items() if name in ("loop", *options.ways)}
    say(describe(facts, options.seed))
    words = work.targets.rows.shape[1]
    alone, together = 2 * words * (options.steps + 1), 2 * words * (options.steps - 1) + 4
    say(
        f"\n{words} words, {options.steps} steps, {size.picture} pixels, Show and Tell on {size.captioner}, "
        f"batches of {options.chunk}; pictures: {alone} in the loop, {together} in batches\n"
    )
    rows = measure(work, chosen, options.repeats, options.seed)
    say(table(rows, chosen))
    if options.out:
        report = {"machine": facts, "options": {k: str(v) for k, v in vars(options).items()}, "rows": rows}
        options.out.with_suffix(".json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    return int(any(row["deviation"] > chosen[row["way"]].tolerance for row in rows))


def measure(work: Workload, chosen: dict[str, Way], repeats: int, seed: int) -> list[dict[str, Any]]:
    """Compare the curves, then time what is right, all ways in a new random order every round.

    The calls that compare do not count unless there is to be one round only.
    """
    first = {name: timed(way.run, work) for name, way in chosen.items()}
    expected = first["loop"][1]
    span = (expected.amax(2) - expected.amin(2)).max()  # random weights have words that no picture moves
    off = {name: float((curves - expected).abs().max() / span) for name, (_, curves) in first.items()}
    right = [name for name, way in chosen.items() if off[name] <= way.tolerance]
    random, seconds = Random(seed), {name: [first[name][0]] for name in right}
    if repeats > 1:
        seconds = {name: [] for name in right}
        for _ in range(repeats):
            for name in random.sample(right, len(right)):
                seconds[name].append(timed(chosen[name].run, work)[0])
    rows: list[dict[str, Any]] = []
    for name, (_, curves) in first.items():
        areas = (torch.trapezoid(curves - expected, dx=1 / (curves.shape[2] - 1), dim=2).abs() / span).max()
        row = {"way": name, "deviation": off[name], "areas": float(areas)}
        if name in seconds:
            ratios = [loop / own for loop, own in zip(seconds["loop"], seconds[name], strict=True)]
            row |= {"seconds": seconds[name], "ratios": ratios}
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]], chosen: dict[str, Way]) -> str:
    """Write a Markdown table."""
    lines = [
        "| way | curves differ by (of their span) | allowed | their areas by | runs | seconds | times faster |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        tolerance = chosen[row["way"]].tolerance
        wrong = " **wrong**" if row["deviation"] > tolerance else ""
        runs = seconds = ratio = ""
        if "seconds" in row:
            low, middle, high = np.quantile(row["ratios"], [0.25, 0.5, 0.75]).tolist()
            runs, seconds = str(len(row["seconds"])), f"{statistics.median(row['seconds']):.3g}"
            ratio = f"{middle:.3g} ({low:.3g} to {high:.3g})"
        lines.append(
            f"| {row['way']} | {row['deviation']:.1e}{wrong} | {tolerance:g} | {row['areas']:.1e} "
            f"| {runs} | {seconds} | {ratio} |"
        )
    return "\n".join(lines)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--cnn", default="resnet50", help="of torchvision")
    parser.add_argument("--picture", type=int, default=224, help="height and width in pixels")
    parser.add_argument("--words", type=int, help="of the caption (default: 12)")
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--chunk", type=int, default=8, help="pictures at once")
    parser.add_argument("--ways", nargs="+", default=["batched", "batched, trunk in bfloat16"], help="besides the loop")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; 1 counts the calls that compare")
    add_options(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
