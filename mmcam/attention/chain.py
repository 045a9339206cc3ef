"""Which attention looks from where to where, and at which tokens a score is read."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmcam.attention.maths import (
    cross_attention_rule,
    gradient_times_attention,
    rollout,
    self_attention_rule,
)
from mmcam.errors import UserError

__all__ = ["Chain"]


@dataclass(frozen=True)
class Chain:
    """The attentions of one forward, the first one first, with the gradients of some rows.

    Tokens of the picture (n) attend among themselves. If other tokens (t, such as the words of a caption or the probe
    of an attention pooling) attend to them, the score is read at those.

    Attributes:
        attentions: P (b, heads, q, k), without a graph.
        gradients: ∇P (b, r, heads, q, k) of each.
        places: n.
        readers: t; None if there are none.
    """

    attentions: Sequence[Tensor]
    gradients: Sequence[Tensor]
    places: int
    readers: int | None

    @classmethod
    def of(cls, attentions: Sequence[Tensor], gradients: Sequence[Tensor]) -> "Chain":
        """Sort them by the numbers of their queries and keys.

        Args:
            attentions: P of every layer that the score depends on.
            gradients: ∇P of each.

        Returns:
            The chain.

        Raises:
            UserError: They are of windows, or of more than two kinds of tokens.
        """
        sizes = [(p.shape[2], p.shape[3]) for p in attentions]
        crosses = {size for size in sizes if size[0] != size[1]}
        readers, places = next(iter(crosses)) if crosses else (None, sizes[0][0])
        if len(crosses) > 1 or not {*sizes} <= {(places, places), (readers, readers), (readers, places)}:
            raise UserError(
                "expected attention among the tokens of the picture, and of at most one kind of other tokens to them; "
                f"got queries and keys {sorted({*sizes})}; use grad_cam for this model"
            )
        return cls(attentions, gradients, places, readers)

    def read(self) -> Bool[Tensor, "b r q"]:
        """The queries of the last attention whose output the score depends on: the class token, all, a word's place."""
        return (self.gradients[-1] != 0).any(4).any(2)

    def at_reading(self, matrix: Float[Tensor, "b r q n"]) -> Float[Tensor, "b r n"]:
        """The mean of a matrix's rows over the queries at which the score is read; zeros if it is read at none."""
        read = self.read().to(matrix.dtype)
        return torch.einsum("brq,brqn->brn", read, matrix) / read.sum(2, keepdim=True).clamp(min=1)

    def rollout(self) -> Float[Tensor, "b r n"]:
        """`rollout` of the picture's tokens, as the tokens see it at which the score is read.

        Raises:
            UserError: Words attend among themselves as well.
        """
        if any(p.shape[2:] == (self.readers, self.readers) for p in self.attentions) and self.readers != 1:
            raise UserError(
                "attention rollout is of self-attention alone, and in this model other tokens attend to the picture's; "
                "use attention_relevance"
            )
        own = [p for p in self.attentions if p.shape[2] == self.places]
        total = rollout(own) if own else None
        if self.readers is not None:
            mixed = self.attentions[-1].mean(1)
            total = mixed if total is None else mixed @ total
        assert total is not None
        return self.at_reading(total[:, None].expand(-1, self.gradients[-1].shape[1], -1, -1))

    def relevance(self) -> Float[Tensor, "b r n"]:
        """Chefer's relevance (arXiv 2103.15679) of the picture's tokens for those at which the score is read."""
        b, r = self.gradients[0].shape[:2]
        like = self.attentions[0]
        places = _identity(self.places, like).expand(b, r, -1, -1)
        if self.readers is None:
            for mixed in self._mixed():
                places, _ = self_attention_rule(mixed, places, None)
            return self.at_reading(places)
        readers = _identity(self.readers, like).expand(b, r, -1, -1)
        across = like.new_zeros(b, r, self.readers, self.places)
        for mixed in self._mixed():
            if mixed.shape[2:] == (self.readers, self.places):
                readers, across = cross_attention_rule(mixed, readers, places, across)
            elif mixed.shape[2] == self.places:
                places, _ = self_attention_rule(mixed, places, None)
            else:
                readers, _across = self_attention_rule(mixed, readers, across)
                assert _across is not None
                across = _across
        return self.at_reading(across)

    def gradient_attention(self, layer: int = -1) -> Float[Tensor, "b r n"]:
        """Gradient × attention of one of the layers that look at the picture from where the score is read.

        Args:
            layer: Its number among them.

        Returns:
            The sum over the queries.
        """
        wanted = self.places if self.readers is None else self.readers
        looking = [i for i, p in enumerate(self.attentions) if p.shape[2:] == (wanted, self.places)]
        i = looking[layer]
        return gradient_times_attention(self.attentions[i], self.gradients[i]).sum(2)

    def _mixed(self) -> list[Tensor]:
        return [gradient_times_attention(p, g) for p, g in zip(self.attentions, self.gradients, strict=True)]


def _identity(n: int, like: Tensor) -> Float[Tensor, "n n"]:
    return torch.eye(n, dtype=like.dtype, device=like.device)
