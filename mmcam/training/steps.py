"""One step of training: the optimiser, how its rate changes over a run, and what becomes of large gradients."""

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import nn

from mmcam.errors import UserError

OPTIMISERS: dict[str, Any] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "rmsprop": torch.optim.RMSprop,
}


class Steps:
    """How weights are changed; the defaults are those of the shipped models."""

    def __init__(
        self,
        optimiser: Literal["adamw", "adam", "rmsprop"] = "adamw",
        decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        clip: float = 5.0,
        clamp: float | None = None,
        half_life: float | None = None,
        constant: bool = False,
    ) -> None:
        """Choose.

        Args:
            optimiser: "adamw", "adam" or "rmsprop" (PyTorch's, α = 0.99).
            decay: Weight decay; of "adam" and "rmsprop" as a part of the gradient.
            betas: Of "adamw" and "adam".
            clip: Longer gradients, of all parameters together, are shortened to this length.
            clamp: Every number of the gradient is brought into ±clamp instead, as the older codes do.
            half_life: After so many steps the rate is half, after twice as many a quarter, smoothly.
            constant: The rate never changes. With neither: linear warm-up over the first twentieth of the run, then a
                cosine to zero.

        Raises:
            UserError: A number is not positive, or both ways of the rate are chosen.
        """
        for name, number in {"clip": clip, "clamp": clamp, "half_life": half_life}.items():
            if number is not None and not number > 0:
                raise UserError(f"steps.{name}: expected more than 0, got {number}")
        if constant and half_life is not None:
            raise UserError("steps: expected a constant rate or one with a half-life, got both; leave one out")
        self.optimiser, self.decay, self.betas = optimiser, decay, (float(betas[0]), float(betas[1]))
        self.clip, self.clamp, self.half_life, self.constant = clip, clamp, half_life, constant

    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Make the optimiser of some parameter groups, and note each group's highest rate."""
        more = {} if self.optimiser == "rmsprop" else {"betas": self.betas}
        optimiser = OPTIMISERS[self.optimiser](groups, weight_decay=self.decay, **more)
        for group in optimiser.param_groups:
            group["peak"] = group["lr"]
        return optimiser

    def factor(self, step: int, steps: int) -> float:
        """What the highest rate is multiplied by.

        Args:
            step: Steps done.
            steps: Of the whole run.
        """
        if self.constant:
            return 1.0
        if self.half_life is not None:
            return math.pow(0.5, step / self.half_life)
        warm, done = 0.05, step / steps
        if done < warm:
            return max(done / warm, 1e-3)
        # In single precision, as the shipped models were trained.
        return max(0.5 * (1 + torch.cos(torch.tensor((done - warm) / (1 - warm) * torch.pi)).item()), 1e-3)

    def set_rates(self, optimiser: torch.optim.Optimizer, step: int, steps: int) -> None:
        """Give every group the rate of a step."""
        factor = self.factor(step, steps)
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * factor

    def shorten(self, parameters: Iterable[nn.Parameter]) -> None:
        """Clip or clamp the gradients."""
        if self.clamp is None:
            nn.utils.clip_grad_norm_(list(parameters), self.clip)
        else:
            nn.utils.clip_grad_value_(list(parameters), self.clamp)
