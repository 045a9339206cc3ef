"""Gradients at the network's input, plain or by a rule, of all rows of all pictures at once.

The chain rule is cut where the task is cut, between trunk and head:

1. the trunk runs once, with a graph down to the pixels;
2. the head's gradients of all rows come from one batched backward (`mmcam.gradients.full_gradients`), with respect to
   everything that crosses the cut: the activations, and what of the memo depends on the pixels (the tokens beside the
   grid, skip connections);
3. each row goes through the trunk backwards, over all pictures; several rows at once where vmap knows how.

Which rectifiers follow the rule (`mmcam.methods.guided`): those of the trunk, and those of the head inside the modules
that `Task.seeing` names. In the papers' form these are the CNN with its fully connected layers and the captioner's
image embedding, while the language half keeps its derivatives.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._pytree import tree_flatten, tree_unflatten

from mmcam.errors import UserError
from mmcam.gradients import MEMORY, _no_slow_vmap, full_gradients
from mmcam.methods.guided import Rectifiers, Rule, submodules
from mmcam.task import Batch, Targets, Task, evaluating, vjp_of

__all__ = [
    "GRAPH",
    "PASSING",
    "Part",
    "budget",
    "by_parts",
    "everyone",
    "pixel_gradients",
    "room",
    "settled",
    "taken",
]

logger = logging.getLogger(__name__)

GRAPH = 250
"""Numbers that a trunk's graph keeps for each number of its input; MobileNetV3 73, VGG-16 122, DenseNet-121 217."""
PASSING = 200
"""The same when no graph is kept. VGG's first maps, thrice, are 64; but on a CPU pictures and rows pass fastest if few
enough are on their way for its caches (of 224 px four, of 112 px sixteen)."""


def pixel_gradients(
    task: Task,
    batch: Batch,
    targets: Targets | None = None,
    rule: Rule = "plain",
    seeing: Sequence[str] | None = None,
    memory: int | None = None,
) -> Float[Tensor, "b r c H W"]:
    """∂y/∂x of every row's score with respect to the network's input, or what a rule makes of it.

    With rule "plain" this is the saliency of Simonyan et al. (arXiv 1312.6034) before its absolute value.

    Args:
        task: The adapter around the model; left as found.
        batch: The samples; moved to the task's device.
        targets: What to explain; `own_targets` if not given.
        rule: "plain", "guided" (guided backpropagation) or "deconv".
        seeing: Names of modules of the head whose rectifiers follow the rule too; `task.seeing` if not given.
        memory: Bytes that one pass may take, roughly; `budget` if not given.

    Returns:
        Signed gradients; zero for padded rows and for rows that do not depend on the pixels.

    Raises:
        UserError: The trunk keeps no graph, a part of it hides rectifiers, or a name is not known.
    """
    return by_parts(task, batch, targets, rule, seeing, memory, lambda part: part.gradients)


@dataclass(frozen=True, eq=False)
class Part:
    """Some samples of a batch that went through the trunk and back.

    Attributes:
        gradients: At the network's input.
        scores: y of all ids.
        activations: What the trunk gave on the way, without a graph.
        batch: The samples, with the memo that the trunk left, without a graph either.
        targets: Theirs.
    """

    gradients: Float[Tensor, "b r c H W"]
    scores: Float[Tensor, "b t"]
    activations: Float[Tensor, "b k h w"]
    batch: Batch
    targets: Targets


def by_parts(
    task: Task,
    batch: Batch,
    targets: Targets | None,
    rule: Rule,
    seeing: Sequence[str] | None,
    memory: int | None,
    finish: Callable[[Part], Float[Tensor, "n r ..."]],
) -> Float[Tensor, "b r ..."]:
    """Differentiate as many samples at once as there is memory for, and make something of each part's gradients.

    Args:
        task: See `pixel_gradients`, also for the others.
        batch: The samples.
        targets: What to explain.
        rule: Of the rectifiers.
        seeing: Modules of the head that follow it.
        memory: Bytes that one pass may take, roughly.
        finish: What becomes of a part; it needs no second trunk pass for the activations.

    Returns:
        What was made of all samples.
    """
    modules = submodules(task, task.seeing if seeing is None else seeing)
    with settled(task, batch, targets) as (batch, targets):
        parts = everyone(batch).split(room(batch, memory, GRAPH))
        return torch.cat([finish(_part(task, *taken(batch, targets, i), rule, modules, memory)) for i in parts])


@contextmanager
def settled(task: Task, batch: Batch, targets: Targets | None) -> Iterator[tuple[Batch, Targets]]:
    """Eval mode, and batch and targets on the task's device; the caller's batch keeps its own memo."""
    with torch.inference_mode(False), evaluating(task):
        batch = replace(batch.to(task.device), memo={})
        batch = replace(batch, images=batch.pictures)
        if targets is None:
            seen = replace(batch, memo={})
            with torch.no_grad():
                targets = task.predict(task.trunk(seen), seen)
        if len(targets) != len(batch):
            raise UserError(f"expected targets for {len(batch)} samples, got them for {len(targets)}")
        yield batch, targets.to(task.device)


def taken(batch: Batch, targets: Targets, index: Int[Tensor, " n"]) -> tuple[Batch, Targets]:
    """Samples by number; an index as long as the batch is all of it, in order."""
    return (batch, targets) if len(index) == len(batch) else (batch.take(index), targets.take(index))


def everyone(batch: Batch) -> Int[Tensor, " b"]:
    """The numbers of all samples."""
    return torch.arange(len(batch), device=batch.images.device)


