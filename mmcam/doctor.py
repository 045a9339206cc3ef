"""Self-checks on the user's own model and layer: whether the maps that it gets can be trusted, and what they cost.

The mathematics is checked on a copy of the model in float64, where the right answer and a wrong one are ten orders of
magnitude apart; a model that cannot be copied or run in float64 is checked as it is, with wide tolerances.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmcam.cost import compare
from mmcam.engine import check, explain, explain_activations
from mmcam.errors import UserError
from mmcam.explanation import Explanation
from mmcam.gradients import channel_weights, full_gradients, looped
from mmcam.load import check_weights
from mmcam.task import Batch, Sample, Targets, Task, vjp_of

OK, FAILED, SKIPPED = "ok", "FAILED", "skipped"


@dataclass(frozen=True)
class Check:
    """What one check found.

    Attributes:
        name: What was checked.
        result: "ok", "FAILED" or "skipped".
        figures: The numbers behind the result, or the reason for skipping.
    """

    name: str
    result: str
    figures: str


@dataclass(frozen=True)
class Case:
    """A model on a few samples, with all that the checks share.

    Attributes:
        task: The model, in eval mode; in float64 where that works.
        batch: The samples.
        activations: A.
        targets: What is explained.
        exact: Whether everything is in float64.
    """

    task: Task
    batch: Batch
    activations: Float[Tensor, "b k h w"]
    targets: Targets
    exact: bool

    def head(self, x: Float[Tensor, "n k h w"], index: Int[Tensor, " n"]) -> Float[Tensor, "n t"]:
        """The scores as a function of the activations of the indexed samples."""
        if len(index) == len(self.batch):
            return self.task.scores(x, self.batch, self.targets)
        return self.task.scores(x, self.batch.take(index), self.targets.take(index))

    def rows(self, x: Float[Tensor, "b k h w"]) -> Float[Tensor, "b r"]:
        """The explained scores, without a graph."""
        with torch.no_grad():
            y = self.task.scores(x, self.batch, self.targets)
        return torch.einsum("brt,bt->br", self.targets.rows.to(y.dtype), y)

    def tolerance(self, exact: float, rough: float) -> float:
        """The largest relative error that passes."""
        return exact if self.exact else rough


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
        case = _case(task, samples, texts)
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
        Check("batched = looped", *_batched(case)),
        Check("finite differences", *_finite_differences(case)),
        Check("CAM identity", *_cam_identity(case)),
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


def _case(task: Task, samples: Sequence[Sample], texts: Sequence[str]) -> Case:
    """Run the trunk on a copy in float64, or on the task itself where there is no such copy."""
    batch = task.collate(samples)
    targets = task.given(texts, batch) if texts else None
    batch = batch.to(task.device)
    try:
        doubled = copy.deepcopy(task).to(torch.float64).eval()
        return _run(doubled, _double(batch), targets, exact=True)
    except (RuntimeError, TypeError, NotImplementedError):
        return _run(task, batch, targets, exact=False)


def _run(task: Task, batch: Batch, targets: Targets | None, *, exact: bool) -> Case:
    with torch.no_grad():
        activations = task.trunk(batch).detach()
        check(activations, batch, task.layer)
        targets = task.predict(activations, batch) if targets is None else targets.to(activations.device)
        case = Case(task, batch, activations, targets, exact)
        # A head that cannot run in float64, or rounds to float32 on its way, shows here.
        if exact and targets.rows.numel() and task.scores(activations, batch, targets).dtype != torch.float64:
            raise TypeError("the scores are not in float64")
    return case


def _double(batch: Batch) -> Batch:
    inputs = {name: value.double() if value.is_floating_point() else value for name, value in batch.inputs.items()}
    return replace(batch, images=batch.images.double(), inputs=inputs, memo={})


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
    flags = [flag for e in explain_activations(*_arguments(case)) for flag in e.flags]
    figures = f"{count - len(dead)} of {count} scores; maps: {flags.count('')} with a positive part"
    for flag in ("negative", "zero", "non-finite"):
        figures += f", {flags.count(flag)} {flag}" if flags.count(flag) else ""
    return Check("scores depend on it", FAILED if "non-finite" in flags else OK, figures)


def _batched(case: Case) -> tuple[str, str]:
    """The task's own way of differentiating, and the probe, against one backward a row and the whole gradient."""
    vjp = vjp_of(case.task)
    _, reference = full_gradients(case.head, case.activations, case.targets.rows, looped)
    _, weights = channel_weights(case.head, case.activations, case.targets.rows, vjp)
    _, gradients = full_gradients(case.head, case.activations, case.targets.rows, vjp)
    error = max(_relative(gradients, reference), _relative(weights, reference.mean((-2, -1))))
    return _verdict(
        error, case.tolerance(1e-9, 1e-3)
    ), f"{getattr(vjp, '__name__', 'vjp')}; largest relative error {error:.1e}"


