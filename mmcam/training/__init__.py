"""Training any model by one loop: seeded, resumable after a kill, in one process or several, with learning curves."""

from mmcam.training.loop import train
from mmcam.training.recipe import Recipe
from mmcam.training.steps import Steps
from mmcam.training.trunk import TrunkRecipe

__all__ = ["Recipe", "Steps", "TrunkRecipe", "train"]
