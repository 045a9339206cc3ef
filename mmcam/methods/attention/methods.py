"""Attention rollout, gradient × attention, attention relevance and LeGrad of a picture, by name.

The explained layer says no more than the grid: attention is that of the whole model, below the layer and behind it. So
the trunk runs with a graph and with attention that is not fused, some pictures at a time; then there is one batched
backward for all rows, down to the first attention that the method asks for. Tokens that lie nowhere (class token,
registers) get no place on the map, as in `mmcam.networks.layout`. Of more than `PICTURES_AT_ONCE` pictures the trunk
runs once more, without a graph, to know the explained layer's places.

The model must call `F.scaled_dot_product_attention` or `nn.MultiheadAttention` (see `mmcam.methods.attention.capture`).
"""

from collections.abc import Callable, Mapping
from functools import partial
from math import prod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmcam.errors import UserError
from mmcam.gradients import of_rows
from mmcam.methods.attention.capture import attention_gradients, depending
from mmcam.methods.attention.chain import Chain
from mmcam.methods.attention.maths import gradient_times_attention, mean_positive_gradient
from mmcam.methods.attention.run import Run, with_kernels_that_run_backward
from mmcam.methods.subject import Subject
from mmcam.networks.layout import Layout, find_layout

__all__ = [
    "FROM_ATTENTION",
    "PICTURES_AT_ONCE",
    "attention_relevance",
    "attention_rollout",
    "gradient_attention",
    "legrad",
]

Found = Callable[[list[Tensor]], Tensor]
"""Gradients (b, r, heads, q, k) of some attentions → one number (b, r, n) a token of the picture."""
PICTURES_AT_ONCE = 8
"""How many have their graph in memory; one of ViT-B/16 takes some 200 MB."""


def attention_rollout(subject: Subject) -> Float[Tensor, "b r h w"]:
    """Attention rollout (Abnar and Zuidema, arXiv 2005.00928): see `mmcam.methods.attention.maths.rollout`.

    The map is the row of the token at which the score is read: the class token, or the mean of all that are pooled. So
    it is the same for all classes. An attention pooling in the end looks at the rollout of the layers before.

    Differs from the paper: nothing; the paper explains words.

    Args:
        subject: What is explained.

    Returns:
        One map a row, nowhere negative.

    Raises:
        UserError: The model has no attention that can be seen, or it is not the picture's alone.
    """

    def last(chain: Chain) -> tuple[list[int], Found]:
        return [len(chain.attentions) - 1], lambda gradients: chain.rollout(gradients[0])

    return _maps(subject, last)


def attention_relevance(subject: Subject) -> Float[Tensor, "b r h w"]:
    """Generic attention relevance (Chefer et al., arXiv 2103.15679), Eq. 5 to 10: see `mmcam.methods.attention.maths`.

    Encoders of one kind of tokens follow Eq. 6. Where other tokens attend to the picture's (words of a decoder, the
    probe of an attention pooling), the map is R^sq at the one that the score is read at.

    Differs from the paper: it reads the class token, here the mean over all tokens is taken that the score depends on
    after the last attention; of a class token it is the same.

    Args:
        subject: What is explained.

    Returns:
        One map a row, nowhere negative.

    Raises:
        UserError: The model has no attention that can be seen, or of too many kinds of tokens.
    """

    def every(chain: Chain) -> tuple[list[int], Found]:
        return [*range(len(chain.attentions))], chain.relevance

    return _maps(subject, every)


def gradient_attention(subject: Subject, layer: int = -1) -> Float[Tensor, "b r h w"]:
    """Gradient × attention: see `mmcam.methods.attention.maths.gradient_times_attention`, of the last layer.

    Of a decoder it is the cross-attention of the word that is scored. Of an encoder it is the self-attention of the
    class token, or the sum over all queries where tokens are pooled.

    Differs from the papers: ALBEF and LAVIS explain a matching score by a block in the middle that was found to be best
    (`layer=`), and have one map a word of the text; here a word has the map of its own score.

    Args:
        subject: What is explained.
        layer: Number of the attention, among those that look at the picture.

    Returns:
        One map a row, nowhere negative.

    Raises:
        UserError: The model has no attention that can be seen, or of too many kinds of tokens.
    """

    def one(chain: Chain) -> tuple[list[int], Found]:
        i = chain.looking()[layer]
        return [i], lambda gradients: gradient_times_attention(chain.attentions[i], gradients[0]).sum(2)

    return _maps(subject, one)


