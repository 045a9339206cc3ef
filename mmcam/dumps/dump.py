"""Explaining a whole data set, in parts that are done or not done.

    <out>/dump.json                      the plan, see `mmcam.dumps.plan`
    <out>/parts/part-00000.h5            a finished part, see `mmcam.dumps.schema`
    <out>/parts/part-00000.h5.sha256     its checksum, for `sha256sum -c`
    <out>/maps.h5, maps.h5.sha256        all parts in one file, once all are finished

A part appears when it is on the disk, so a process may be killed at any moment: the same call goes on with the parts
that are missing or damaged. Parts depend on the plan alone, so it does not matter who makes them, or how often.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.dumps.folder import Folder
from mmcam.dumps.loading import Loaded, Loading, is_out_of_memory, read
from mmcam.dumps.lock import alone
from mmcam.dumps.merge import merge
from mmcam.dumps.plan import MAPS, Plan, Settings, part_name
from mmcam.dumps.store import MapWriter
from mmcam.engine import check, explain_activations
from mmcam.errors import UserError
from mmcam.explanation import Explanation
from mmcam.sources import Source
from mmcam.task import Batch, Task

__all__ = ["dump", "dump_part", "finish"]

T = TypeVar("T")
NO_TEXT = "the data give no text to explain; use --targets predicted"
WAITING = 4
"""Batches that may wait to be written; more would only fill the memory."""


def dump_part(
    folder: Folder,
    task: Task,
    source: Source,
    plan: Plan,
    number: int,
    loading: Loading,
    *,
    strict: bool = False,
    tell: Callable[[int, int], None] = lambda done, failed: None,
) -> None:
    """Make one part.

    Args:
        folder: Where the dump is.
        task: Explains.
        source: The samples.
        plan: What is dumped.
        number: Which part.
        loading: How samples are read.
        strict: Stop at the first sample that cannot be explained.
        tell: Called after every batch with the numbers of samples done and failed; may raise `Stopped`.

    Raises:
        UserError: A sample failed and `strict` is set, or all of the first part failed for the same reason.
        Stopped: By `tell`; the part is left undone.
    """
    settings, name = plan.settings, part_name(number)
    path = folder.work() / name
    writer = MapWriter(
        path,
        config={"task": plan.record["task"], "data": plan.record["data"], "settings": plan.record["settings"]},
        layer=task.layer,
        methods=settings.methods,
        weights_sha256=plan.record["weights_sha256"],
        signed=settings.signed,
        weights=settings.weights,
        overwrite=True,
        checksum=True,
    )
    done, explained, reasons = 0, 0, set[str]()
    with writer as maps, _behind() as behind:
        for loaded in read(source, task, plan.parts[number], loading, with_given=settings.targets != "predicted"):
            entries, failures = _explained(task, loaded, settings)
            failures |= {source.ids[sample]: reason for sample, reason in sorted(loaded.failures.items())}
            if failures:
                who, reason = next(iter(failures.items()))
                if strict:
                    raise UserError(f"{who}: {reason} (without --strict this would be noted as a failure)")
                reasons.update(failures.values())
                behind(maps.fail, failures)
            if entries:
                first, *others = ([by_method[m] for by_method, _ in entries] for m in settings.methods)
                behind(
                    maps.append,
                    first,
                    [ids for _, ids in entries],
                    dict(zip(settings.methods[1:], others, strict=True)),
                )
            count = len(loaded.numbers) + len(loaded.failures)
            done, explained = done + count, explained + len(entries)
            tell(count, len(failures))
        if number == 0 and done > 1 and not explained and len(reasons) == 1:
            # Not the pictures but what is wanted of them must be wrong.
            raise UserError(f"none of the first {done} samples can be explained: {reasons.pop()}")
    folder.publish(path, name)


def dump(
    folder: Folder,
    task: Task,
    source: Source,
    plan: Plan,
    left: Sequence[int],
    loading: Loading,
    *,
    strict: bool = False,
    tell: Callable[[int, int], None] = lambda done, failed: None,
) -> bool:
    """Make parts, and one file of all if these were the last.

    Args:
        folder: Where the dump is; `mmcam.dumps.lock.locked` keeps others out.
        task: Explains.
        source: The samples.
        plan: What is dumped.
        left: The parts to make, see `mmcam.dumps.plan.todo`.
        loading: How samples are read.
        strict: As for `dump_part`.
        tell: As for `dump_part`.

    Returns:
        Whether the dump is complete; it is not while other shards have parts to do.
    """
    folder.clean([*map(part_name, left)])
    for number in left:
        dump_part(folder, task, source, plan, number, loading, strict=strict, tell=tell)
    return finish(folder, plan, anew=bool(left))


def finish(folder: Folder, plan: Plan, *, anew: bool) -> bool:
    """Bring the parts together in one file, if all are there.

    Args:
        folder: Where the dump is.
        plan: What it consists of.
        anew: Do it even if there is such a file.

    Returns:
        Whether the dump is complete.
    """
    if any(not folder.exists(part_name(number)) for number in range(len(plan.parts))):
        return False
    if anew or not folder.intact(MAPS):
        with alone(folder):
            folder.clean([MAPS])
            files = [folder.fetch(part_name(number)) for number in range(len(plan.parts))]
            merge(files, folder.work() / MAPS, again=True)
            folder.publish(folder.work() / MAPS, MAPS)
    return True


Entry = tuple[dict[str, Explanation], list[int]]
"""One picture, question or caption: its explanation by every method, and the ids of their rows."""


def _explained(task: Task, loaded: Loaded, settings: Settings) -> tuple[list[Entry], dict[str, str]]:
    """All that is wanted of a batch out of one trunk pass, sample by sample; and what failed, by id."""
    found: list[tuple[int, int, Entry]] = []
    failures: dict[str, str] = {}
    if loaded.batch is None:
        return [], failures
    names, alone = loaded.batch.ids, settings.targets == "given"
    for index, seen in _each(partial(_see, task, loaded.batch, settings), range(len(names))):
        if isinstance(seen, str):
            failures[names[index[0]]] = seen
            continue
        check(seen[1], seen[0], task.layer)
        for turn, texts in enumerate(_turns([loaded.given[i] for i in index], settings.targets)):
            kind = turn + alone  # 0 is the prediction
            for some, entries in _each(partial(_explain, task, *seen, texts, kind, settings), [*texts]):
                if isinstance(entries, str):
                    failures[_name(names[index[some[0]]], kind, alone)] = entries
                else:
                    found += [(index[i], kind, entry) for i, entry in zip(some, entries, strict=True)]
    if alone:
        failures |= {name: NO_TEXT for name, texts in zip(names, loaded.given, strict=True) if not texts}
    return [entry for _, _, entry in sorted(found, key=lambda one: one[:2])], failures


def _see(task: Task, batch: Batch, settings: Settings, index: Sequence[int]) -> tuple[Batch, Tensor]:
    """The trunk pass of some samples of a batch."""
    part = batch if len(index) == len(batch) else batch.take(torch.tensor(index))
    with torch.no_grad(), torch.autocast(task.device.type, torch.bfloat16, enabled=settings.amp):
        return part, task.trunk(part).detach().to(part.images.dtype)


def _turns(given: Sequence[tuple[str, ...]], targets: str) -> Iterator[dict[int, str]]:
    """What is explained one after the other, by sample: the prediction (""), then everybody's texts."""
    if targets != "given":
        yield dict.fromkeys(range(len(given)), "")
    for k in range(max(map(len, given), default=0) if targets != "predicted" else 0):
        yield {i: texts[k] for i, texts in enumerate(given) if len(texts) > k}


