"""The smallest tasks that show everything: for tests of the loading, the command line, the store and the doctor."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmcam.errors import UserError, unknown
from mmcam.gradients import batched
from mmcam.image import to_tensor
from mmcam.task import Batch, Sample, Targets, Task

WORDS = ("a", "dog", "cat", "pizza", "left", "of", "the", "red", "yes", "no")
LAYERS = ("conv1", "conv2")


class TinyTask(Task):
    """A CNN of two layers; each word's score is a function of the pooled activations.

    With head "linear" this is global average pooling and a linear layer; "mlp" is not linear; "dead" looks at nothing.
    The prediction is the `length` likeliest words, fewer for darker pictures.
    """

    separator = " "

    def __init__(
        self,
        layer: str = "conv2",
        head: Literal["linear", "mlp", "dead"] = "linear",
        length: int = 3,
        width: int | None = None,
        asks: bool = False,
        seed: int = 0,
        spoil: str = "",
        colours: list[float] | None = None,
        child: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if layer not in LAYERS:
            raise unknown("layer", layer, LAYERS)
        self.layer, self.kind, self.length, self.asks = layer, head, length, asks
        self.colours, self.child = colours, child
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv1 = nn.Conv2d(3, width or 8, 3, stride=2, padding=1)
            self.conv2 = nn.Conv2d(width or 8, width or 8, 3, stride=2, padding=1)
            self.hidden = nn.Linear(width or 8, width or 8)
            self.readout = nn.Linear(width or 8, len(WORDS))
            self.words = nn.Embedding(len(WORDS), len(WORDS))
        if spoil:
            with torch.no_grad():
                self.get_parameter(spoil)[..., 0] = float("nan")

    def collate(self, samples: Sequence[Sample]) -> Batch:
        if self.asks and not all(sample.text for sample in samples):
            raise UserError("expected a question, got an empty text; give one with --question")
        images = torch.stack([to_tensor(sample.image, (16, 24), (0.5,) * 3, (0.5,) * 3) for sample in samples])
        batch = Batch(images, tuple(s.id for s in samples), tuple((s.image.height, s.image.width) for s in samples))
        if not self.asks:
            return batch
        numbers = [[WORDS.index(w) for w in s.text.strip("?").split() if w in WORDS] for s in samples]
        counts = torch.tensor([[float(row.count(w)) for w in range(len(WORDS))] for row in numbers])
        return replace(batch, texts=tuple(sample.text for sample in samples), inputs={"question": counts})

    def trunk(self, batch: Batch) -> Float[Tensor, "b k h w"]:
        first = self.conv1(batch.images).relu()
        return first if self.layer == "conv1" else self.conv2(first).relu()

    def predict(self, activations: Float[Tensor, "b k h w"], batch: Batch) -> Targets:
        order = self._logits(activations, batch).argsort(1, descending=True).tolist()
        counts = [self.length if image.mean() > -0.5 else 1 for image in batch.images]
        ids = [row[:count] for row, count in zip(order, counts, strict=True)]
        return Targets.of(ids, [[WORDS[i] for i in row] for row in ids], activations.device)

    def scores(self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets) -> Float[Tensor, "b t"]:
        return targets.pick(self._logits(activations, batch))

    def given(self, texts: Sequence[str], batch: Batch) -> Targets:
        words = [text.replace(",", " ").split() for text in texts]
        for word in (word for row in words for word in row):
            if word not in WORDS:
                raise unknown("word", word, WORDS)
        return Targets.of([[WORDS.index(word) for word in row] for row in words], words)

    def _logits(self, activations: Float[Tensor, "b k h w"], batch: Batch) -> Float[Tensor, "b v"]:
        x = self.conv2(activations).relu() if self.layer == "conv1" else activations
        x = torch.ones_like(x).mean((-2, -1)) if self.kind == "dead" else x.mean((-2, -1))
        logits = self.readout(self.hidden(x).tanh() if self.kind == "mlp" else x)
        return logits + batch.inputs["question"] @ self.words.weight if self.asks else logits


class Leaking(TinyTask):
    """Wrong on purpose: what a sample's score is depends on the batch that it is in."""

    def _logits(self, activations: Float[Tensor, "b k h w"], batch: Batch) -> Float[Tensor, "b v"]:
        return super()._logits(activations + activations.mean(0, keepdim=True), batch)


class Halved(TinyTask):
    """Wrong on purpose: its derivatives are half of what they should be."""

    @staticmethod
    def vjp(head, x, rows, **options):
        scores, gradients = batched(head, x, rows, **options)
        return scores, gradients / 2


class Classes(TinyTask):
    """What it says is no sentence."""

    separator = ", "


class Pooled(TinyTask):
    """Gives no maps: its layer is behind the pooling."""

    def trunk(self, batch: Batch) -> Float[Tensor, "b k h w"]:
        return super().trunk(batch).mean((-2, -1))  # pyright: ignore[reportReturnType]


class Abstract(TinyTask, Task):
    """Not a task that can be made: it lacks a method."""

    from abc import abstractmethod

    @abstractmethod
    def missing(self) -> None: ...


NOT_A_TASK = 3