def legrad(subject: Subject) -> Float[Tensor, "b r h w"]:
    """LeGrad (Bousselham et al., arXiv 2404.03214): see `mmcam.methods.attention.maths.mean_positive_gradient`.

    The score of layer l is what the network behind the last block says if all of its tokens are the mean of those after
    block l; all layers are asked at once. Choose an explained layer in the last block or before, or the trunk runs
    again for every layer.

    Differs from the paper: the mean over the layers is not brought to 0 … 1. Of models with an attention pooling the
    maps are those of the self-attention, where the paper takes the pooling's.

    Args:
        subject: What is explained.

    Returns:
        One map a row, nowhere negative.

    Raises:
        UserError: The model is no transformer of blocks whose attention can be seen.
    """
    return _of_pictures(subject, _legrad, watch=True)


FROM_ATTENTION: Mapping[str, Callable[[Subject], Tensor]] = {
    "attention_rollout": attention_rollout,
    "attention_relevance": attention_relevance,
    "gradient_attention": gradient_attention,
    "legrad": legrad,
}
"""For models with attention; others get a `UserError`."""


def _maps(subject: Subject, method: Callable[[Chain], tuple[list[int], Found]]) -> Float[Tensor, "b r h w"]:
    """A method says which attentions it wants the gradients of, and what it makes of them."""

    def some(run: Run) -> Float[Tensor, "b r n"]:
        used = [run.attentions[i] for i in depending(run.scores, run.attentions)]
        if not used:  # nothing looks at the picture
            return run.attentions[-1].new_zeros(*run.rows.shape[:2], run.attentions[-1].shape[3])
        numbers, found = method(Chain.of([p.detach() for p in used]))
        gradients = attention_gradients(run.scores, [used[i] for i in numbers], run.rows)
        return torch.cat([found(chunk) for chunk in gradients], 1)

    return _of_pictures(subject, some)


def _legrad(run: Run) -> Float[Tensor, "b r n"]:
    size = run.attentions[0].shape[2:]
    numbers = [i for i, p in enumerate(run.attentions) if p.shape[2:] == size]
    last = run.blocks.last(numbers)
    used = depending(run.scores, run.attentions)
    if used and numbers[-1] not in used:  # as LLaVA, which reads its tower's last block but one
        raise UserError(
            "expected a score that depends on the last block of the picture's tokens, which LeGrad asks; this model "
            "passes it by; use grad_cam or gradient_norm"
        )
    with torch.enable_grad():
        means = [run.blocks.tokens[i].mean(1) for i in numbers]  # (b, k)
    # One head for all layers, from their means on; then each block backwards alone, from its mean to its attention.
    leaf = torch.cat(means).detach().requires_grad_()
    scores = run.scores_of_means(last, leaf, run.blocks.tokens[numbers[-1]].shape[1])
    rows = run.rows.repeat(len(numbers), 1, 1)
    above = torch.cat([gradient for (gradient,) in attention_gradients(scores, [leaf], rows)], 1)  # (l·b, r, k)
    maps = []
    for i, mean, gradients in zip(numbers, means, above.split(len(run.rows)), strict=True):
        found = attention_gradients(mean, run.attentions[i : i + 1], gradients)
        maps.append(torch.cat([mean_positive_gradient(gradient) for (gradient,) in found], 1))
    return torch.stack(maps).mean(0)


def _of_pictures(subject: Subject, method: Callable[[Run], Tensor], watch: bool = False) -> Float[Tensor, "b r h w"]:
    """One map a row out of one number a token, some pictures at a time."""
    rows = subject.rows
    if not rows.numel():
        a = subject.activations
        return a.new_zeros(*rows.shape[:2], *a.shape[2:])
    size = subject.images.shape[2:]

    def some(index: Int[Tensor, " n"]) -> tuple[Tensor, Tensor, object]:
        run = Run(subject, index, watch)
        found = method(run)
        _, batch, targets = run.traced.asked
        if len(index) == len(rows):
            subject.ran(run.traced.activations, batch)
        return found, of_rows(targets.rows, run.scores.detach()), batch.memo.get("layout")

    everyone = torch.arange(len(rows), device=rows.device)
    parts = [with_kernels_that_run_backward(partial(some, index)) for index in everyone.split(PICTURES_AT_ONCE)]
    found, scores, layouts = zip(*parts, strict=True)
    subject.scored(torch.cat(scores))
    tokens = torch.cat(found).mT  # (b, n, r)
    return _layout(subject, tokens, layouts[0], (size[0], size[1])).spread(tokens)[0]


def _layout(subject: Subject, tokens: Float[Tensor, "b n r"], known: object, size: tuple[int, int]) -> Layout:
    """Where the tokens lie: as those of the explained layer if there are as many, else as their number says."""
    task = subject.asked[0]
    count = tokens.shape[1]
    if isinstance(known, Layout) and known.order == "tokens" and count == known.prefix + prod(known.grid):
        return known
    return find_layout(tokens, size, task, layer="attention")
