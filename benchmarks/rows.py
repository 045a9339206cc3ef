"""Many rows out of nothing: what one weighs on the disk, and how much memory a long dump takes."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from benchmarks.measure import peak, prepare
from mmcam.dumps.dump import dump
from mmcam.dumps.folder import Folder
from mmcam.dumps.loading import Loading
from mmcam.dumps.plan import MAPS, Settings, make_plan
from mmcam.dumps.schema import dataset, names
from mmcam.sources import Source
from mmcam.task import Batch, Sample, Targets, Task

SIDE = 14
WORDS = 10
CHANNELS = 8


@dataclass(frozen=True)
class Weight:
    """What a dump of so many rows took.

    Attributes:
        rows: Maps in the file.
        packed: Bytes a row on the disk, the whole file counted.
        plain: The same if nothing were compressed.
        peak: Bytes of memory that the process grew by at the worst moment.
    """

    rows: int
    packed: float
    plain: float
    peak: int


class Blots(Source):
    """Small smooth pictures out of their numbers."""

    def __init__(self, count: int) -> None:
        self.ids = [f"blot-{number}" for number in range(count)]

    def sample(self, number: int) -> Sample:
        """Four by four random colours, made larger."""
        colours = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
        return Sample(Image.fromarray(colours).resize((SIDE, SIDE), Image.Resampling.BICUBIC), self.ids[number])


class Words(Task):
    """Ten words, each with a score of its own out of eight channels: smooth maps, about half of them zero."""

    layer = "mix"

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, CHANNELS, 1)
        self.readout = nn.Linear(CHANNELS, WORDS)

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Pixels from -1 to 1."""
        pixels = np.stack([np.asarray(sample.image, np.float32) for sample in samples])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
        return Batch(images, tuple(sample.id for sample in samples), ((SIDE, SIDE),) * len(samples))

    def trunk(self, batch: Batch) -> Float[Tensor, "b k h w"]:
        """Mixed colours."""
        return self.mix(batch.images)

    def predict(self, activations: Float[Tensor, "b k h w"], batch: Batch) -> Targets:
        """All words."""
        words = [f"word{t}" for t in range(WORDS)]
        return Targets.of([range(WORDS)] * len(batch), [words] * len(batch), activations.device)

    def scores(self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets) -> Float[Tensor, "b t"]:
        """Linear in the mean activations."""
        return targets.pick(self.readout(activations.mean((2, 3))))


def weigh(rows: Sequence[int], threads: int) -> list[Weight]:
    """Dump so many rows, each time in a fresh process.

    Args:
        rows: How many maps, rounded up to whole pictures.
        threads: Of torch.

    Returns:
        What each dump took.
    """
    found = []
    for count in rows:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found.append(pool.submit(_alone, -(-count // WORDS), threads).result())
    return found


def _alone(pictures: int, threads: int) -> Weight:
    """What the child does: warm up on some pictures, then measure."""
    prepare(threads)
    torch.manual_seed(0)
    task = Words().eval()
    with TemporaryDirectory() as place:
        _dump(task, 64, Path(place) / "warm")
        most = peak(lambda: _dump(task, pictures, Path(place) / "out"), "cpu")
        with h5py.File(Path(place) / "out" / MAPS) as file:
            sets = [dataset(file, name) for name in names(file)]
            saved = sum(one.nbytes - one.id.get_storage_size() for one in sets if one.compression)
            size, count = (Path(place) / "out" / MAPS).stat().st_size, len(dataset(file, "scores"))
    return Weight(count, size / count, (size + saved) / count, most)


def _dump(task: Task, pictures: int, out: Path) -> None:
    """In this process alone, so that all memory is counted."""
    source, folder = Blots(pictures), Folder(out)
    plan = make_plan(folder, task, source, Settings(), config={}, data={})
    dump(folder, task, source, plan, range(len(plan.parts)), Loading(batch_size=64, workers=0))
