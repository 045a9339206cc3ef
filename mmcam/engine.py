"""The engine: activations → targets → scores → gradients → maps, for all words of all images of a batch at once."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.errors import UserError
from mmcam.explanation import Explanation
from mmcam.methods.subject import Subject, check
from mmcam.methods.table import FROM_ATTENTION, FROM_GRADIENTS, FROM_MODEL, FROM_PIXELS, FROM_WEIGHTS, check_method
from mmcam.task import Batch, Targets, Task, evaluating

__all__ = ["check", "explain", "explain_activations", "explain_all"]


def explain(task: Task, batch: Batch, targets: Targets | None = None, method: str = "") -> list[Explanation]:
    """Explain every target of every sample: one trunk forward without a graph, one head, one batched backward.

    The task is left as found: train or eval mode (the call itself runs in eval mode), gradients, `requires_grad`,
    random state and backend flags; also after an exception. Callers may be under `no_grad`, `inference_mode` or
    autocast. A row that does not depend on the layer gives a map of zeros, and NaN in the model gives NaN in the map:
    `Explanation.flags` says so.

    Args:
        task: The adapter around the model.
        batch: The samples; moved to the task's device.
        targets: What to explain; the model's own prediction if not given.
        method: Name of a method in `mmcam.methods.table`; the task's own (`Task.method`) if not given.

    Returns:
        One explanation a sample, in order.

    Raises:
        UserError: The method is not known, the layer is not spatial, or the targets are not for these samples.
    """
    method = method or task.method
    check_method(method)
    with torch.inference_mode(False), evaluating(task):
        batch = batch.to(task.device)
        if targets is not None and (method in FROM_PIXELS or method in FROM_ATTENTION):
            return _explain(task, None, batch, targets, method)  # these run the trunk themselves
        with torch.no_grad():
            activations = task.trunk(batch).detach()  # (b, k, h, w)
            check(activations, batch, task.layer)
            targets = task.predict(activations, batch) if targets is None else targets
        return explain_activations(task, activations, batch, targets, method)


def explain_activations(
    task: Task,
    activations: Float[Tensor, "b k h w"],
    batch: Batch,
    targets: Targets,
    method: str = "",
    keep_weights: bool = False,
) -> list[Explanation]:
    """The second half of `explain`: several questions or methods on one picture share its trunk pass.

    Args:
        task: The adapter.
        activations: What `task.trunk(batch)` gave, in eval mode.
        batch: The samples, with the memo that `task.trunk` left.
        targets: What to explain.
        method: Name of a method in `mmcam.methods.table`; the task's own (`Task.method`) if not given.
        keep_weights: Keep α in the explanations, where the method is made of such.

    Returns:
        One explanation a sample, in order.
    """
    method = method or task.method
    check_method(method)
    return _explain(task, activations.detach(), batch, targets, method, keep_weights)


def _explain(
    task: Task,
    activations: Float[Tensor, "b k h w"] | None,
    batch: Batch,
    targets: Targets,
    method: str,
    keep_weights: bool = False,
) -> list[Explanation]:
    """`explain_activations`; without activations where the method gets them itself, or needs none."""
    if len(targets) != len(batch):
        raise UserError(f"expected targets for {len(batch)} samples, got them for {len(targets)}")
    if any(parameter.is_inference() for parameter in task.parameters()):
        raise UserError("expected a model that allows gradients, got one made under inference_mode; make it outside")
    with torch.inference_mode(False), evaluating(task):
        device = task.device if activations is None else activations.device
        subject = Subject(task, activations, batch.to(device), targets.to(device))
        scores, signed, weights = _maps(subject, method)
        # Maps of pixel space have the resolution of the pictures, and lie like them.
        if method in FROM_PIXELS or signed.shape[2:] != subject.activations.shape[2:]:
            laid = list(signed)
        else:
            laid = task.laid(signed, subject.asked[1])
        explanations = _explanations(task, batch, targets, method, scores, laid)
        if not keep_weights or weights is None:
            return explanations
        kept = [row[: len(e.words)].clone() for row, e in zip(weights.cpu(), explanations, strict=True)]
        return [replace(e, weights=row) for e, row in zip(explanations, kept, strict=True)]


def _maps(
    subject: Subject, method: str
) -> tuple[Float[Tensor, "b r"], Float[Tensor, "b r H W"], Float[Tensor, "b r k"] | None]:
    """The score of every row, its map before ReLU, and α if the map is made of it."""
    weights = None
    if method in FROM_WEIGHTS:
        weights = subject.weights()
        maps = partial(FROM_WEIGHTS[method], weights, subject.activations)
    elif method in FROM_GRADIENTS:
        maps = partial(FROM_GRADIENTS[method], subject.gradients(), subject.activations)
    else:
        maps = partial(FROM_MODEL[method], subject)
    with torch.no_grad(), torch.autocast(subject.rows.device.type, enabled=False):
        signed = maps()  # (b, r, h, w)
        return subject.scores().to(signed.dtype), signed, weights


def explain_all(task: Task, batches: Iterable[Batch], method: str = "") -> Iterator[Explanation]:
    """Explain the predictions of a task over a loader, one explanation a sample, in order."""
    for batch in batches:
        yield from explain(task, batch, method=method)


def _explanations(
    task: Task,
    batch: Batch,
    targets: Targets,
    method: str,
    scores: Float[Tensor, "b r"],
    signed: Sequence[Float[Tensor, "r _ _"]],
) -> list[Explanation]:
    """Cut the padding off and bring everything to the CPU in one transfer."""
    rows = [maps[: len(words)].to(scores.dtype) for maps, words in zip(signed, targets.words, strict=True)]
    everything = torch.cat([scores.flatten(), *(maps.flatten() for maps in rows)]).cpu()  # the only synchronisation
    y, *maps = everything.split([scores.numel(), *(maps.numel() for maps in rows)])
    return [
        Explanation(
            id=batch.ids[i],
            prompt=batch.texts[i],
            words=words,
            scores=y.view(scores.shape)[i, : len(words)].clone(),
            signed=maps[i].reshape(rows[i].shape).clone(),
            size=batch.sizes[i],
            window=batch.windows[i],
            method=method,
            layer=task.layer,
        )
        for i, words in enumerate(targets.words)
    ]