def budget(device: torch.device, memory: int | None = None) -> int:
    """Bytes that one pass may take: those given, or a quarter of what a GPU has left, or little enough for caches."""
    if memory is not None:
        return memory
    return torch.cuda.mem_get_info(device)[0] // 4 if device.type == "cuda" else MEMORY


def room(batch: Batch, memory: int | None, factor: int) -> int:
    """How many pictures fit into the budget, if `factor` numbers are kept for each of theirs."""
    x = batch.images
    return max(1, budget(x.device, memory) // max(1, factor * x[:1].numel() * x.element_size()))


def _part(
    task: Task, batch: Batch, targets: Targets, rule: Rule, modules: Sequence[nn.Module], memory: int | None
) -> Part:
    """`pixel_gradients` of one part of a batch."""
    with torch.enable_grad(), Rectifiers(rule) as rectifiers:
        leaf = batch.images.detach().clone().requires_grad_()
        seen = replace(batch, images=leaf.clone(), memo={})  # unlike the leaf, the copy may be overwritten
        crossing, fixed, put = _cut(task.trunk(seen), seen)
        rectifiers.follow(crossing)

        def head(x: Float[Tensor, "n k 1 1"], index: Int[Tensor, " n"]) -> Float[Tensor, "n t"]:
            some, theirs = taken(fixed, targets, index)
            activations, *others = _apart(x.flatten(1), crossing)
            return task.scores(activations, put(some, others), theirs)

        flat = torch.cat([x.detach().flatten(1) for x in crossing], 1)[..., None, None]
        parts = [leaf.detach().new_zeros(len(batch), 0, *leaf.shape[1:])]
        at_once = max(1, budget(leaf.device, memory) // max(1, 4 * flat.numel() * flat.element_size()))
        left, scores = targets.rows.shape[1], targets.rows.new_zeros(targets.ids.shape)
        for rows in targets.rows.split(at_once, 1) if targets.rows.numel() else ():
            left -= rows.shape[1]
            with rectifiers.inside(modules):
                scores, gradients = full_gradients(head, flat, rows, vjp_of(task))  # (b, r, n, 1, 1)
            above = [_apart(row, crossing) for row in gradients.flatten(2).unbind(1)]
            parts.append(_through(crossing, leaf, above, room(batch, memory, PASSING), keep=left > 0))
        return Part(torch.cat(parts, 1), scores, crossing[0].detach(), fixed, targets)


def _cut(activations: Tensor, batch: Batch) -> tuple[list[Tensor], Batch, Callable[[Batch, list[Tensor]], Batch]]:
    """What crosses the cut with a graph below it; the batch without any graph; and how to put the crossing memo back.

    Raises:
        UserError: The activations have no graph, or something that crosses is not one a sample.
    """
    if not activations.requires_grad:
        raise UserError(
            "expected a trunk that keeps a graph where the images ask for one, got activations without; "
            "take no_grad, detach and the like out of Task.trunk"
        )
    leaves, form = tree_flatten(batch.memo)
    # A parameter in the memo wants a gradient too, but is no function of the pixels.
    places = [i for i, x in enumerate(leaves) if isinstance(x, Tensor) and x.grad_fn is not None]
    crossing = [activations, *(leaves[i] for i in places)]
    if any(x.shape[:1] != (len(batch),) for x in crossing):
        shapes = [tuple(x.shape) for x in crossing]
        raise UserError(f"expected activations and a memo whose first axis is {len(batch)} long, got {shapes}")

    def put(some: Batch, others: list[Tensor]) -> Batch:
        found, _ = tree_flatten(some.memo)
        for i, x in zip(places, others, strict=True):
            found[i] = x
        return replace(some, memo=tree_unflatten(found, form))

    memo = tree_unflatten([x.detach() if isinstance(x, Tensor) else x for x in leaves], form)
    return crossing, replace(batch, images=batch.images.detach(), memo=memo), put


def _apart(flat: Float[Tensor, "n k"], crossing: Sequence[Tensor]) -> list[Tensor]:
    """The tensors that were made one; new ones, which may be overwritten."""
    parts = flat.split([x[0].numel() for x in crossing], 1)
    return [part.reshape(-1, *x.shape[1:]).to(x.dtype, copy=True) for part, x in zip(parts, crossing, strict=True)]


def _through(
    crossing: list[Tensor], leaf: Float[Tensor, "b c H W"], rows: list[list[Tensor]], room: int, keep: bool
) -> Float[Tensor, "b r c H W"]:
    """The trunk backwards, row by row or several at once, from the gradients at what crosses the cut.

    Unless the graph is kept for other rows, the last one frees it on its way, which is faster.
    """

    def back(*gradients: Tensor, keep: bool = True) -> Tensor:
        (gradient,) = torch.autograd.grad(crossing, leaf, gradients, retain_graph=keep, allow_unused=True)
        return torch.zeros_like(leaf) if gradient is None else gradient

    step = max(1, room // len(leaf))
    with torch.autocast(leaf.device.type, enabled=False):
        if step > 1 and len(rows) > 1:
            try:
                with _no_slow_vmap():
                    some = [map(torch.stack, zip(*rows[i : i + step], strict=True)) for i in range(0, len(rows), step)]
                    return torch.cat([vmap(back)(*gradients) for gradients in some]).movedim(0, 1)
            except RuntimeError as error:  # nothing is hidden: what is not vmap's fault fails below too
                logger.info("going through the trunk row by row: %s", str(error).splitlines()[0])
        last = len(rows) - 1
        return torch.stack([back(*gradients, keep=keep or i < last) for i, gradients in enumerate(rows)], 1)