def _finite_differences(case: Case) -> tuple[str, str]:
    """∂y/∂probe along random directions against (y(A + εu) - y(A - εu)) / 2ε.

    A longer ε is tried too: norms of language models round to float32 on their way, which drowns small differences.
    """
    _, weights = channel_weights(case.head, case.activations, case.targets.rows, looped)
    tolerance, error = case.tolerance(1e-3, 0.1), float("inf")
    for share in (1e-5, 1e-3) if case.exact else (1e-2,):
        error = min(error, _difference(case, weights, share * float(case.activations.abs().mean())))
        if error <= tolerance:
            break
    return _verdict(error, tolerance), f"3 directions; largest relative error {error:.1e}"


def _difference(case: Case, weights: Float[Tensor, "b r k"], step: float) -> float:
    """The largest error of three directions at one ε."""
    area = case.activations.shape[2:].numel()
    generator = torch.Generator().manual_seed(0)
    error = 0.0
    for _ in range(3):
        direction = torch.randn(*case.activations.shape[:2], generator=generator).to(case.activations)
        expected = torch.einsum("brk,bk->br", weights.to(direction.dtype), direction) * area
        shift = step * direction[..., None, None]
        found = (case.rows(case.activations + shift) - case.rows(case.activations - shift)) / (2 * step)
        error = max(error, _relative(found, expected))
    return error


def _cam_identity(case: Case) -> tuple[str, str]:
    """Where the head is y = Σ_k w_k mean(A^k) + b, Grad-CAM is CAM / Z and its un-rectified map sums to y - b.

    Zhou et al., arXiv 1512.04150; Grad-CAM, arXiv 1610.02391, section 3.
    """
    _, gradients = full_gradients(case.head, case.activations, case.targets.rows, looped)
    mean = gradients.mean((-2, -1), keepdim=True)
    varies = _relative(gradients, mean.expand_as(gradients))
    if varies > case.tolerance(1e-9, 1e-4):
        return SKIPPED, "the head is not average pooling and linear: the gradient differs from place to place"
    _, elsewhere = full_gradients(case.head, case.activations.flip(-1) * 0.5 + 0.1, case.targets.rows, looped)
    bends = _relative(elsewhere, gradients)
    if bends > case.tolerance(1e-9, 1e-4):
        return SKIPPED, "the head is not average pooling and linear: the gradient changes with the activations"
    rows = torch.einsum("brk,bkhw->br", mean.flatten(2), case.activations)
    error = _relative(rows, case.rows(case.activations) - case.rows(torch.zeros_like(case.activations)))
    return _verdict(error, case.tolerance(1e-9, 1e-3)), f"each map sums to y - b; largest relative error {error:.1e}"


def _alone(case: Case, samples: Sequence[Sample], texts: Sequence[str]) -> tuple[str, str]:
    """Neither the other samples of a batch, nor their order, nor the padding that they cause may change a map."""
    if len(samples) < 2:
        return SKIPPED, "needs two pictures at least"
    order = list(range(len(samples)))[::-1]
    together = explain_activations(*_arguments(case))
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
            error = max(error, _relative(theirs.signed, ours.signed), _relative(theirs.scores, ours.scores))
    # An Explanation is in float32, whatever the model is in.
    return _verdict(error, case.tolerance(1e-5, 1e-2)), f"{len(samples)} pictures; largest relative error {error:.1e}"


def _explained(case: Case, samples: Sequence[Sample], texts: Sequence[str]) -> list[Explanation]:
    batch = case.task.collate(samples)
    targets = case.task.given(texts, batch) if texts else None
    return explain(case.task, _double(batch) if case.exact else batch, targets)


def _arguments(case: Case) -> tuple[Task, Tensor, Batch, Targets]:
    return case.task, case.activations, case.batch, case.targets


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


def _relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference, in units of the largest number expected."""
    if expected.numel() == 0:
        return 0.0
    scale = float(expected.abs().max())
    difference = float((found.to(expected.dtype) - expected).abs().max())
    return difference / scale if scale > 0 else (0.0 if difference == 0 else float("inf"))


def _verdict(error: float, tolerance: float) -> str:
    return OK if error <= tolerance else FAILED
