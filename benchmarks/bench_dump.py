"""Dump pictures from end to end, beside the trunk alone, and see where the time goes.

    python benchmarks/bench_dump.py --threads 2 --out runs/bench/dump
    python benchmarks/bench_dump.py --device cuda --amp --workers 16 --batch 64 --images 8192 --part-size 8192
    python benchmarks/bench_dump.py --rows 100000

Show and Tell with ResNet-101 and 9,568 words explains captions of 12 words. The trunk alone sees the same pictures as
tensors, on the same device, in the same batches and the same precision. With --rows: bytes a row on the disk for maps
of 14 x 14, and the memory that a dump of so many rows takes beside a tenth of them.
"""

import argparse
import csv
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.bench_engine import describe, machine, sayer
from benchmarks.measure import prepare, timed
from benchmarks.rows import Weight, weigh
from benchmarks.workloads import FULL, TINY, Case, Size, Workload, build
from captioning import CaptioningTask
from mmcam.dumps.dump import dump
from mmcam.dumps.folder import Folder
from mmcam.dumps.loading import Loading, read
from mmcam.dumps.merge import merge
from mmcam.dumps.plan import MAPS, Plan, Settings, make_plan, part_name
from mmcam.dumps.reader import MapReader
from mmcam.dumps.store import MapWriter
from mmcam.engine import explain_activations
from mmcam.explanation import Explanation
from mmcam.sources import Files
from mmcam.task import Batch, Targets

DISTINCT = 256
"""Pictures that are made; a longer list has them again under other names."""
HELD = 8
"""Batches of tensors that the trunk alone goes through in turn."""
PIECES = ("decode", "trunk", "head", "write")


