"""What the importers have in common: numbered words, and the form of a VGG."""

import re
from collections.abc import Mapping

from torch import Tensor

from mmcam.errors import UserError
from mmcam.importing.weights import shape_of

__all__ = ["numbered", "vgg_stages"]


def numbered(words: object, first: int, where: str) -> list[str]:
    """Bring a dictionary from words to numbers into a list.

    Args:
        words: What stands in the file.
        first: The lowest number.
        where: File and key, for errors.

    Returns:
        The words in the order of their numbers.

    Raises:
        UserError: It is no such dictionary, or its numbers are not first, first + 1, and so on.
    """
    if not isinstance(words, Mapping) or not all(isinstance(w, str) and type(n) is int for w, n in words.items()):
        raise UserError(f"{where}: expected a dictionary from words to numbers, got {type(words).__name__}")
    numbers = sorted(words.values())
    if numbers != list(range(first, first + len(words))) or not words:
        ends = f"from {numbers[0]} to {numbers[-1]}" if numbers else "none"
        raise UserError(
            f"{where}: expected the numbers from {first} to {first + len(words) - 1}, each once, got {len(numbers)} "
            f"numbers, {ends}; is the file whole?"
        )
    return sorted(words, key=lambda word: words[word])


def vgg_stages(weights: Mapping[str, Tensor], where: str) -> list[list[int]]:
    """Read off a VGG's weights the channels of its convolutions, between poolings.

    Args:
        weights: By torchvision's names.
        where: The file, for errors.

    Raises:
        UserError: They are not those of a VGG without batch norm.
    """
    shape_of(weights, "features.0.weight", 4, where)
    matches = [re.fullmatch(r"features\.(\d{1,3})\.weight", name) for name in weights]
    places = sorted(int(match[1]) for match in matches if match)
    stages: list[list[int]] = [[]]
    for place, before in zip(places, [places[0] - 2, *places], strict=False):
        if place - before == 3:  # one place more is a pooling
            stages.append([])
        elif place - before != 2:
            raise UserError(f"{where}: expected a VGG without batch norm, got weights at features {places}")
        stages[-1].append(shape_of(weights, f"features.{place}.weight", 4, where)[0])
    return stages
