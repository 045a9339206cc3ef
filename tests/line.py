"""The smallest thing that can be trained, for the tests of the training loop; also by torchrun, so it has a file."""

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import nn
from torch.utils.data import TensorDataset

from mmcam.training import Recipe, Steps


class Line(nn.Module, PyTorchModelHubMixin):
    """A line with dropout, so that a run depends on torch's random numbers in every step."""

    def __init__(self, inputs: int = 3, dropout: float = 0.2):
        super().__init__()
        self.drop, self.linear, self.still = nn.Dropout(dropout), nn.Linear(inputs, 1), nn.Linear(1, 1)
        self.still.requires_grad_(False)

    def forward(self, x):
        return self.linear(self.drop(x))


class LineRecipe(Recipe):
    """Learn y = x·(1, 2, 3) + 4 out of 50 points."""

    def __init__(
        self,
        seed: int = 0,
        epochs: int = 4,
        rate: float = 0.1,
        batch_size: int = 8,
        options: dict | None = None,
        spoil: float | None = None,
        points: int = 50,
        dropout: float = 0.2,
        best_by: str = "",
        patience: int | None = None,
        steps: Steps | None = None,
    ):
        self.seed, self.epochs, self.rate, self.batch_size = seed, epochs, rate, batch_size
        self.options, self.spoil, self.points, self.dropout = options or {}, spoil, points, dropout
        self.best_by, self.patience = best_by, patience
        if steps is not None:
            self.steps = steps
        self.batches = []

    def build(self):
        return Line(dropout=self.dropout)

    def examples(self, model, device):
        torch.rand(7)  # what a recipe draws here must not matter
        x = torch.randn(self.points, 3, generator=torch.Generator().manual_seed(1))
        return TensorDataset(x, x @ torch.tensor([1.0, 2.0, 3.0]) + 4)

    def loss(self, model, batch):
        assert model.training
        self.batches.append(batch[0].clone())
        if self.spoil is not None and len(self.batches) > 3:
            return model(batch[0]).sum() * self.spoil
        return (model(batch[0])[:, 0] - batch[1]).square().mean()

    def measure(self, model, device):
        assert not model.training
        return {"slope": model.linear.weight[0, 0].item(), "count": 1.0}
