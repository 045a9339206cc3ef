"""A run: numbered samples with their explanations by every method, read from a dump or made on the spot."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from mmcam.dumps.reader import MapReader
from mmcam.engine import explain_activations
from mmcam.errors import UserError
from mmcam.explanation import Explanation
from mmcam.metrics.perturb import scores
from mmcam.sources import Source
from mmcam.task import Batch, Targets, Task

__all__ = ["Explained", "dumped", "explain_batch", "explained", "said_again"]


@dataclass(frozen=True, eq=False)
class Explained:
    """Some samples, what a task made of them, and their maps.

    Attributes:
        numbers: Of the samples in their source.
        batch: The samples.
        activations: A of the explained layer.
        targets: What is explained.
        explanations: For each sample its explanations by method.
    """

    numbers: tuple[int, ...]
    batch: Batch
    activations: Float[Tensor, "b k h w"]
    targets: Targets
    explanations: tuple[dict[str, Explanation], ...]

    def first(self, count: int) -> "Explained":
        """The first of the samples."""
        if count >= len(self.numbers):
            return self
        index = torch.arange(count)
        batch, targets = self.batch.take(index), self.targets.take(index)
        return Explained(self.numbers[:count], batch, self.activations[index], targets, self.explanations[:count])


def explained(
    task: Task,
    source: Source,
    methods: Sequence[str],
    *,
    given: bool = False,
    limit: int | None = None,
    batch_size: int = 16,
) -> Iterator[Explained]:
    """Explain a source, all methods from one trunk pass.

    Args:
        task: In eval mode.
        source: The samples.
        methods: Names of methods; the first is the one under test.
        given: Explain what the source gives (its first caption, its answer, its classes) and not what the task says;
            samples with nothing given are passed over.
        limit: Only the first samples.
        batch_size: Samples at a time.

    Yields:
        Some samples at a time.
    """
    count = len(source) if limit is None else min(limit, len(source))
    wanted = [number for number in range(count) if not given or source.given(number)]
    if not wanted:
        raise UserError("expected samples to explain, the data have none" + (" with texts given" if given else ""))
    with tqdm(total=len(wanted), desc="evaluate", unit="img", mininterval=5) as bar:
        for start in range(0, len(wanted), batch_size):
            numbers = tuple(wanted[start : start + batch_size])
            batch = task.collate([source.sample(number) for number in numbers]).to(task.device)
            texts = [source.given(number)[0] for number in numbers] if given else None
            yield explain_batch(task, batch, methods, numbers, texts)
            bar.update(len(numbers))


def explain_batch(
    task: Task, batch: Batch, methods: Sequence[str], numbers: Sequence[int], texts: Sequence[str] | None = None
) -> Explained:
    """Explain samples by every method from one trunk pass.

    Args:
        task: In eval mode.
        batch: The samples, on the task's device.
        methods: Names of methods.
        numbers: Of the samples.
        texts: What to explain; what the task says if not given.
    """
    with torch.no_grad():
        activations = task.trunk(batch)
        targets = task.predict(activations, batch) if texts is None else task.given(texts, batch)
    by_method = {name: explain_activations(task, activations, batch, targets, name) for name in methods}
    explanations = tuple({name: found[i] for name, found in by_method.items()} for i in range(len(batch)))
    return Explained(tuple(numbers), batch, activations, targets.to(task.device), explanations)


def said_again(task: Task, source: Source, some: Sequence[tuple[int, dict[str, Explanation]]]) -> Explained:
    """Put dumped samples through their task again, for the metrics that ask the model.

    Args:
        task: That of the dump.
        source: That of the dump.
        some: Numbers and explanations.

    Raises:
        UserError: The task does not read the dumped words as the same words, or scores them otherwise: they stood in
            another sentence.
    """
    batch = task.collate([source.sample(number) for number, _ in some]).to(task.device)
    words = [next(iter(found.values())).words for _, found in some]
    targets = task.given([task.separator.join(row) for row in words], batch)
    if targets.words != tuple(words):
        odd = next(i for i, row in enumerate(words) if targets.words[i] != row)
        raise UserError(f"{batch.ids[odd]}: expected the words {words[odd]}, got {targets.words[odd]}; dump again")
    with torch.no_grad():
        activations = task.trunk(batch)
        again = scores(task, activations, batch, targets.to(task.device)).cpu()
    for i, (_, found) in enumerate(some):
        before = next(iter(found.values())).scores
        if not torch.allclose(again[i, : len(before)], before, rtol=0.02, atol=0.05, equal_nan=True):
            raise UserError(
                f"{batch.ids[i]}: expected the scores of the dump, got others; its words stood in another text"
            )
    numbers = tuple(number for number, _ in some)
    return Explained(numbers, batch, activations, targets.to(task.device), tuple(found for _, found in some))


def dumped(
    path: Path,
    source: Source,
    methods: Sequence[str] = (),
    limit: int | None = None,
    given: bool | None = None,
) -> Iterator[tuple[int, dict[str, Explanation]]]:
    """Read a dump's explanations with the numbers of their samples.

    Args:
        path: The file, or the folder of a dump.
        source: That of the dump.
        methods: Which; all of the file if none is named.
        limit: Only the first samples of the file; all texts that people gave of one count as one.
        given: Of a dump of both, read what people gave, or what the model said; everything if not given.

    Yields:
        A sample's number and its explanations by method.

    Raises:
        UserError: A picture of the dump is not in the source.
    """
    numbers = {name: number for number, name in enumerate(source.ids)}
    with MapReader(path) as first:
        chosen = tuple(methods) or first.methods
        found = {name: name if name in numbers else name.rpartition(":given")[0] for name in first.ids}
    if given is not None:
        found = {identity: name for identity, name in found.items() if (identity != name) is given}
    samples = set(list(dict.fromkeys(found.values()))[:limit])
    ids = [identity for identity, name in found.items() if name in samples]
    readers = {name: MapReader(path, name) for name in chosen}
    try:
        for identity in tqdm(ids, desc="evaluate", unit="img", mininterval=5):
            if found[identity] not in numbers:
                raise UserError(f"{path}: {identity!r} is not in the data; name the data of the dump with --data")
            yield numbers[found[identity]], {method: reader[identity] for method, reader in readers.items()}
    finally:
        for reader in readers.values():
            reader.close()
