"""A data set's bias, seen in the maps before any test shows it, and gone when the data are balanced."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmcam.engine import explain_activations
from mmcam.errors import UserError
from mmcam.evaluation.baselines import baselines
from mmcam.evaluation.compare import paired
from mmcam.evaluation.tables import Table
from mmcam.experiments import Experiment
from mmcam.experiments.pooled import PooledTask, fit
from mmcam.explanation import Explanation
from mmcam.metrics.base import Figure, summarise
from mmcam.metrics.mass import mass_accuracy
from mmcam.metrics.pointing import pointing
from mmcam.scenes.draw import aspects, draw
from mmcam.scenes.world import compose
from mmcam.task import Batch, Sample, Task
from mmcam.truth import Truth

__all__ = ["Bias"]

MAPS = ("mass on label", "mass on companion", "pointing at label", "pointing at companion")


class Bias(Experiment):
    """Two labels, each with a companion: in biased training pictures always its own, in balanced ones any.

    The model is the task's trunk, frozen, average pooling, and a linear layer trained here; so nothing but the training
    pictures differs between the rows.
    """

    paper = (
        "Doctors and nurses, 250 pictures each from a web search, 78 % of the doctors men and 93 % of the "
        "nurses women. Maps on faces and hair told of the bias; with as many but balanced pictures the accuracy on a "
        "balanced test rose from 82 % to 90 %."
    )

    def __init__(
        self,
        labels: tuple[str, str] = ("dog", "cat"),
        companions: tuple[str, str] = ("umbrella", "clock"),
        count: int = 200,
        decay: float = 1e-3,
    ) -> None:
        """Say what goes with what.

        Args:
            labels: Two kinds of things, which the model learns to tell apart.
            companions: What goes with the first and with the second.
            count: Number of training pictures, biased and balanced alike.
            decay: Weight of the squared weights in the training loss.

        Raises:
            UserError: The four kinds are not different, or there are too few pictures.
        """
        if len({*labels, *companions}) != 4 or count < 4:
            raise UserError(f"expected four kinds and 4 pictures at least, got {[*labels, *companions]} and {count}")
        self.labels, self.companions, self.count, self.decay = labels, companions, count, decay

    def run(self, task: Task, truth: Truth, *, limit: int, seed: int) -> list[Table]:
        """Train on biased and on balanced scenes; look at maps of biased ones; only then test on balanced ones.

        Args:
            task: Lends its trunk; it must be one for pictures without questions.
            truth: Not used: scenes are composed here, as no published set says what goes with what.
            limit: Number of validation pictures, and of test pictures.
            seed: Of the scenes.
        """
        validation = self._see(task, f"{seed}/bias/validation", limit, 1.0)
        test = self._see(task, f"{seed}/bias/test", limit, 0.5)
        odd = test.companions != test.labels
        rows: dict[str, dict[str, Figure]] = {}
        maps: list[dict[str, Tensor]] = []
        explanations: list[Explanation] = []
        for row, share in (("biased", 1.0), ("balanced", 0.5)):
            train = self._see(task, f"{seed}/bias/{row}", self.count, share)
            weight, bias = fit(train.activations.mean((2, 3)), train.labels, self.decay)
            model = PooledTask(task, weight, bias, self.labels)
            said = model.predict(validation.activations, validation.batch)
            explanations = explain_activations(model, validation.activations, validation.batch, said)
            maps.append(_judge(explanations, validation))
            known, fresh = _right(model, validation), _right(model, test)
            rows[row] = {"validation accuracy": summarise(known)}
            rows[row] |= {name: summarise(values) for name, values in maps[-1].items()}
            rows[row] |= {
                "test accuracy": summarise(fresh),
                "with its companion": summarise(fresh[~odd]),
                "with the other one": summarise(fresh[odd]),
            }
        random = torch.Generator().manual_seed(seed)
        blind = [baselines(explanation, random) for explanation in explanations]
        for row in blind[0]:
            values = _judge([maps_of[row] for maps_of in blind], validation)
            rows[row] = {name: summarise(some) for name, some in values.items()}
        changes: dict[str, dict[str, Figure | float]] = {"balanced less biased": {}}
        for name in MAPS:
            figure, p = paired(maps[0][name], maps[1][name])
            changes["balanced less biased"] |= {name: figure, f"p({name})": p}
        conditions = {
            "labels": list(self.labels),
            "companions": list(self.companions),
            "training pictures": self.count,
            "validation": "as biased as the biased training pictures",
            "test": "balanced",
            "maps": "Grad-CAM of the predicted label, on the validation pictures",
        }
        title = "A biased data set"
        return [Table(title, rows, conditions), Table(f"{title}: what balancing does to the maps", changes, conditions)]

    def _see(self, task: Task, key: str, count: int, share: float) -> "_Seen":
        """Compose pictures in which a share of the companions goes with its label, and run the trunk on them."""
        random, sizes = Random(key), aspects()
        labels = [i % 2 for i in range(count)]
        companions = [label if random.random() < share else 1 - label for label in labels]
        samples, masks = [], []
        for i, (label, other) in enumerate(zip(labels, companions, strict=True)):
            scene = compose(f"{key}/{i}", [self.labels[label], self.companions[other]], sizes)
            picture, things = draw(scene)
            samples.append(Sample(picture, scene.key))
            masks.append(torch.from_numpy(things))
        batch = task.collate(samples).to(task.device)
        with torch.no_grad():
            parts = [task.trunk(batch.take(some)) for some in torch.arange(count).split(16)]
        return _Seen(batch, torch.cat(parts), torch.tensor(labels), torch.tensor(companions), torch.stack(masks))


@dataclass(frozen=True, eq=False)
class _Seen:
    """Pictures after the trunk; the masks are of the label's thing and of its companion."""

    batch: Batch
    activations: Float[Tensor, "n k h w"]
    labels: Int[Tensor, " n"]
    companions: Int[Tensor, " n"]
    masks: Bool[Tensor, "n 2 H W"]


def _right(model: PooledTask, seen: _Seen) -> Float[Tensor, " n"]:
    best = model.predict(seen.activations, seen.batch).ids[:, 0].cpu()
    return (best == seen.labels).double()


def _judge(explanations: Sequence[Explanation], seen: _Seen) -> dict[str, Float[Tensor, " n"]]:
    """Where maps lie, one a picture."""
    maps = torch.cat([explanation.upsample() for explanation in explanations])
    sides = seen.masks.unbind(1)
    return dict(zip(MAPS, [measure(maps, m) for measure in (mass_accuracy, pointing) for m in sides], strict=True))
