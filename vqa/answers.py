"""Answers that the user names, of a model that chooses among some: "cat", "cat, dog" or "cat rather than dog"."""

from collections.abc import Sequence

import torch

from mmcam.errors import UserError, unknown
from mmcam.targets import Targets


def named(texts: Sequence[str], answers: Sequence[str], device: torch.device) -> Targets:
    """Turn texts into targets.

    Args:
        texts: One a sample; several answers are separated by commas.
        answers: All that the model knows, in the order of their numbers.
        device: Where the tensors shall lie.

    Returns:
        One row an answer; of "cat rather than dog" dog is the foil.

    Raises:
        UserError: There is no answer, one is not among those of the model (names the nearest ones), or only some are
            contrasted.
    """
    rows = [[" ".join(part.split()) for part in text.split(",") if part.strip()] for text in texts]
    if not all(rows):
        raise UserError("expected an answer to explain, got an empty one; leave it out to explain the model's own")
    pairs = [[part.split(" rather than ", 1) for part in row] for row in rows]
    targets = Targets.of([[_number(pair[0], answers) for pair in row] for row in pairs], rows, device)
    contrasts = {len(pair) for row in pairs for pair in row}
    if contrasts == {1}:
        return targets
    if contrasts != {2}:
        raise UserError("expected plain answers or answers 'a rather than b', not both kinds in one call")
    foils = targets.ids.clone()
    for i, row in enumerate(pairs):
        foils[i, : len(row)] = torch.tensor([_number(pair[1], answers) for pair in row])
    return targets.rather_than(foils)


def _number(answer: str, answers: Sequence[str]) -> int:
    if answer not in answers:
        raise unknown("answer", answer, answers)
    return answers.index(answer)
