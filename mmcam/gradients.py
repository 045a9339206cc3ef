"""Derivatives of several scores at once: one vector-Jacobian product over the head, in three legal ways.

The head is everything between the explained layer and the scores. Row r of the cotangents picks one score (or a sum of
scores) of *every* image, so the cost grows with the largest number of rows, not with the number of words in the batch.

- `batched`: one forward, all rows in one vectorised backward (`torch.func.vmap`). The fastest where every operation of
  the head has a batching rule, which plain tensor operations do. Not by `is_grads_batched`: the old vmap behind it
  loops over the rows at every tanh, softmax, GELU and layer norm, and nothing tells it to complain.
- `replicated`: the head's input is repeated once a row, then one ordinary backward. For fused recurrent kernels
  (`nn.LSTM`, `nn.GRU`), which vmap would unroll.
- `looped`: one forward, one backward a row. The reference in the tests, and what `batched` falls back to.

None calls `.backward()`: nothing is ever written to `p.grad`.
"""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch._C import _functorch  # pyright: ignore[reportAttributeAccessIssue]  # its stub is incomplete
from torch.func import vmap

logger = logging.getLogger(__name__)

MEMORY = 512 * 2**20
"""Bytes that the cotangents of one pass may take; more rows are done in several passes."""


@runtime_checkable
class Head(Protocol):
    """The scores as a function of the differentiated input; `index` says which sample each of its rows belongs to."""

    def __call__(self, x: Float[Tensor, "n ..."], index: Int[Tensor, " n"]) -> Float[Tensor, "n t"]: ...  # noqa: D102


@runtime_checkable
class Vjp(Protocol):
    """(head, input, rows) → (scores, gradient of every row's score with respect to the input).

    `size` is how many numbers the head's backward holds a row, where that is more than the input has.
    """

    def __call__(  # noqa: D102
        self, head: Head, x: Float[Tensor, "b ..."], rows: Float[Tensor, "b r t"], *, size: int = 0
    ) -> tuple[Float[Tensor, "b t"], Float[Tensor, "b r ..."]]: ...


def channel_weights(
    head: Head, activations: Float[Tensor, "b k h w"], rows: Float[Tensor, "b r t"], vjp: Vjp
) -> tuple[Float[Tensor, "b t"], Float[Tensor, "b r k"]]:
    """Neuron importance α, Eq. 1 of Grad-CAM (arXiv 1610.02391): the spatial mean of ∂y/∂A.

    A zero probe of shape (b, k, 1, 1) is added to A; its gradient is the spatial *sum* of ∂y/∂A exactly. So r·b·k
    numbers are kept and not r·b·k·h·w, and as the sum is a new tensor, in-place layers behind the cut cannot spoil A.

    Args:
        head: The scores as a function of the activations.
        activations: A; no graph below it.
        rows: Coefficients of the explained scores.
        vjp: `batched`, `replicated` or `looped`.

    Returns:
        The scores y of all ids, and α in float32 at least.
    """
    probe = activations.new_zeros(*activations.shape[:2], 1, 1)
    count = activations.shape[2:].numel()

    def probed(x: Tensor, index: Tensor) -> Tensor:
        return head(_at(activations, index) + x, index)

    scores, gradients = _differentiate(vjp, probed, probe, rows, activations.numel())
    return scores, gradients.flatten(2).to(torch.promote_types(gradients.dtype, torch.float32)) / count


def full_gradients(
    head: Head, activations: Float[Tensor, "b ..."], rows: Float[Tensor, "b r t"], vjp: Vjp
) -> tuple[Float[Tensor, "b t"], Float[Tensor, "b r ..."]]:
    """∂y/∂A at every place, for the methods that need more than its mean (HiResCAM, LayerCAM …).

    Args:
        head: The scores as a function of the activations.
        activations: A, or whatever else the head is made of, such as vectors of words; no graph below it.
        rows: Coefficients of the explained scores.
        vjp: `batched`, `replicated` or `looped`.

    Returns:
        The scores y of all ids, and the gradients.
    """

    def copied(x: Tensor, index: Tensor) -> Tensor:
        return head(x.clone(), index)  # in-place layers behind the cut may not write into a leaf

    return _differentiate(vjp, copied, activations, rows, activations.numel())


def batched(
    head: Head, x: Float[Tensor, "b ..."], rows: Float[Tensor, "b r t"], *, size: int = 0
) -> tuple[Float[Tensor, "b t"], Float[Tensor, "b r ..."]]:
    """All rows in one vectorised backward; falls back to one backward a row where an operation has no batching rule."""
    with _differentiable(x) as leaf:
        scores = head(leaf, _all(x))
        cotangents = _cotangents(scores, rows)
        if rows.shape[1] == 1:
            return scores.detach(), _gradient(scores, leaf, cotangents[0])[:, None]
        try:
            with _no_slow_vmap():
                backward = vmap(lambda cotangent: _gradient(scores, leaf, cotangent))
                parts = [backward(cotangents[some]) for some in _chunks(x, rows.shape[1], size)]
        except RuntimeError as error:  # nothing is hidden: what is not vmap's fault fails in the loop too
            logger.info("differentiating row by row: %s", str(error).splitlines()[0])
            parts = [_gradient(scores, leaf, cotangent)[None] for cotangent in cotangents]
        return scores.detach(), torch.cat([*parts, leaf.detach().new_zeros(0, *x.shape)]).movedim(0, 1)


