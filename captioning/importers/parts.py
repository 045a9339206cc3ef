"""What the importers of captioners share: layers renamed and reordered, words brought into our order."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.errors import UserError
from mmcam.importing.files import KINDS, kind_of
from mmcam.importing.weights import group, read_weights
from mmcam.text import SPECIAL

__all__ = [
    "CLOSED",
    "Order",
    "absent",
    "check_words",
    "fold_norm",
    "is_torch",
    "lstm",
    "once",
    "order_words",
    "refuse",
    "rows",
    "sorted_out",
]

CLOSED = -1e4
"""Logit of a word that a peer's model does not have: in float32 its probability is exactly zero."""

Order = tuple[list[str], list[int | None]]
"""The words in our order, and for each the number that the peer gives it."""


def is_torch(path: Path) -> bool:
    """Whether a file is a torch checkpoint."""
    return kind_of(path) in ("torch", "old torch")


def once(former: Path | None, path: Path, what: str) -> Path:
    """Take a file of a kind of which there must be one.

    Raises:
        UserError: There was one before.
    """
    if former is not None:
        raise UserError(f"expected {what} once, got {former} and {path}; leave one out")
    return path


Weights = tuple[Path, dict[str, Tensor]]


def sorted_out(
    files: Sequence[Path], mark: str, names: tuple[str, str, str], expected: str
) -> tuple[Weights | None, Weights | None, Path | None]:
    """Tell two checkpoints and a pickle apart, which come in any order.

    Args:
        files: The peer's.
        mark: A tensor that the first checkpoint has, and the second has not.
        names: What the first, the second and the pickle are called, for errors.
        expected: All of them in words.

    Returns:
        The three; None for one that is not there.

    Raises:
        UserError: A file is of another kind, or there are two of one.
    """
    first = second = pickled = None
    for path in files:
        if kind_of(path) == "pickle":
            pickled = once(pickled, path, names[2])
        elif not is_torch(path):
            raise refuse(path, expected)
        elif mark in (weights := read_weights(path)):
            first = once(first and first[0], path, names[0]), weights
        else:
            second = once(second and second[0], path, names[1]), weights
    return first, second, pickled


def absent(expected: str, files: Sequence[Path], parts: Mapping[str, object]) -> UserError:
    """The error for files among which some are not, by what they are called."""
    missing = " and ".join(name for name, part in parts.items() if part is None)
    return UserError(f"expected {expected}; {missing} is not among the {len(files)} files given")


def lstm(weights: Mapping[str, Tensor], prefix: str, cells: str) -> dict[str, Tensor]:
    """Turn `nn.LSTM`'s layers into cells; absent biases are zeros.

    Args:
        weights: A peer's.
        prefix: Of the LSTM's weights: "lstm.".
        cells: Of ours: "cells".

    Returns:
        The weights of `nn.LSTMCell`s; the LSTM's that are not of that form keep the peer's names.
    """
    result = {}
    for name, value in group(weights, prefix).items():
        kind, layer, number = name.rpartition("_l")
        known = layer and number.isdigit() and kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        result[f"{cells}.{number}.{kind}" if known else f"{prefix}{name}"] = value
    for name, value in list(result.items()):
        if name.endswith(".weight_hh"):
            for bias in ("bias_ih", "bias_hh"):
                result.setdefault(name.replace("weight_hh", bias), value.new_zeros(len(value)))
    return result


def fold_norm(
    weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"], norm: Mapping[str, Tensor], after: bool, eps: float = 1e-5
) -> tuple[Float[Tensor, "o i"], Float[Tensor, " o"]]:
    """Make one linear layer out of it and the batch norm (in eval mode) after or before it."""
    scale = norm["weight"].double() / (norm["running_var"].double() + eps).sqrt()
    shift = norm["bias"].double() - scale * norm["running_mean"].double()
    w, b = weight.double(), bias.double()
    w, b = (scale[:, None] * w, scale * b + shift) if after else (w * scale, w @ shift + b)
    return w.float(), b.float()


def order_words(words: Mapping[int, str], special: Sequence[int | None], where: str) -> Order:
    """Bring a peer's words into our order: padding, start, end, unknown, then the others by their numbers.

    Args:
        words: By their numbers.
        special: The numbers of our four special words, None for one that the peer has not.
        where: The file, for errors.

    Raises:
        UserError: Numbers are missing, or a word has two.
    """
    own = [number for number in sorted(words) if number not in special]
    names = [*SPECIAL, *(words[number] for number in own)]
    if len(set(names)) != len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise UserError(f"{where}: expected words that differ from one another, got {twice!r} twice")
    numbers = {*own, *(number for number in special if number is not None)}
    if numbers != set(range(len(numbers))):
        gap = min(set(range(len(numbers))) - numbers)
        raise UserError(f"{where}: expected words numbered without gaps, got none with the number {gap}")
    return names, [*special, *own]


def rows(table: Tensor, numbers: Sequence[int | None], without: float = 0.0) -> Tensor:
    """The rows of a peer's table in our order; `without` fills those that the peer has not.

    A table of another length is left as it is, for `load_weights` to refuse.
    """
    if len(table) != len({number for number in numbers if number is not None}):
        return table
    index = torch.tensor([0 if number is None else number for number in numbers])
    lacking = torch.tensor([number is None for number in numbers])
    result = table[index].clone()
    result[lacking] = without
    return result


def check_words(order: Order, count: int, where: str, weights: str) -> None:
    """Refuse a vocabulary of another size than the weights'.

    Raises:
        UserError: Says both sizes.
    """
    known = len({number for number in order[1] if number is not None})
    if known != count:
        raise UserError(
            f"{where}: expected the {count} words that {weights} was trained on, got {known}; a vocabulary built again "
            "differs: use the file saved beside the weights"
        )


def refuse(path: Path, expected: str) -> UserError:
    """The error for a file that is none of those that an importer takes."""
    return UserError(f"{path}: expected {expected}, got {KINDS[kind_of(path)]}")
