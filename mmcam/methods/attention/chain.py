"""Which attention looks from where to where, and at which tokens a score is read."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.errors import UserError
from mmcam.methods.attention.maths import (
    cross_attention_rule,
    gradient_times_attention,
    rollout,
    self_attention_rule,
)

__all__ = ["Chain"]


@dataclass(frozen=True)
class Chain:
    """The attentions of one forward, the first one first.

    Tokens of the picture (n) attend among themselves. If other tokens (t, such as the words of a caption or the probe
    of an attention pooling) attend to them, the score is read at those.

    Attributes:
        attentions: P (b, heads, q, k), without a graph.
        places: n.
        readers: t; None if there are none.
    """

    attentions: Sequence[Tensor]
    places: int
    readers: int | None

    @classmethod
    def of(cls, attentions: Sequence[Tensor]) -> "Chain":
        """Sort them by the numbers of their queries and keys.

        Args:
            attentions: P of every layer that the score depends on.

        Returns:
            The chain.

        Raises:
            UserError: They are of more than two kinds of tokens, or of two that cannot be told apart.
        """
        sizes = [(p.shape[2], p.shape[3]) for p in attentions]
        crosses = {size for size in sizes if size[0] != size[1]}
        # Words that attend among themselves attend to earlier ones only; the picture's tokens to all.
        causal = {not bool(p.triu(1).any()) for p in attentions}
        if not crosses and len(causal) > 1 and len({*sizes}) == 1:
            raise UserError(
                f"expected another number of words than of the picture's tokens, got {sizes[0][0]} of both, which "
                "cannot be told apart; explain one word less or more"
            )
        readers, places = next(iter(crosses)) if crosses else (None, sizes[0][0])
        if len(crosses) > 1 or not {*sizes} <= {(places, places), (readers, readers), (readers, places)}:
            raise UserError(
                "expected attention among the tokens of the picture, and of at most one kind of other tokens to them; "
                f"got queries and keys {sorted({*sizes})}; use grad_cam for this model"
            )
        return cls(attentions, places, readers)

    def rollout(self, last: Float[Tensor, "b r heads q k"]) -> Float[Tensor, "b r n"]:
        """`rollout` of the picture's tokens, as the tokens see it at which the score is read.

        Args:
            last: ∇P of the last attention.

        Returns:
            One number a token of the picture.

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
        return at_reading(total[:, None].expand(-1, last.shape[1], -1, -1), last)

    def relevance(self, gradients: Sequence[Float[Tensor, "b r heads _ _"]]) -> Float[Tensor, "b r n"]:
        """Chefer's relevance (arXiv 2103.15679) of the picture's tokens for those at which the score is read.

        Args:
            gradients: ∇P of every attention.

        Returns:
            One number a token of the picture.
        """
        b, r = gradients[0].shape[:2]
        like = self.attentions[0]
        all_mixed = [gradient_times_attention(p, g) for p, g in zip(self.attentions, gradients, strict=True)]
        places = _identity(self.places, like).expand(b, r, -1, -1)
        if self.readers is None:
            for mixed in all_mixed:
                places, _ = self_attention_rule(mixed, places, None)
            return at_reading(places, gradients[-1])
        readers = _identity(self.readers, like).expand(b, r, -1, -1)
        across: Tensor | None = like.new_zeros(b, r, self.readers, self.places)
        for mixed in all_mixed:
            assert across is not None
            if mixed.shape[2:] == (self.readers, self.places):
                readers, across = cross_attention_rule(mixed, readers, places, across)
            elif mixed.shape[2] == self.places:
                places, _ = self_attention_rule(mixed, places, None)
            else:
                readers, across = self_attention_rule(mixed, readers, across)
        assert across is not None
        return at_reading(across, gradients[-1])

    def looking(self) -> list[int]:
        """Numbers of the attentions that look at the picture from where scores may be read."""
        wanted = self.places if self.readers is None else self.readers
        return [i for i, p in enumerate(self.attentions) if p.shape[2:] == (wanted, self.places)]


def at_reading(matrix: Float[Tensor, "b r q n"], last: Float[Tensor, "b r heads q k"]) -> Float[Tensor, "b r n"]:
    """The mean of a matrix's rows over the queries at which a score is read; zeros if it is read at none.

    Args:
        matrix: One row a query.
        last: ∇P of the last attention, which is zero for queries whose output the score does not depend on: all but the
            class token, or the place of a word.

    Returns:
        The mean.
    """
    read = (last != 0).any(4).any(2).to(matrix.dtype)
    return torch.einsum("brq,brqn->brn", read, matrix) / read.sum(2, keepdim=True).clamp(min=1)


def _identity(n: int, like: Tensor) -> Float[Tensor, "n n"]:
    return torch.eye(n, dtype=like.dtype, device=like.device)
