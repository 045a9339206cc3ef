"""A small model on a frozen trunk: average pooling and a linear layer, trained in a second."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmcam.task import Batch, Sample, Targets, Task

__all__ = ["PooledTask", "fit"]


class PooledTask(Task):
    """Another task's trunk with average pooling and a linear layer behind it; Grad-CAM is CAM there."""

    def __init__(
        self, task: Task, weight: Float[Tensor, "c k"], bias: Float[Tensor, " c"], labels: Sequence[str]
    ) -> None:
        """Join them.

        Args:
            task: Lends `collate` and `trunk`.
            weight: Of the linear layer.
            bias: Of the linear layer.
            labels: Names of its outputs.
        """
        super().__init__()
        self.task, self.labels, self.layer = task, tuple(labels), task.layer
        self.readout = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
        with torch.no_grad():
            self.readout.weight.copy_(weight)
            self.readout.bias.copy_(bias)

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """As the other task does."""
        return self.task.collate(samples)

    def trunk(self, batch: Batch) -> Float[Tensor, "b k h w"]:
        """That of the other task."""
        return self.task.trunk(batch)

    def predict(self, activations: Float[Tensor, "b k h w"], batch: Batch) -> Targets:
        """The more probable label."""
        best = self._logits(activations).argmax(1).tolist()
        return Targets.of([[i] for i in best], [[self.labels[i]] for i in best], activations.device)

    def scores(self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets) -> Float[Tensor, "b t"]:
        """Logits."""
        return targets.pick(self._logits(activations))

    def _logits(self, activations: Float[Tensor, "b k h w"]) -> Float[Tensor, "b c"]:
        return self.readout(activations.mean((2, 3)))


def fit(
    features: Float[Tensor, "n k"], labels: Int[Tensor, " n"], decay: float
) -> tuple[Float[Tensor, "c k"], Float[Tensor, " c"]]:
    """Train a linear layer by softmax regression: a convex problem, so nothing is random.

    Args:
        features: Of the pictures.
        labels: From 0.
        decay: Weight of the squared weights.

    Returns:
        Weight and bias.
    """
    count = int(labels.max()) + 1
    with torch.inference_mode(False), torch.enable_grad():
        weight = features.new_zeros(count, features.shape[1]).requires_grad_()
        bias = features.new_zeros(count).requires_grad_()
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = cross_entropy(features @ weight.T + bias, labels.to(features.device)) + decay * (weight**2).sum()
            value.backward()
            return value

        optimizer.step(loss)
    return weight.detach(), bias.detach()
