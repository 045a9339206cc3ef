"""One run of the whole model, trunk and head, that leaves a graph and its attention probabilities."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmcam.errors import UserError
from mmcam.gradients import _no_cudnn
from mmcam.methods.attention.blocks import Blocks, giving
from mmcam.methods.attention.capture import Captured
from mmcam.methods.subject import Subject

__all__ = ["Run", "with_kernels_that_run_backward"]


class Run:
    """Some samples of a subject, once through the model.

    Attributes:
        attentions: Probabilities (b, heads, q, k) in the order of the calls.
        scores: y (b, t) of all ids.
        rows: Coefficients (b, r, t) of the explained scores.
        traced: The samples, with the activations and the memo that this run gave.
        blocks: The blocks that the attentions run in, if they were watched.
    """

    def __init__(self, subject: Subject, index: Int[Tensor, " n"], watch: bool = False) -> None:
        """Run the model.

        Args:
            subject: What is explained.
            index: Numbers of the samples.
            watch: Whether to find the blocks.

        Raises:
            UserError: No attention was seen, it is not the samples', or the trunk keeps no graph.
        """
        self._subject, self._index = subject, index
        self._run(watch)
        if len({p.requires_grad for p in self.attentions}) > 1:
            self._run(watch)  # the first time, a cut network also runs without a graph, to learn what to keep
        if not self.attentions:
            raise UserError(
                "expected a model with attention, saw none; it must call F.scaled_dot_product_attention or "
                "nn.MultiheadAttention: load Hugging Face models with attn_implementation='sdpa', leave timm's "
                "fused attention on, or use grad_cam"
            )
        odd = next((tuple(p.shape) for p in self.attentions if p.ndim != 4 or len(p) != len(index)), None)
        if odd is not None:
            raise UserError(
                f"expected attention of shape (b, heads, queries, keys) with b = {len(index)}, got {odd}, as of "
                "windows; use grad_cam for this model"
            )
        if not all(p.requires_grad for p in self.attentions):
            raise UserError(
                "expected a trunk that keeps a graph where the images ask for one, got attention without; "
                "take no_grad, detach and the like out of Task.trunk"
            )

    def _run(self, watch: bool) -> None:
        captured = Captured()
        self.blocks = Blocks(captured.seen)
        with captured, self.blocks.watching(self._subject.asked[0]) if watch else nullcontext():
            self.traced = self._trunk()
            self.scores = self._head(self.traced)
        self.rows, self.attentions = self.traced.rows, captured.seen

    def scores_of_means(self, block: nn.Module, means: Float[Tensor, "n k"], count: int) -> Float[Tensor, "n t"]:
        """The scores if a block gave nothing but one token, many times; the trunk runs again only if it is there.

        Args:
            block: Gives tokens.
            means: Such a token for each sample, then a next one for each; at least one each.
            count: How many tokens the block gives.

        Returns:
            y of all ids, with a graph down to the means.
        """
        everyone = torch.arange(len(self._index), device=self._index.device)
        copies = everyone.repeat(len(means) // len(everyone))
        with torch.enable_grad():
            tokens = means[:, None].expand(-1, count, -1)
            activations = self.traced.activations.detach()[copies]
        with giving(block, tokens) as calls, torch.enable_grad():
            scores = self.traced.head(activations, copies)
        if not calls:
            with torch.enable_grad():
                parts = []
                for some in tokens.split(len(everyone)):
                    with giving(block, some) as calls:
                        parts.append(self._head(self._trunk()))
                scores = torch.cat(parts)
        if len(calls) != 1:
            raise UserError(f"expected blocks that run once a forward, the last one ran {len(calls)} times")
        return scores

    def _trunk(self) -> Subject:
        """The trunk's activations, with a graph down to the pixels: what keeps one at all is the trunk's own affair."""
        task, batch, targets = self._subject.asked
        some = replace(batch, memo={}).take(self._index)
        with torch.enable_grad(), self._subject.as_called():
            leaf = some.images.detach().clone().requires_grad_()
            some = replace(some, images=leaf.clone(), memo={})  # unlike the leaf, the copy may be overwritten
            return Subject(task, task.trunk(some), some, targets.take(self._index))

    def _head(self, subject: Subject) -> Float[Tensor, "b t"]:
        with torch.enable_grad():
            everyone = torch.arange(len(self._index), device=self._index.device)
            return subject.head(subject.activations.clone(), everyone)


def with_kernels_that_run_backward(compute: Callable[[], Any]) -> Any:  # noqa: ANN401
    """Compute, once more without cuDNN if its recurrent kernels refuse a backward in eval mode."""
    try:
        return compute()
    except RuntimeError as error:
        if "RNN backward can only be called in training mode" not in str(error):
            raise
    with _no_cudnn():
        return compute()