def _explain(
    task: Task,
    batch: Batch,
    activations: Float[Tensor, "b k h w"],
    texts: Mapping[int, str],
    kind: int,
    settings: Settings,
    index: Sequence[int],
) -> list[Entry]:
    """Explain some samples' prediction or text by every method."""
    if len(index) < len(batch):
        chosen = torch.tensor(index, device=activations.device)
        batch, activations = batch.take(chosen), activations[chosen]
    with torch.no_grad():
        given = [texts[i] for i in index]
        targets = (task.given(given, batch) if kind else task.predict(activations, batch)).to(activations.device)
    maps = [explain_activations(task, activations, batch, targets, m, settings.weights) for m in settings.methods]
    entries: list[Entry] = []
    for text, ids, *ones in zip(given, targets.row_ids(), *maps, strict=True):
        # A caption that was given is the prompt of its maps; a question stays one.
        name = _name(ones[0].id, kind, settings.targets == "given")
        entries.append(({one.method: replace(one, id=name, prompt=one.prompt or text) for one in ones}, ids))
    return entries


def _name(name: str, kind: int, alone: bool) -> str:
    """Tell apart what the model says (kind 0) and what people gave (the first is 1)."""
    if kind == 0 or (kind == 1 and alone):
        return name
    return f"{name}:given" if kind == 1 else f"{name}:given-{kind}"


def _each(run: Callable[[Sequence[int]], T], index: Sequence[int]) -> Iterator[tuple[Sequence[int], T | str]]:
    """Run for all at once; if that fails, for one after the other, so that only those fail that must."""
    try:
        result: T | str = run(index)
    except (UserError, RuntimeError, MemoryError) as error:
        short = is_out_of_memory(error)
        if not (short or isinstance(error, UserError)):
            raise
        if len(index) > 1:
            for i in index:
                yield from _each(run, [i])
            return
        result = "out of memory; use a smaller picture or another device" if short else str(error)
    if index:
        yield index, result


@contextmanager
def _behind() -> Iterator[Callable[..., None]]:
    """Do calls one after the other in a thread of their own; few may wait, and their errors are raised here."""
    waiting: deque[Future[Any]] = deque()

    def later(call: Callable[..., Any], *arguments: Any) -> None:  # noqa: ANN401
        waiting.append(thread.submit(call, *arguments))
        while len(waiting) > WAITING:
            waiting.popleft().result()

    with ThreadPoolExecutor(1, "writer") as thread:
        yield later
        for one in waiting:
            one.result()
