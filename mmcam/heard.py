"""Words as well as pixels: which words of the question, or of the caption so far, drive a score; and how much is seen.

A task that hears words says which (`Task.heard`: words and their vectors e) and scores from the vectors
(`Task.scores_heard`). The vectors then take the place that activations have in `mmcam.gradients`: all rows of all
samples in one batched backward. The picture stays as it is. Word t of a caption hears the start mark and the words
before it, so it is driven by neither itself nor later ones: exact zeros.

Nothing is replaced or hooked in the model, so threads may share it and nothing is left behind.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.errors import UserError, unknown
from mmcam.explanation import Explanation
from mmcam.methods.listening import listening
from mmcam.task import Batch, Targets, Task

__all__ = [
    "METHODS",
    "Shares",
    "gradient_times_embedding",
    "integrated_gradients",
    "scores_without_picture",
    "shares",
    "with_words",
]

Baseline = float | Float[Tensor, "..."]
"""What stands for no word: zero, or another vector such as that of padding; anything that broadcasts to (b, l, d)."""


def gradient_times_embedding(
    task: Task, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets
) -> Float[Tensor, "b r l"]:
    """∂y/∂e · e for every word heard: what each adds to the score, to first order (Denil et al., arXiv 1412.6815).

    Of a score that is linear in the vectors the words' values sum to the score less that of zero vectors.

    Args:
        task: The adapter around the model; left as found.
        activations: What `task.trunk(batch)` gave, in eval mode.
        batch: The samples, with the memo that `task.trunk` left.
        targets: What is explained.

    Returns:
        Signed: positive where a word speaks for the row. Zero for padding.

    Raises:
        UserError: The task hears no words.
    """
    with listening(task, activations, batch, targets) as ear:
        return (ear.gradients(ear.vectors) * ear.vectors[:, None]).sum(3)


def integrated_gradients(
    task: Task,
    activations: Float[Tensor, "b k h w"],
    batch: Batch,
    targets: Targets,
    baseline: Baseline = 0.0,
    steps: int = 50,
) -> Float[Tensor, "b r l"]:
    """Integrated gradients (Sundararajan et al., arXiv 1703.01365, Eq. 1) of the words' vectors, all at once.

    (e - e') · ∫ ∂y/∂e at e' + a (e - e') da over a from 0 to 1, by Gauss-Legendre quadrature, with e' the baseline.
    The words' values sum to y(e) - y(e'). Not where the score jumps on the way: `captioning.AttendAndTell` rounds
    counts, whose derivative is zero, so its values lack what the jumps add.

    Args:
        task: See `gradient_times_embedding`, also for the next three.
        activations: A.
        batch: The samples.
        targets: What is explained.
        baseline: e'. The vector of padding is not the default as models that never read padding never learn it.
        steps: Number of places on the way.

    Returns:
        Signed contributions; zero for padding.

    Raises:
        UserError: The task hears no words, or there are no steps.
    """
    if steps < 1:
        raise UserError(f"expected steps of at least 1, got {steps}")
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(steps))
    with listening(task, activations, batch, targets) as ear:
        start = torch.as_tensor(baseline).to(ear.vectors).expand_as(ear.vectors)[:, None]
        way = ear.vectors - start[:, 0]
        mean = way.new_zeros(way[:, None].shape).expand(-1, ear.targets.rows.shape[1], -1, -1)
        for numbers in torch.arange(steps).split(ear.copies):
            places = ((1 + nodes[numbers]) / 2).to(way)
            x = start + places[:, None, None] * way[:, None]  # (b, m, l, d)
            found = ear.gradients(x.flatten(0, 1)).unflatten(0, (-1, len(numbers)))
            mean = mean + torch.einsum("bmrld,m->brld", found, (weights[numbers] / 2).to(found))
        return (way[:, None] * mean).sum(3)


METHODS: Mapping[str, Callable[[Task, Tensor, Batch, Targets], Tensor]] = {
    "integrated_gradients": integrated_gradients,
    "gradient_times_embedding": gradient_times_embedding,
}


@dataclass(frozen=True, eq=False)
class Shares:
    """How much of a word is seen, and how much is heard, which is language prior.

    With y the log-probability of a row, v the picture, v' a blank one, w the words heard and w' vectors of zero in
    their place, picture and words are two players of a game, and get their Shapley values:

        seen  = ½ [y(v, w) - y(v', w)] + ½ [y(v, w') - y(v', w')]
        heard = ½ [y(v, w) - y(v, w')] + ½ [y(v', w) - y(v', w')]
        image = |seen| / (|seen| + |heard|)

    So seen + heard = y(v, w) - y(v', w'), and what only both together give is halved. `image` is 0 of a row that
    ignores the picture, 1 of one that ignores the words, NaN of one that ignores both. It is MM-SHAP (Parcalabescu and
    Frank, arXiv 2212.08158) with one player a modality: 4 scores do for 2ⁿ, but patches that speak against one another
    cancel. Log-probabilities, since logits may rise all together; those of a row of several words are added up.

    Its limits: blank pictures and vectors of zero are nothing that models are trained on, and with another v' the share
    is another. What a model says whatever it sees and hears, by its biases, is counted on neither side. And a share
    says how much, not whether for or against, which `seen` and `heard` say.

    Attributes:
        both: y(v, w).
        without_picture: y(v', w).
        without_words: y(v, w').
        neither: y(v', w').
    """

    both: Float[Tensor, "b r"]
    without_picture: Float[Tensor, "b r"]
    without_words: Float[Tensor, "b r"]
    neither: Float[Tensor, "b r"]

    @property
    def seen(self) -> Float[Tensor, "b r"]:
        """What the picture adds."""
        return (self.both - self.without_picture + self.without_words - self.neither) / 2

    @property
    def heard(self) -> Float[Tensor, "b r"]:
        """What the words add."""
        return (self.both - self.without_words + self.without_picture - self.neither) / 2

    @property
    def image(self) -> Float[Tensor, "b r"]:
        """The image's share, from 0 to 1; the words' is the rest."""
        return self.seen.abs() / (self.seen.abs() + self.heard.abs())


def shares(
    task: Task,
    activations: Float[Tensor, "b k h w"],
    batch: Batch,
    targets: Targets,
    others: Float[Tensor, "n c H W"] | None = None,
    baseline: Baseline = 0.0,
) -> Shares:
    """Score every row with and without the picture and the words.

    Args:
        task: See `gradient_times_embedding`, also for the next three.
        activations: A.
        batch: The samples.
        targets: What is explained.
        others: Pictures over whose y is averaged where the picture shall be missing, in the network's input; a blank
            one of the mean colour (zeros) if not given.
        baseline: What stands for no word.

    Returns:
        The log-probabilities; of padded rows zero, with shares of NaN.

    Raises:
        UserError: The task hears no words, or there are no other pictures.
    """
    with listening(task, activations, batch, targets) as ear:
        silence = torch.as_tensor(baseline).to(ear.vectors).expand_as(ear.vectors)
        before = [[other.logs(ear.vectors), other.logs(silence)] for other in ear.before(others)]
        without_picture, neither = (torch.stack(logs).mean(0) for logs in zip(*before, strict=True))
        return Shares(ear.logs(ear.vectors), without_picture, ear.logs(silence), neither)


def scores_without_picture(
    task: Task,
    activations: Float[Tensor, "b k h w"],
    batch: Batch,
    targets: Targets,
    others: Float[Tensor, "n c H W"] | None = None,
) -> Float[Tensor, "b r"]:
    """The score of every row (a log-probability or a logit) before other pictures, in the mean: what is said unseen.

    Args:
        task: See `shares`, also for the others.
        activations: A.
        batch: The samples.
        targets: What is explained.
        others: The other pictures.

    Returns:
        The scores; zero for padded rows.
    """
    with listening(task, activations, batch, targets) as ear:
        return torch.stack([other.scores(ear.vectors) for other in ear.before(others)]).mean(0)


def with_words(
    explanations: Sequence[Explanation],
    task: Task,
    activations: Float[Tensor, "b k h w"],
    batch: Batch,
    targets: Targets,
    method: str = "integrated_gradients",
) -> list[Explanation]:
    """Add to explanations what `mmcam.explain_activations` does not ask: the words heard and the image's share.

    Args:
        explanations: Of the same samples and targets.
        task: See `gradient_times_embedding`, also for the next three.
        activations: A.
        batch: The samples.
        targets: What is explained.
        method: Name of one in `METHODS`; its baseline is zero.

    Returns:
        Explanations with `heard`, `heard_scores`, `image_shares` and `without_picture`.

    Raises:
        UserError: The task hears no words, or the method is not known.
    """
    if method not in METHODS:
        raise unknown("method for words", method, METHODS)
    if [e.words for e in explanations] != list(targets.words):
        raise UserError("expected explanations of the targets' own rows, in order; got others")
    with listening(task, activations, batch, targets) as ear:
        words = ear.words
    driven = METHODS[method](task, activations, batch, targets).cpu()
    image = shares(task, activations, batch, targets).image.cpu()
    unseen = scores_without_picture(task, activations, batch, targets).cpu()
    return [
        replace(
            e,
            heard=words[i],
            heard_scores=driven[i, : len(e.words), : len(words[i])].clone(),
            image_shares=image[i, : len(e.words)].clone(),
            without_picture=unseen[i, : len(e.words)].clone(),
        )
        for i, e in enumerate(explanations)
    ]