@dataclass(frozen=True, eq=False)
class Bench:
    """What is measured.

    Attributes:
        work: The model, with one batch for the clock.
        source: The pictures and their captions.
        plan: What is dumped of them.
        loading: How they are read.
        batches: Some of them as tensors, on the device.
        activations: Their trunk passes.
        explanations: Of all pictures, batch by batch, with the ids of their rows.
        place: A temporary folder.
    """

    work: Workload
    source: Files
    plan: Plan
    loading: Loading
    batches: list[Batch]
    activations: list[Tensor]
    explanations: list[tuple[list[Explanation], list[list[int]]]]
    place: Path

    @property
    def task(self) -> CaptioningTask:
        """The captioner."""
        return cast(CaptioningTask, self.work.task)

    @property
    def steps(self) -> list[range]:
        """The pictures of each batch; a part ends its last one."""
        size = self.loading.batch_size
        return [range(n[i], n[min(i + size, len(n)) - 1] + 1) for n in self.plan.parts for i in range(0, len(n), size)]

    def decode(self) -> None:
        """Read all pictures in this process, on one thread, as a worker does."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        for numbers in self.steps:
            self.task.collate([self.source.sample(number) for number in numbers])
        torch.set_num_threads(threads)

    def reading(self) -> None:
        """Read all pictures as the dump does, with its workers, and bring them to the device."""
        for numbers in self.plan.parts:
            for loaded in read(self.source, self.task, numbers, self.loading, with_given=True):
                del loaded

    def trunk(self) -> Tensor:
        """The trunk alone, on tensors that are there."""
        activations = self.activations[0]
        for step in range(len(self.steps)):
            activations = trunk(self, self.batches[step % len(self.batches)])
        return activations.sum().cpu()

    def head(self) -> None:
        """Targets, gradients and maps, on activations that are there."""
        for step, numbers in enumerate(self.steps):
            which = step % len(self.batches)
            explained(self, numbers, self.batches[which], self.activations[which])

    def write(self) -> None:
        """Write all parts and the one file, from explanations that are there."""
        out, left = self.place / "written", list(self.explanations)
        paths = [out / part_name(number) for number in range(len(self.plan.parts))]
        for numbers, path in zip(self.plan.parts, paths, strict=True):
            with MapWriter(path, config={}, layer=self.task.layer, checksum=True) as maps:
                for _ in range(0, len(numbers), self.loading.batch_size):
                    maps.append(*left.pop(0))
        merge(paths, out / MAPS)

    def dump(self) -> None:
        """All of it."""
        everything = range(len(self.plan.parts))
        dump(Folder(self.place / "dumped"), self.task, self.source, self.plan, everything, self.loading)


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


def prepared(place: Path, size: Size, options: argparse.Namespace) -> Bench:
    """Make the pictures and the model, and do each piece's work once, so that the others can start from it.

    Args:
        place: A temporary folder.
        size: How large the model is.
        options: Of the command line.
    """
    work = build(Case("b", options.batch, size.caption), size, options.seed, options.device)
    task = cast(CaptioningTask, work.task)
    task.model.backbone.size, task.length = (size.picture, size.picture), size.caption
    source = Files(str(pictures(place, size, options.images, options.seed)))
    settings = Settings(targets=options.targets, amp=options.amp, part_size=options.part_size)
    plan = make_plan(Folder(place / "planned"), task, source, settings, config={}, data={})
    bench = Bench(work, source, plan, Loading(options.batch, options.workers), [], [], [], place)
    whole = [numbers for numbers in bench.steps if len(numbers) == options.batch] or bench.steps
    for numbers in whole[:HELD]:
        batch = task.collate([source.sample(number) for number in numbers]).to(options.device)
        bench.batches.append(batch)
        bench.activations.append(trunk(bench, batch))
    for step, numbers in enumerate(bench.steps):
        which = step % len(bench.batches)
        bench.explanations.append(explained(bench, numbers, bench.batches[which], bench.activations[which]))
    return bench


def pictures(place: Path, size: Size, count: int, seed: int) -> Path:
    """Make photographs' like: smooth colours with some grain, 480 x 640, JPEG; and a list with a caption for each.

    Args:
        place: Where.
        size: Says how long captions are, and of how many words.
        count: Length of the list.
        seed: Of everything.

    Returns:
        The list.
    """
    random = np.random.default_rng(seed)
    for number in range(min(count, DISTINCT)):
        colours = Image.fromarray(random.integers(0, 256, (30, 40, 3), np.uint8)).resize((640, 480))
        grain = random.normal(0, 8, (480, 640, 1))
        pixels = (np.asarray(colours) + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.jpg", quality=90)
    path = place / "list.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["path", "id", "given"])
        for number in range(count):
            words = random.integers(0, size.vocabulary - 4, size.caption)  # four are no words, but marks
            lines.writerow([f"{number % DISTINCT}.jpg", str(number), " ".join(f"w{word}" for word in words)])
    return path


def trunk(bench: Bench, batch: Batch) -> Tensor:
    """A trunk pass, as the dump does it."""
    kind = bench.task.device.type
    with torch.no_grad(), torch.autocast(kind, torch.bfloat16, enabled=bench.plan.settings.amp):
        return bench.task.trunk(batch).to(batch.images.dtype)


def explained(
    bench: Bench, numbers: Sequence[int], batch: Batch, activations: Tensor
) -> tuple[list[Explanation], list[list[int]]]:
    """The maps of a batch under the names of other pictures, and the ids of their rows."""
    if len(numbers) < len(batch):
        chosen = torch.arange(len(numbers), device=activations.device)
        batch, activations = batch.take(chosen), activations[chosen]
    with torch.no_grad():
        targets: Targets = (
            bench.task.predict(activations, batch)
            if bench.plan.settings.targets == "predicted"
            else bench.task.given([bench.source.given(number)[0] for number in numbers], batch)
        )
    maps = explain_activations(bench.task, activations, batch, targets)
    ids = [bench.source.ids[number] for number in numbers]
    return [replace(one, id=name) for one, name in zip(maps, ids, strict=True)], targets.row_ids()


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
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=0, metavar="N", help="measure size and memory of N rows instead")
    parser.add_argument("--quick", action="store_true", help="tiny models: to see whether it works, not for figures")
    parser.add_argument("--out", type=Path, help="write OUT.md and OUT.json")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
