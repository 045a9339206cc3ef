"""A trunk that was trained before: it stays frozen, learns along, or does first the one and then the other."""

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Dataset

from mmcam.errors import UserError
from mmcam.pictures import frozen_activations
from mmcam.training.recipe import Recipe


class TrunkRecipe(Recipe):
    """A recipe for a model with a `backbone` (see `mmcam.networks.backbones`) that was trained beforehand.

    Attributes:
        trunk_rate: Highest learning rate of the trunk; 0 keeps it frozen.
        trunk_from: The epoch from which the trunk learns, 1 is the first. Until then it is frozen, and its batch
            statistics stay what they were until the end. None: it learns from the first epoch on, its batch statistics
            too.
        in_memory: Whether the activations of a trunk that never learns are computed once and kept in memory (float16);
            otherwise pictures are read anew in every epoch.
    """

    trunk_rate: float = 0.0
    trunk_from: int | None = None
    in_memory: bool = True
    _epoch = 1

    @property
    def learning(self) -> bool:
        """Whether the trunk learns in this epoch."""
        return self.trunk_rate > 0 and self._epoch >= (self.trunk_from or 1)

    @property
    def kept(self) -> bool:
        """Whether examples hold activations instead of pictures."""
        return not self.trunk_rate and self.in_memory

    def begin(self, model: nn.Module, epoch: int) -> None:
        """Freeze the trunk, or let it learn."""
        self._epoch = epoch
        self.backbone_of(model).requires_grad_(self.learning)

    def rates(self, model: nn.Module) -> list[dict[str, Any]]:
        """The trunk has a rate of its own; while it is frozen it has no gradient, and nothing changes it."""
        own = list(self.backbone_of(model).parameters())
        trunk = set(own)
        groups = [{"params": [p for p in model.parameters() if p not in trunk], "lr": self.rate}]
        return groups + ([{"params": own, "lr": self.trunk_rate}] if self.trunk_rate else [])

    def hold_still(self, model: nn.Module) -> None:
        """While the model trains, keep what is frozen as it is: dropout and batch statistics too."""
        backbone = self.backbone_of(model)
        if not self.learning:
            backbone.eval()
        elif self.trunk_from is not None:
            for part in backbone.modules():
                if isinstance(part, _BatchNorm):
                    part.eval()

    def seen(self, model: nn.Module, pictures: Dataset[torch.Tensor], device: torch.device) -> Any:  # noqa: ANN401
        """The pictures, or what the frozen trunk makes of them."""
        if not self.kept:
            return pictures
        return frozen_activations(self.backbone_of(model), pictures, device, amp=True, workers=self.workers)

    def check(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            UserError: `trunk_from` is no epoch, or there is none in which the trunk learns.
        """
        if self.trunk_from is None:
            return
        if self.trunk_from < 1:
            raise UserError(f"trunk_from: expected 1 at least, the first epoch, got {self.trunk_from}")
        if not self.trunk_rate:
            raise UserError("trunk_from: expected a trunk_rate above 0 with it, got 0; set the rate or leave it out")

    @staticmethod
    def backbone_of(model: nn.Module) -> Any:  # noqa: ANN401
        """The model's CNN."""
        return model.backbone
