"""The rows that know nothing of the word; a method that does not beat them explains nothing."""

from dataclasses import replace

import torch

from mmcam.explanation import Explanation

__all__ = ["baselines"]


def baselines(explanation: Explanation, random: torch.Generator, *, signed: bool = True) -> dict[str, Explanation]:
    """Maps in the place of a method's, for the same words of the same picture.

    Args:
        explanation: By the method under test.
        random: Draws the random row.
        signed: Whether the explanation has its maps before ReLU, so that their sign can be flipped.

    Returns:
        "centre" falls off linearly from the window's centre; "random" is uniform noise at the layer's resolution;
        "uniform" is one everywhere; "flipped" is the method's own map with the other sign, what speaks *against*
        the word.
    """
    count, height, width = explanation.signed.shape
    # An odd number of places, so that one of them is the very centre.
    rows = torch.linspace(-1, 1, height | 1)[:, None]
    columns = torch.linspace(-1, 1, width | 1)
    centre = (1 - (rows**2 + columns**2).sqrt() / 2**0.5).clamp(min=0)
    maps = {
        "centre": centre.expand(count, -1, -1).clone(),
        "random": torch.rand(count, height, width, generator=random),
        "uniform": torch.ones(count, height, width),
    }
    if signed:
        maps["flipped"] = -explanation.signed
    return {name: replace(explanation, signed=map, method=name, weights=None) for name, map in maps.items()}
