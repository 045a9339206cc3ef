"""Self-checks on the user's own model and layer: whether the maps that it gets can be trusted, and what they cost.

The mathematics is checked on a copy of the model in float64, where the right answer and a wrong one are ten orders of
magnitude apart; a model that cannot be copied or run in float64 is checked as it is, with wide tolerances.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from mmcam.cost import compare
from mmcam.doctor.case import FAILED, OK, SKIPPED, Case, Check, case_of, double, relative, verdict
from mmcam.doctor.derivatives import batched, cam_identity, finite_differences
from mmcam.engine import explain
from mmcam.errors import UserError
from mmcam.explanation import Explanation
from mmcam.gradients import full_gradients, looped
from mmcam.load import check_weights
from mmcam.task import Batch, Sample, Targets, Task

__all__ = ["FAILED", "OK", "SKIPPED", "Check", "depends_on_layer", "examine"]


def examine(task: Task, samples: Sequence[Sample], texts: Sequence[str] = ()) -> list[Check]:
    """Run every check.

    Args:
        task: The task, on its device; left as found.
        samples: Some pictures, two at least for the checks between samples.
        texts: What to explain, one text a sample, as for `Task.given`; the model's own prediction if there are none.

    Returns:
        The checks in order. After weights, layer or a dead layer have failed, the others are skipped.

    Raises:
        UserError: The samples do not fit the task, such as a missing question.
    """
    try:
        check_weights(task)
    except UserError as error:
        return [Check("finite weights", FAILED, str(error))]
    checks = [Check("finite weights", OK, f"{sum(p.numel() for p in task.parameters()):,} parameters")]
    try:
        case = case_of(task, samples, texts)
    except UserError as error:
        if "layer" not in str(error):
            raise
        return [*checks, Check("layer", FAILED, str(error))]
    checks.append(_layer(case))
    if checks[-1].result == OK:
        checks.append(_dead_layer(case))
    if checks[-1].result != OK:
        return checks
    return [
        *checks,
        Check("batched = looped", *batched(case)),
        Check("finite differences", *finite_differences(case)),
        Check("CAM identity", *cam_identity(case)),
        Check("alone = in a batch", *_alone(case, samples, texts)),
        *_costs(task, samples, case.targets),
    ]


def depends_on_layer(task: Task, batch: Batch, targets: Targets) -> bool:
    """Tell whether any explained score changes with the layer at all, by one plain backward.

    Args:
        task: The task, in eval mode.
        batch: The samples.
        targets: What is explained.

    Returns:
        False if every derivative is zero: then no map says anything.
    """
    batch = replace(batch, memo={}).to(task.device)
    with torch.no_grad():
        activations = task.trunk(batch)
    case = Case(task, batch, activations, targets.to(activations.device), exact=False)
    return bool(full_gradients(case.head, activations, case.targets.rows, looped)[1].any())


def _layer(case: Case) -> Check:
    name = f"layer {case.task.layer}".strip()
    b, k, h, w = case.activations.shape
    words = sum(map(len, case.targets.words))
    shape = f"{k} channels of {h} x {w}; {words} words, answers or classes of {b} pictures"
    if not bool(torch.isfinite(case.activations).all()):
        return Check(name, FAILED, f"NaN or infinity in the activations; {shape}")
    if words == 0:
        return Check(name, SKIPPED, f"the model says nothing about these pictures, name others; {shape}")
    return Check(name, OK, f"{shape}; checked in {str(case.activations.dtype).removeprefix('torch.')}")


def _dead_layer(case: Case) -> Check:
    _, gradients = full_gradients(case.head, case.activations, case.targets.rows, looped)
    dead = [
        words[r]
        for i, words in enumerate(case.targets.words)
        for r in range(len(words))
        if not bool(gradients[i, r].any())
    ]
    count = sum(map(len, case.targets.words))
    if len(dead) == count:
        reason = f"no score depends on the layer {case.task.layer!r}: every derivative is zero; choose another layer"
        return Check("scores depend on it", FAILED, reason)
    flags = [flag for e in case.explained() for flag in e.flags]
    figures = f"{count - len(dead)} of {count} scores; maps: {flags.count('')} with a positive part"
    for flag in ("negative", "zero", "non-finite"):
        figures += f", {flags.count(flag)} {flag}" if flags.count(flag) else ""
    return Check("scores depend on it", FAILED if "non-finite" in flags else OK, figures)


def _alone(case: Case, samples: Sequence[Sample], texts: Sequence[str]) -> tuple[str, str]:
    """Neither the other samples of a batch, nor their order, nor the padding that they cause may change a map."""
    if len(samples) < 2:
        return SKIPPED, "needs two pictures at least"
    order = list(range(len(samples)))[::-1]
    together = case.explained()
    alone = [_explained(case, [samples[i]], [texts[i]] if texts else [])[0] for i in range(len(samples))]
    turned = _explained(case, [samples[i] for i in order], [texts[i] for i in order] if texts else [])
    error = 0.0
    for name, others in (("alone", alone), ("in another order", [turned[i] for i in order])):
        for ours, theirs in zip(together, others, strict=True):
            if ours.words != theirs.words:
                return (
                    FAILED,
                    f"{ours.id} {name} gives {' '.join(theirs.words)!r}, in the batch {' '.join(ours.words)!r}",
                )
            error = max(error, relative(theirs.signed, ours.signed), relative(theirs.scores, ours.scores))
    # An Explanation is in float32, whatever the model is in.
    return verdict(error, case.tolerance(1e-5, 1e-2)), f"{len(samples)} pictures; largest relative error {error:.1e}"


def _explained(case: Case, samples: Sequence[Sample], texts: Sequence[str]) -> list[Explanation]:
    batch = case.task.collate(samples)
    targets = case.task.given(texts, batch) if texts else None
    return explain(case.task, double(batch) if case.exact else batch, targets)


def _costs(task: Task, samples: Sequence[Sample], targets: Targets, repeats: int = 5) -> list[Check]:
    """Time and peak memory of explaining all words, against the plain forward of the same words."""
    batch = task.collate(samples).to(task.device)
    targets = replace(targets, rows=targets.rows.float())

    def plain() -> object:
        with torch.no_grad():
            mine = replace(batch, memo={})
            return task.scores(task.trunk(mine), mine, targets)

    def explained() -> object:
        return explain(task, replace(batch, memo={}), targets)

    costs = compare({"plain": plain, "explained": explained}, task.device, repeats)
    (plainly, held), (took, most) = costs["plain"], costs["explained"]
    figures = f"{took * 1e3 / len(samples):.1f} ms a picture, {took / plainly:.2f} x the plain forward"
    memory = f"{most / 2**20 / len(samples):.1f} MiB a picture, {most / max(held, 1):.2f} x the plain forward"
    return [
        Check("time", OK, f"{figures} (median of {repeats}, batch of {len(samples)}, {task.device})"),
        Check("memory", OK, f"{memory} (peak beside weights)"),
    ]
