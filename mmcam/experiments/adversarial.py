"""Fooled on purpose: do the maps of what is there survive an attack that makes the network say something else?"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.engine import explain_activations
from mmcam.errors import UserError
from mmcam.evaluation.evaluate import Evaluation
from mmcam.evaluation.runs import Explained, explained
from mmcam.evaluation.tables import Table
from mmcam.experiments import Experiment
from mmcam.experiments.judged import higher
from mmcam.experiments.pairs import differences
from mmcam.experiments.pgd import Objective, Range, attack, away, pixel_range, towards
from mmcam.explanation import Explanation
from mmcam.metrics.base import Figure, summarise
from mmcam.metrics.mass import MassAccuracy
from mmcam.metrics.pointing import Pointing
from mmcam.task import Targets, Task
from mmcam.truth import Truth

__all__ = ["Adversarial"]

ATTACKS: dict[str, Objective] = {"attack towards": towards, "attack towards and away": away}
ROWS = ("clean", "noise", *ATTACKS)
SAID = ("says the wrong class", "p(wrong)", "p(right)")


class Adversarial(Experiment):
    """Maps of the true classes before and after an attack, and after noise of the same size."""

    paper = (
        "VGG-16 fooled into more than 0.9999 for a class that is not there (airliner), while the maps of "
        "the true classes still lie on them. The paper shows a picture; here it is counted."
    )

    def __init__(self, epsilon: float = 0.251, steps: int = 10, method: str = "grad_cam") -> None:
        """Say how strong the attack is.

        Args:
            epsilon: Greatest change of any number of the network's input, in its units. With scenes' normalisation,
                (x - 0.5) / 0.5, one of 255 grey levels is 0.00784, so the default is 32 of them.
            steps: Number of gradients taken; each moves by 2.5 epsilon / steps.
            method: Name of the method.

        Raises:
            UserError: A number is not positive.
        """
        if epsilon <= 0 or steps < 1:
            raise UserError(f"expected epsilon above 0 and 1 step at least, got {epsilon} and {steps}")
        self.epsilon, self.steps, self.method = epsilon, steps, method

    def run(self, task: Task, truth: Truth, *, limit: int, seed: int) -> list[Table]:
        """Attack every picture towards a class that is not in it.

        Args:
            task: Of classes or answers; its trunk must be differentiable in the images.
            truth: Says which classes are there, and where.
            limit: Use the first pictures only.
            seed: Of the wrong classes, the attack's start and the noise.
        """
        random = torch.Generator().manual_seed(seed)
        metrics = {"pointing": Pointing(), "mass": MassAccuracy()}
        every = Evaluation(metrics, truth, seed=seed)
        fooled = {row: Evaluation(metrics, truth, seed=seed) for row in ATTACKS}
        said: dict[str, list[Tensor]] = {row: [] for row in ROWS}
        known = _known(task, truth, limit)
        colours = pixel_range(task, truth.sample(0).text)
        for some in explained(task, truth, [], given=True, limit=limit):
            pairs = zip(some.numbers, some.targets.words, strict=True)
            wrong = [_absent(truth, number, words, known, random) for number, words in pairs]
            found: dict[str, list[Explanation]] = {}
            for row, images in self._changed(task, some, _against(some.targets, wrong, known), colours, random).items():
                values, found[row] = self._asked(task, some, images, wrong, known)
                said[row].append(values)
            for i, number in enumerate(some.numbers):
                every.add(number, {row: found[row][i] for row in ROWS})
                for row, evaluation in fooled.items():
                    if said[row][-1][i, 0]:
                        evaluation.add(number, {name: found[name][i] for name in ("clean", row)})
        words = {row: torch.cat(values).unbind(1) for row, values in said.items()}
        maps = every.figures()
        rows: dict[str, dict[str, Figure]] = {
            row: dict(zip(SAID, map(summarise, words[row]), strict=True)) | maps[row] for row in ROWS
        }
        for row, evaluation in fooled.items():
            hit = evaluation.figures()
            if hit:
                rows |= {f"clean, where {row} succeeds": hit["clean"], f"{row}, where it succeeds": hit[row]}
        rows |= {row: figures for row, figures in maps.items() if row not in ROWS}
        levels = (255 * self.epsilon / (colours[1] - colours[0])).flatten().tolist()
        conditions = {
            "attacks": f"PGD, maximum norm, random start, {self.steps} steps of {2.5 / self.steps:g} epsilon; towards "
            "a class that is absent, by its score, or also away from the strongest of those present",
            "epsilon": f"{self.epsilon:g} in units of the network's input",
            "grey levels of 255": [round(level, 2) for level in levels],
            "noise": "plus or minus epsilon at random",
            "method": self.method,
        }
        title = "Adversarial pictures: maps of the classes that are there"
        paired = differences(f"{title}, paired", every, "clean", ROWS[1:], conditions)
        return [Table(title, rows, conditions, (), higher(metrics)), paired]

    def _changed(
        self, task: Task, some: Explained, against: Targets, colours: Range, random: torch.Generator
    ) -> dict[str, Float[Tensor, "b c h w"]]:
        """The pictures of each row."""
        images = some.batch.images
        signs = torch.rand(images.shape, generator=random).to(images).round() * 2 - 1
        noise = (images + self.epsilon * signs).clamp(*colours)
        changed = {"clean": images, "noise": noise}
        for row, objective in ATTACKS.items():
            changed[row] = attack(task, some.batch, against, objective, self.epsilon, self.steps, colours, random)
        return changed

    def _asked(
        self,
        task: Task,
        some: Explained,
        images: Float[Tensor, "b c h w"],
        wrong: Sequence[str],
        known: Mapping[str, int],
    ) -> tuple[Float[Tensor, "b 3"], list[Explanation]]:
        """What the network says of changed pictures, in the order of SAID, and the maps of the true classes."""
        batch, targets = replace(some.batch, images=images, memo={}), _against(some.targets, wrong, known)
        with torch.no_grad():
            activations = task.trunk(batch)
            p = task.probabilities(activations, batch, targets).masked_fill(~targets.mask, 0).cpu()
            best = task.predict(activations, batch).words
        says = torch.tensor([float(words[0] == name) for words, name in zip(best, wrong, strict=True)])
        explanations = explain_activations(task, activations, batch, some.targets, self.method)
        return torch.stack([says.to(p), p[:, 0], p[:, 1:].sum(1)], 1), explanations


def _against(targets: Targets, wrong: Sequence[str], known: Mapping[str, int]) -> Targets:
    """Of each picture the wrong class, then the right ones."""
    ids = [[known[name], *row] for name, row in zip(wrong, targets.row_ids(), strict=True)]
    words = [[name, *row] for name, row in zip(wrong, targets.words, strict=True)]
    return Targets.of(ids, words, targets.ids.device)


def _known(task: Task, truth: Truth, limit: int) -> dict[str, int]:
    """All classes that people gave to these pictures, with their numbers in the model."""
    known: dict[str, int] = {}
    any_batch = task.collate([truth.sample(0)])
    for number in range(min(limit, len(truth))):
        for text in truth.given(number)[:1]:
            targets = task.given([text], any_batch)
            known |= dict(zip(targets.words[0], targets.row_ids()[0], strict=True))
    return known


def _absent(truth: Truth, number: int, right: Sequence[str], known: Mapping[str, int], random: torch.Generator) -> str:
    """Draw a class that is not in a picture."""
    names = [name for name in sorted(known) if name not in right and not truth.about(number, [name])[0]]
    if not names:
        raise UserError(f"{truth.ids[number]}: expected a class that is not in it, but all are; use more pictures")
    return names[int(torch.randint(len(names), (1,), generator=random))]
