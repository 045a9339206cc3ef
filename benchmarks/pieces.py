"""A dump and its pieces, each ready to be run alone: what `bench_dump` measures."""

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.workloads import Case, Size, Workload, build
from captioning import CaptioningTask
from mmcam.dumps.dump import dump
from mmcam.dumps.folder import Folder
from mmcam.dumps.loading import Loading, read
from mmcam.dumps.merge import merge
from mmcam.dumps.plan import MAPS, Plan, Settings, make_plan, part_name
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
