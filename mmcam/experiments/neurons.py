"""Channels named by what they answer to, and explanations in words: "dog because of dog and cat, despite umbrella"."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.engine import explain_activations
from mmcam.errors import UserError
from mmcam.evaluation.runs import explained
from mmcam.evaluation.tables import Table
from mmcam.experiments import Experiment
from mmcam.experiments.dissection import Neuron, dissect
from mmcam.metrics.base import Figure, summarise
from mmcam.task import Task
from mmcam.truth import Truth

__all__ = ["Neurons", "chance"]

EXAMPLES = 5


class Neurons(Experiment):
    """Name the channels on some pictures; on others list the most and the least important ones of the first answer."""

    paper = (
        "Channels of the last convolution of a VGG-16 trained on Places365, named by Network Dissection (Broden) and "
        "kept where the IoU is above 0.05; a class is explained by the names of the five channels with the highest "
        "weights and of the five with the lowest. The paper shows examples; here it is counted how often the class's "
        "own name is among them."
    )

    def __init__(self, naming: int = 200, share: float = 0.005, least: float = 0.05, top: int = 5) -> None:
        """Say how channels are named and how many are shown.

        Args:
            naming: Number of pictures that the channels are named on; they follow those that are explained.
            share: Part of all places at which a channel is said to be active, its most active ones.
            least: IoU that a name must exceed.
            top: Number of names on each side.

        Raises:
            UserError: A number is out of its range.
        """
        if naming < 1 or top < 1 or not 0 < share < 1 or not 0 <= least < 1:
            raise UserError(
                "expected 1 picture and 1 name at least, a share in (0, 1) and an IoU in [0, 1); got "
                f"{naming}, {top}, {share} and {least}"
            )
        self.naming, self.share, self.least, self.top = naming, share, least, top

    def run(self, task: Task, truth: Truth, *, limit: int, seed: int) -> list[Table]:
        """Dissect, then explain.

        Args:
            task: Whose answers are names of things.
            truth: Must hold more pictures than `limit`; the next `naming` of them are for the names.
            limit: Number of explained pictures.
            seed: Not used: nothing here is random.
        """
        numbers = range(limit, min(limit + self.naming, len(truth)))
        if not numbers:
            raise UserError(f"expected more than {limit} pictures, the rest to name channels on; got {len(truth)}")
        neurons = dissect(task, truth, numbers, self.share)
        named = [neuron for neuron in neurons if neuron.iou > self.least]
        if len(named) < 2 * self.top:
            raise UserError(
                f"expected {2 * self.top} channels with an IoU above {self.least}, found {len(named)} of {len(neurons)}"
            )
        columns = torch.tensor([neuron.channel for neuron in named])
        records: list[tuple[int, bool, bool, bool, float]] = []
        examples: list[str] = []
        for some in explained(task, truth, [], limit=limit):
            first = some.targets.only([[0]] * len(some.batch))
            kept = explain_activations(task, some.activations, some.batch, first, "grad_cam", keep_weights=True)
            for number, explanation in zip(some.numbers, kept, strict=True):
                (about,) = truth.about(number, explanation.words)
                if not about or explanation.weights is None:
                    continue
                kind = truth.things(number).names[about[0]]
                order = explanation.weights[0, columns].argsort(descending=True, stable=True).tolist()
                most = [named[i].name for i in order[: self.top]]
                least = [named[i].name for i in order[: -self.top - 1 : -1]]
                owners = sum(neuron.name == kind for neuron in named)
                by_chance = chance(len(named), owners, self.top)
                records.append((number, owners > 0, kind in most, kind in least, by_chance))
                if len(examples) < EXAMPLES:
                    examples.append(_sentence(explanation.words[0], most, least))
        if not records:
            raise UserError(f"expected first answers that name things of their pictures, got none in {limit}")
        return self._tables(neurons, named, torch.tensor(records, dtype=torch.float64), examples, len(numbers))

    def _tables(
        self,
        neurons: Sequence[Neuron],
        named: Sequence[Neuron],
        records: Float[Tensor, "n 5"],
        examples: Sequence[str],
        count: int,
    ) -> list[Table]:
        conditions = {
            "named on": f"{count} other pictures, by the {self.share:.1%} most active places of a channel",
            "kept": f"IoU above {self.least}",
            "names shown": f"{self.top} with the highest weights, {self.top} with the lowest",
            "chance": f"{self.top} of the named channels drawn without looking",
        }
        counts: dict[str, dict[str, Figure | int]] = {
            "explained layer": {
                "channels": len(neurons),
                "named": len(named),
                "different names": len({neuron.name for neuron in named}),
                "IoU of the named": summarise(torch.tensor([neuron.iou for neuron in named])),
            }
        }
        units, known = records[:, 0].long(), records[:, 1] > 0
        column = "explained kind among the names"
        rows = {
            name: {
                column: summarise(values, units),
                f"{column}, if a channel has its name": summarise(values[known], units[known]),
            }
            for name, values in zip(("top", "bottom", "chance"), records[:, 2:].unbind(1), strict=True)
        }
        return [
            Table("Neurons named by dissection", counts, conditions),
            Table("Names of the most and the least important neurons", rows, conditions, tuple(examples)),
        ]


def chance(channels: int, owners: int, drawn: int) -> float:
    """The probability that a name is among those of some channels drawn without replacement.

    Args:
        channels: Their number.
        owners: How many have the name.
        drawn: How many are drawn; all of them at most.
    """
    missed = 1.0
    for i in range(min(drawn, channels)):
        missed *= max(channels - owners - i, 0) / (channels - i)
    return 1 - missed


def _sentence(word: str, most: Sequence[str], least: Sequence[str]) -> str:
    """Say it in words, each name once."""
    return f"{word} because of {', '.join(dict.fromkeys(most))}; despite {', '.join(dict.fromkeys(least))}."
