"""Attention probabilities out of a model as it is: explicit tensors that scores can be differentiated by.

`F.scaled_dot_product_attention` keeps its probabilities to itself. While a `Captured` is entered, what calls it gets
softmax(q kᵀ · scale + mask) v from separate steps instead, and the probabilities are noted. That covers timm, Hugging
Face models with `attn_implementation="sdpa"` (their default), and `nn.MultiheadAttention` with torchvision's models,
whose fused path PyTorch leaves while anybody looks on. It does not cover models that compute a softmax of their own
(Hugging Face's "eager", windows of torchvision's Swin): a softmax alone does not tell attention from other things.

The mode is of one thread and one `with`; modules are not touched. Values stay the same up to rounding. It costs what
unfused attention costs: time, and memory for b · heads · q · k numbers a layer.
"""

import inspect
import logging
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import Node
from torch.func import vmap
from torch.overrides import TorchFunctionMode

from mmcam import gradients
from mmcam.gradients import _cotangents, _no_autocast, _no_slow_vmap
from mmcam.methods.elementwise import widened

__all__ = ["Captured", "attention_gradients", "depending"]

logger = logging.getLogger(__name__)

MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)


class Captured(TorchFunctionMode):
    """Notes the probabilities of every attention that runs inside `with`, in the order of the calls.

    Attributes:
        seen: Probabilities (b, heads, q, k) in float32 at least; part of the graph where grad mode is on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        if func is F.scaled_dot_product_attention:
            return self._attend(*args, **(kwargs or {}))
        if func is F.multi_head_attention_forward:
            return self._attend_with_many_heads(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """The same as `F.scaled_dot_product_attention`, in steps."""
        if enable_gqa:
            key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
            value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
        kind = query.device.type
        active = torch.is_autocast_enabled(kind)
        # Only what fused kernels round too is rounded.
        with torch.autocast(kind, enabled=False) if active else nullcontext():
            q, k = widened(query), widened(key)
            logits = q * (query.shape[-1] ** -0.5 if scale is None else scale) @ k.mT
            probabilities = _softmax(logits, attn_mask, is_causal)
        if torch.is_grad_enabled() and not probabilities.requires_grad:
            leaf = probabilities.detach().requires_grad_()
            probabilities = leaf.view_as(leaf)  # which has a node, for `depending`
        self.seen.append(probabilities)
        dtype = torch.get_autocast_dtype(kind) if active and value.dtype != torch.float64 else value.dtype
        return F.dropout(probabilities, dropout_p).to(dtype) @ value.to(dtype)

    def _attend_with_many_heads(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:  # noqa: ANN401
        """The same as `F.multi_head_attention_forward`: its own code, which no mode sees into, with our attention."""
        given = MULTI_HEAD.bind(*args, **kwargs)
        given.apply_defaults()
        wanted, average = given.arguments["need_weights"], given.arguments["average_attn_weights"]
        given.arguments["need_weights"] = False
        theirs = F.multi_head_attention_forward
        names = vars(F) | {"scaled_dot_product_attention": self._attend, "has_torch_function": lambda _: False}
        ours = FunctionType(theirs.__code__, names, theirs.__name__, theirs.__defaults__)
        output, _ = ours(*given.args, **given.kwargs)
        if not wanted:
            return output, None
        weights = self.seen[-1].to(output.dtype)
        weights = weights.mean(1) if average else weights
        return output, weights if given.arguments["query"].ndim == 3 else weights.squeeze(0)


def _softmax(logits: Float[Tensor, "*b q k"], mask: Tensor | None, causal: bool) -> Float[Tensor, "*b q k"]:
    """Softmax over the keys that a mask leaves; zeros for a query that it leaves none."""
    if causal:
        ones = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(~ones.tril(), -torch.inf)
    if mask is None:
        return logits.softmax(-1)
    logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
    nothing = (logits == -torch.inf).all(-1, keepdim=True)
    return logits.masked_fill(nothing, 0).softmax(-1).masked_fill(nothing, 0)


def depending(scores: Tensor, attentions: Sequence[Tensor]) -> list[int]:
    """Numbers of the attentions that scores depend on, by the graph alone."""
    nodes = {p.grad_fn: i for i, p in enumerate(attentions)}
    waiting: list[Node | None] = [scores.grad_fn]
    seen: set[Node] = set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting.extend(below for below, _ in node.next_functions)
    return [i for node, i in nodes.items() if node is not None and node in seen]


def attention_gradients(
    scores: Float[Tensor, "b t"], attentions: Sequence[Tensor], rows: Float[Tensor, "b r t"]
) -> Iterator[list[Tensor]]:
    """∂y/∂P of every row and every attention: one batched backward over the graph that the forward left.

    Where an operation has no batching rule, there is one backward a row.

    Args:
        scores: y of all ids, computed while the attentions were captured.
        attentions: P (b, heads, q, k) of some layers.
        rows: Coefficients of the explained scores.

    Yields:
        For some rows at a time, as many as fit into the memory, ∇P (b, r, heads, q, k) of every attention.
    """

    def back(cotangent: Tensor) -> tuple[Tensor, ...]:
        if not scores.requires_grad:
            return tuple(map(torch.zeros_like, attentions))
        found = torch.autograd.grad(scores, attentions, cotangent, retain_graph=True, allow_unused=True)
        return tuple(torch.zeros_like(p) if g is None else g for p, g in zip(attentions, found, strict=True))

    cotangents = _cotangents(scores, rows)  # (r, b, t)
    size = sum(p.numel() * p.element_size() for p in attentions)
    step = max(1, gradients.MEMORY // max(1, 4 * size))
    batched = step > 1 and len(cotangents) > 1
    for some in cotangents.split(step):
        found: Sequence[Tensor] = ()
        with _no_autocast(scores):
            if batched:
                try:
                    with _no_slow_vmap():
                        found = vmap(back)(some)
                except RuntimeError as error:  # nothing is hidden: what is not vmap's fault fails below too
                    logger.info("differentiating attention row by row: %s", str(error).splitlines()[0])
                    batched = False
            found = found or [torch.stack(each) for each in zip(*map(back, some), strict=True)]
        yield [g.movedim(0, 1) for g in found]