def looped(
    head: Head, x: Float[Tensor, "b ..."], rows: Float[Tensor, "b r t"], *, size: int = 0
) -> tuple[Float[Tensor, "b t"], Float[Tensor, "b r ..."]]:
    """One forward and one backward a row: the reference."""
    with _differentiable(x) as leaf:
        scores = head(leaf, _all(x))
        parts = [_gradient(scores, leaf, cotangent)[None] for cotangent in _cotangents(scores, rows)]
        return scores.detach(), torch.cat([*parts, leaf.detach().new_zeros(0, *x.shape)]).movedim(0, 1)


def replicated(
    head: Head, x: Float[Tensor, "b ..."], rows: Float[Tensor, "b r t"], *, size: int = 0
) -> tuple[Float[Tensor, "b t"], Float[Tensor, "b r ..."]]:
    """The input once a row and one ordinary backward; for heads that treat the samples of a batch independently."""
    b, r = rows.shape[:2]
    if r == 0:
        return looped(head, x, rows)
    parts, scores = [], None
    for some in _chunks(x, r, size):
        numbers = range(r)[some]
        index = _all(x).repeat_interleave(len(numbers))
        with _differentiable(_at(x, index)) as leaf:
            y = head(leaf, index)
            gradient = _gradient(y, leaf, _cotangents(y, rows[:, some].flatten(0, 1)[:, None])[0])
        parts.append(gradient.unflatten(0, (b, len(numbers))))
        scores = y.detach()[:: len(numbers)]
    assert scores is not None
    return scores, torch.cat(parts, 1)


def _differentiate(
    vjp: Vjp, head: Head, x: Float[Tensor, "b ..."], rows: Float[Tensor, "b r t"], size: int
) -> tuple[Float[Tensor, "b t"], Float[Tensor, "b r ..."]]:
    """Run a vjp, but only if there is something to explain, and without cuDNN where that refuses."""
    if rows.numel() == 0:
        b, r, t = rows.shape
        return rows.new_zeros(b, t), x.new_zeros(b, r, *x.shape[1:])
    try:
        return vjp(head, x, rows, size=size)
    except RuntimeError as error:
        if "RNN backward can only be called in training mode" not in str(error):
            raise
        logger.info("cuDNN's recurrent kernels run no backward in eval mode; once more without them")
    with _no_cudnn():
        return vjp(head, x, rows, size=size)


def _all(x: Tensor) -> Int[Tensor, " b"]:
    return torch.arange(len(x), device=x.device)


def _at(x: Tensor, index: Int[Tensor, " n"]) -> Tensor:
    """The samples of an index; an index as long as x is all of them in order, so x itself serves, without a copy."""
    return x if len(index) == len(x) else x[index]


def _cotangents(scores: Float[Tensor, "b t"], rows: Float[Tensor, "b r t"]) -> Float[Tensor, "r b t"]:
    if scores.shape != (len(rows), rows.shape[2]):
        expected = (len(rows), rows.shape[2])
        raise ValueError(f"scores must be (b, t) = {expected} like the targets; got {tuple(scores.shape)}")
    return rows.movedim(1, 0).to(scores.dtype)


def _gradient(scores: Tensor, leaf: Tensor, cotangent: Tensor) -> Tensor:
    """∂(cotangent · scores)/∂leaf; zeros, not an error, where the scores do not depend on the leaf."""
    gradient = None
    if scores.requires_grad:
        with _no_autocast(leaf):
            (gradient,) = torch.autograd.grad(scores, leaf, cotangent, retain_graph=True, allow_unused=True)
    return torch.zeros_like(leaf) if gradient is None else gradient


def _chunks(x: Tensor, rows: int, size: int) -> Iterator[slice]:
    """Ranges of rows that fit into MEMORY, counting four copies of what one holds."""
    step = max(1, MEMORY // max(1, 4 * max(size, x.numel()) * x.element_size()))
    return (slice(start, start + step) for start in range(0, rows, step))


@contextmanager
def _differentiable(x: Tensor) -> Iterator[Tensor]:
    """Give a leaf with the values of x, with grad mode on also for callers under `no_grad` or `inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad():
        yield (x.clone() if x.is_inference() else x.detach()).requires_grad_()


def _no_autocast(x: Tensor) -> AbstractContextManager[object]:
    """The backward takes the types of the forward; a caller's autocast would round once more."""
    active = torch.is_autocast_enabled(x.device.type)
    return torch.autocast(x.device.type, enabled=False) if active else nullcontext()


@contextmanager
def _no_cudnn() -> Iterator[None]:
    """Turn cuDNN off. Not by `cudnn.flags`, which sets every other flag too, TF32 among them."""
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before


@contextmanager
def _no_slow_vmap() -> Iterator[None]:
    """Make vmap raise where it would otherwise loop slowly over an operation without a batching rule."""
    before = _functorch._is_vmap_fallback_enabled()
    _functorch._set_vmap_fallback_enabled(False)
    try:
        yield
    finally:
        _functorch._set_vmap_fallback_enabled(before)


def of_rows(rows: Float[Tensor, "n r t"], y: Float[Tensor, "n t"]) -> Float[Tensor, "n r"]:
    """Sum the scores of the ids of each row."""
    # Not a matrix product: zero times a log-probability of minus infinity shall be zero.
    y = y.to(torch.promote_types(y.dtype, torch.float32))
    return (rows.to(y.dtype) * y[:, None]).masked_fill(rows == 0, 0).sum(2)
