"""What attention says about the input: rollout, gradient × attention, generic attention relevance, LeGrad.

P (b, heads, q, k) are attention probabilities, each query's over the keys; ∇P (b, r, heads, q, k) is the gradient of
every row's score with respect to them. All functions are pure, for all pictures and rows at once, and in the types
that they are given.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "cross_attention_rule",
    "gradient_times_attention",
    "mean_positive_gradient",
    "normalised",
    "relevance",
    "rollout",
    "self_attention_rule",
]


def gradient_times_attention(
    attention: Float[Tensor, "b heads q k"], gradients: Float[Tensor, "b r heads q k"]
) -> Float[Tensor, "b r q k"]:
    """Gradient × attention, P̄ = E_h(P ⊙ ∇P⁺): the mean over the heads of what attention adds to the score.

    This is the map of ALBEF (Li et al., arXiv 2107.07651, section 6.5 and the authors' code) and of LAVIS
    (`compute_gradcam`), where P is one block's cross-attention, q are words and k patches. It is also Eq. 5 of Chefer
    et al. (arXiv 2103.15679), E_h((∇P ⊙ P)⁺), as no probability is negative.

    Differs from the papers: nothing. LAVIS resizes and draws the rows of the words of an image-text matching score.

    Args:
        attention: P.
        gradients: ∇P.

    Returns:
        One matrix a row, nowhere negative.
    """
    return torch.einsum("bhqk,brhqk->brqk", attention, gradients.clamp(min=0)) / attention.shape[1]


def mean_positive_gradient(gradients: Float[Tensor, "b r heads q k"]) -> Float[Tensor, "b r k"]:
    """LeGrad's map of one layer (Bousselham et al., arXiv 2404.03214): the mean of ∇P⁺ over heads and queries.

    The paper's map is the mean of these over the layers l, where ∇P of layer l is that of the layer's own score s^l,
    what the rest of the network says of the mean of the tokens after block l. P itself is not multiplied in.

    Differs from the paper: it is not brought to 0 … 1 here.

    Args:
        gradients: ∂s^l/∂P^l.

    Returns:
        One number a key, none negative.
    """
    return gradients.clamp(min=0).mean((2, 3))


def rollout(attentions: Sequence[Float[Tensor, "b heads n n"]]) -> Float[Tensor, "b n n"]:
    """Attention rollout (Abnar and Zuidema, arXiv 2005.00928, section 3): Ã_l = A_l Ã_{l-1}, A = ½ E_h(P) + ½ I.

    Row i says how much each input token flows into token i after the last layer, if every layer mixed its tokens as its
    attention does, the residual connection counting half. It knows nothing of the score. Rows sum to 1.

    Differs from the paper: nothing; its section on several heads takes their mean, as here.

    Args:
        attentions: P of every layer, the first one first.

    Returns:
        Ã of the last layer.
    """
    first = attentions[0].mean(1)
    identity = torch.eye(first.shape[-1], dtype=first.dtype, device=first.device)
    total = identity.expand_as(first)
    for attention in attentions:
        total = (attention.mean(1) + identity) / 2 @ total
    return total


def relevance(
    attentions: Sequence[Float[Tensor, "b heads n n"]], gradients: Sequence[Float[Tensor, "b r heads n n"]]
) -> Float[Tensor, "b r n n"]:
    """Generic attention relevance (Chefer et al., arXiv 2103.15679) of self-attention alone: R ← R + P̄ R from R = I.

    Args:
        attentions: P of every layer, the first one first.
        gradients: ∇P of every layer.

    Returns:
        R after the last layer; row i says how relevant each input token is for token i.
    """
    b, r = gradients[0].shape[:2]
    n = attentions[0].shape[-1]
    total = torch.eye(n, dtype=attentions[0].dtype, device=attentions[0].device).expand(b, r, n, n)
    for attention, gradient in zip(attentions, gradients, strict=True):
        total, _ = self_attention_rule(gradient_times_attention(attention, gradient), total, None)
    return total


def self_attention_rule(
    mixed: Float[Tensor, "b r s s"], own: Float[Tensor, "b r s s"], across: Float[Tensor, "b r s q"] | None
) -> tuple[Float[Tensor, "b r s s"], Float[Tensor, "b r s q"] | None]:
    """Chefer et al. (arXiv 2103.15679), Eq. 6 and 7: R^ss ← R^ss + P̄ R^ss, R^sq ← R^sq + P̄ R^sq.

    Args:
        mixed: P̄ (`gradient_times_attention`) of a self-attention among the tokens s.
        own: R^ss, how relevant the tokens are for one another; the identity before the first layer.
        across: R^sq, how relevant tokens of the other kind q are for them; None if there are none.

    Returns:
        The new R^ss and R^sq.
    """
    return own + mixed @ own, None if across is None else across + mixed @ across


def cross_attention_rule(
    mixed: Float[Tensor, "b r s q"],
    own: Float[Tensor, "b r s s"],
    others: Float[Tensor, "b r q q"],
    across: Float[Tensor, "b r s q"],
    back: Float[Tensor, "b r q s"] | None = None,
) -> tuple[Float[Tensor, "b r s s"], Float[Tensor, "b r s q"]]:
    """Chefer et al. (arXiv 2103.15679), Eq. 10 and 11: R^sq ← R^sq + R̄^ssᵀ P̄ R̄^qq, R^ss ← R^ss + P̄ R^qs.

    Differs from the paper: nothing; Eq. 11 adds zero where q never attends to s, as in an encoder and decoder.

    Args:
        mixed: P̄ (`gradient_times_attention`) of a cross-attention of the tokens s to the tokens q.
        own: R^ss.
        others: R^qq.
        across: R^sq; zeros before the first layer.
        back: R^qs, if q attends to s as well.

    Returns:
        The new R^ss and R^sq.
    """
    new = across + normalised(own).mT @ mixed @ normalised(others)
    return own if back is None else own + mixed @ back, new


def normalised(relevance: Float[Tensor, "b r n n"]) -> Float[Tensor, "b r n n"]:
    """Chefer et al. (arXiv 2103.15679), Eq. 8 and 9: R̂ = R - I; every row of R̂ is divided by its sum; R̄ = R̂ + I.

    Differs from the paper: a row of R̂ that is zero has no sum to be divided by and stays zero (the authors' code makes
    it NaN and the product 0).

    Args:
        relevance: R of the tokens among themselves.

    Returns:
        R̄.
    """
    identity = torch.eye(relevance.shape[-1], dtype=relevance.dtype, device=relevance.device)
    rest = relevance - identity
    total = rest.sum(-1, keepdim=True)
    return rest / total.masked_fill(total == 0, 1) + identity
