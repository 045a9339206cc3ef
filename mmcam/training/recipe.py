"""What is trained, on what, and how well it does: what a kind of model says to the loop."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from mmcam.training.steps import Steps


class Recipe(ABC):
    """What is trained, on what, and how well it does; one subclass a kind of model.

    Attributes:
        epochs: Passes over the data.
        batch_size: Examples a step, of all processes and parts together.
        rate: Highest learning rate.
        seed: Of weights, order and dropout.
        steps: The optimiser, and how the rate changes.
        best_by: The measure of which the best epoch's weights are kept too; the lower the better where its name holds
            "loss". "" keeps the last ones only.
        patience: After so many epochs without a better one training ends; None: it does not end early.
        workers: Processes that load examples; set by `train`.
    """

    epochs: int
    batch_size: int
    rate: float
    seed: int = 0
    steps: Steps = Steps()
    best_by: str = ""
    patience: int | None = None
    workers: int = 0

    @abstractmethod
    def build(self) -> nn.Module:
        """Make the model as it is before the first step."""

    @abstractmethod
    def examples(self, model: nn.Module, device: torch.device) -> Dataset[Any]:
        """The training examples; may let the model's frozen parts compute what never changes."""

    def collate(self, examples: Sequence[Any]) -> Any:  # noqa: ANN401
        """Join examples into a batch; PyTorch's way unless a recipe has its own."""
        return torch.utils.data.default_collate(list(examples))

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> Tensor:  # noqa: ANN401
        """The loss of a batch, a mean over something of which `weight` says how much there is."""

    def weight(self, batch: Any) -> float:  # noqa: ANN401
        """How many things a batch's loss is a mean over, by which parts of a step count; examples, if nothing else."""
        first = batch
        while not isinstance(first, Tensor):
            first = next(iter(first.values() if isinstance(first, dict) else first))
        return float(len(first))

    @abstractmethod
    def measure(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """How well the model does on the validation data; every process calls it, the first one's answer counts."""

    def begin(self, model: nn.Module, epoch: int) -> None:
        """Called before each epoch, the first is 1: a recipe may freeze parameters or let them learn."""
        del model, epoch  # no part of this recipe's model changes its mind

    def rates(self, model: nn.Module) -> list[dict[str, Any]]:
        """Parameter groups with their highest learning rates; all that require a gradient, unless a recipe differs."""
        return [{"params": [p for p in model.parameters() if p.requires_grad], "lr": self.rate}]
