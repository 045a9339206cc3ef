"""Questions about explanations: what speaks against a word, why it and not another, which channels, how alike they are.

against           what speaks against each row: the counterfactual maps of Grad-CAM (arXiv 1610.02391, section 3.3)
over_runner_up    targets "w rather than what the model would have said instead"
important         the channels with the highest and the lowest α of each row, by their names
cosine, rank      how alike the α of several rows are
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.engine import explain_activations
from mmcam.errors import UserError
from mmcam.explanation import Explanation
from mmcam.metrics.agreement import ranks
from mmcam.task import Batch, Targets, Task, evaluating

__all__ = ["Channel", "Importance", "against", "cosine", "important", "over_runner_up", "rank", "weights_of"]


def against(
    task: Task,
    activations: Float[Tensor, "b k h w"],
    batch: Batch,
    targets: Targets,
    method: str = "grad_cam",
) -> list[Explanation]:
    """Explain what speaks against each row: counterfactual explanations, of -y instead of y.

    Without the places where these maps are positive the model would be surer of the row. For methods that are linear in
    the score (`mmcam.cam.grad_cam`, hires_cam, cam) they are the maps of the row itself with the sign turned round.

    Args:
        task: The adapter.
        activations: What `task.trunk(batch)` gave, in eval mode.
        batch: The samples, with the memo that `task.trunk` left.
        targets: What is explained.
        method: Name of a method in `mmcam.methods.table`.

    Returns:
        One explanation a sample, with rows "against w" and scores -y.
    """
    words = tuple(tuple(f"against {word}" for word in row) for row in targets.words)
    return explain_activations(task, activations, batch, replace(targets.negative(), words=words), method)


def over_runner_up(task: Task, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets) -> Targets:
    """Explain each word, answer or class rather than its runner-up: what the model would have said in its place.

    Where the target is not the model's first choice, that is what it is held against. In a caption the words before
    stay the same. A phrase is held against the runners-up of its words, each after the words that were said.

    Args:
        task: One that says what comes second (`Task.runners_up`).
        activations: What `task.trunk(batch)` gave, in eval mode.
        batch: The samples, with the memo that `task.trunk` left.
        targets: What is explained, without foils of its own.

    Returns:
        Targets with foils, whose rows are named "w rather than v".

    Raises:
        UserError: The targets are contrasts already, or the task does not say.
    """
    if targets.foils is not None or bool((targets.rows < 0).any()):
        raise UserError("expected targets that are held against nothing yet, got contrasts or counterfactuals")
    with torch.inference_mode(False), torch.no_grad(), evaluating(task):
        second = task.runners_up(activations, batch, targets)
    foils = targets.ids.clone()
    foils[:, : second.ids.shape[1]] = second.ids.to(foils.device)
    words = tuple(
        tuple(_rather_than(word, row.tolist(), others, task.separator) for word, row in zip(names, rows, strict=False))
        for names, rows, others in zip(targets.words, targets.rows, second.words, strict=True)
    )
    return replace(targets.rather_than(foils), words=words)


@dataclass(frozen=True)
class Channel:
    """A channel of the explained layer and its α for some row."""

    number: int
    name: str
    weight: float


@dataclass(frozen=True)
class Importance:
    """The channels that speak most for a row, the first one first, and those that speak most against it.

    As in section 7 of Grad-CAM (arXiv 1610.02391): by what such channels are named, a decision is put into words.
    """

    word: str
    most: tuple[Channel, ...]
    least: tuple[Channel, ...]

    def __str__(self) -> str:
        """The explanation in words, each name once."""
        most, least = (", ".join(dict.fromkeys(c.name for c in channels)) for channels in (self.most, self.least))
        return f"{self.word} because of {most}; despite {least}"


def important(explanation: Explanation, names: Mapping[int, str] | None = None, count: int = 5) -> list[Importance]:
    """Find the channels with the highest and the lowest α of each row.

    Args:
        explanation: With weights, see `mmcam.engine.explain_activations`.
        names: Names of channels by number; those without one are left out. All by their numbers ("channel 12") if not
            given. `mmcam.experiments.dissection.dissect` finds names.
        count: How many on each side.

    Returns:
        One a row. Equal weights in the order of the channels. A channel may be on both sides if there are few.

    Raises:
        UserError: The explanation has no weights, no channel has a name or one that there is not, or `count` is not
            positive.
    """
    weights = weights_of([explanation])
    if count < 1:
        raise UserError(f"expected 1 channel or more on each side, got {count}")
    known = {i: f"channel {i}" for i in range(weights.shape[1])} if names is None else dict(sorted(names.items()))
    if not known or min(known) < 0 or max(known) >= weights.shape[1]:
        came = f"{min(known)} to {max(known)}" if known else "none"
        raise UserError(f"expected names of some of the channels 0 to {weights.shape[1] - 1}, got {came}")
    numbers = list(known)
    found = []
    for word, row in zip(explanation.words, weights[:, numbers], strict=True):
        sides = [row.argsort(descending=way, stable=True)[:count].tolist() for way in (True, False)]
        most, least = (tuple(Channel(numbers[i], known[numbers[i]], float(row[i])) for i in side) for side in sides)
        found.append(Importance(word, most, least))
    return found


def weights_of(explanations: Iterable[Explanation]) -> Float[Tensor, "n k"]:
    """α of all rows of all explanations, one below the other; for `cosine` and `rank`.

    Raises:
        UserError: An explanation has none, or they are not of the same layer.
    """
    rows = []
    for e in explanations:
        if e.weights is None:
            raise UserError(
                f"expected weights in the explanation of {e.id!r}, got none; use explain_activations(…, "
                "keep_weights=True) with a method that is made of such, as grad_cam is"
            )
        rows.append(e.weights)
    if not rows:
        raise UserError("expected 1 explanation or more, got none")
    if len({row.shape[1] for row in rows}) > 1:
        raise UserError(f"expected weights of the same channels, got {sorted({row.shape[1] for row in rows})} of them")
    return torch.cat(rows)


def cosine(weights: Float[Tensor, "n k"]) -> Float[Tensor, "n n"]:
    """How alike the directions of rows of α are, from -1 to 1, each with each; for `grad_cam` maps of the same picture.

    Two rows with cosine 1 give the same map of every picture, but for its scale.

    Args:
        weights: Such as `weights_of` gives: of the words of a caption, or of one class in several pictures.

    Returns:
        The cosines in float64; NaN for a row of zeros.
    """
    rows = weights.double()
    rows = rows / rows.abs().amax(1, keepdim=True)  # or squares of small numbers would be zero
    return _alike(rows)


def rank(weights: Float[Tensor, "n k"]) -> Float[Tensor, "n n"]:
    """Spearman's rank correlation of rows of α, each with each: whether the same channels matter, in whatever measure.

    Args:
        weights: See `cosine`.

    Returns:
        The correlations in float64, with mean ranks for ties; NaN for a row whose weights are all the same.
    """
    places = ranks(weights)
    return _alike(places - places.mean(1, keepdim=True))


def _alike(rows: Float[Tensor, "n k"]) -> Float[Tensor, "n n"]:
    unit = rows / rows.norm(dim=1, keepdim=True)
    return (unit @ unit.T).clamp(-1, 1)


def _rather_than(word: str, row: Sequence[float], others: Sequence[str], separator: str) -> str:
    """Name a row by its runner-up."""
    return f"{word} rather than {separator.join(others[t] for t, weight in enumerate(row) if weight)}"
