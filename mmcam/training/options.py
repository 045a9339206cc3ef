"""What recipes refuse of their arguments, in the same words whatever the model."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mmcam.errors import UserError, unknown


def check_counts(**counts: int | None) -> None:
    """Refuse counts below 1; None stands for all.

    Raises:
        UserError: There is one.
    """
    for name, count in counts.items():
        if count is not None and count < 1:
            raise UserError(f"{name}: expected 1 at least, got {count}")


def check_measures(best_by: str, judged: int, measures: Sequence[str], judges: str) -> None:
    """Refuse a measure that there will not be.

    Args:
        best_by: Of which the best epoch is kept; "" for none.
        judged: On how many pictures the model is judged after each epoch.
        measures: What is measured whatever `judged` is.
        judges: What is measured besides if it is not 0.

    Raises:
        UserError: The measure is none of these, or `judged` is below 0.
    """
    measures = [*measures, *([judges] if judged else [])]
    if best_by not in ("", *measures):
        raise unknown("measure in best_by", best_by, measures)
    if judged < 0:
        raise UserError(f"judged: expected 0 at least, got {judged}")


@contextmanager
def making(name: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Say of a model that cannot be made that its options are none of it."""
    try:
        yield
    except TypeError as error:
        raise UserError(f"options: {options} are none of {name}: {error}") from error


@contextmanager
def starting(start: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Say of weights that do not fit that they are of a model of other options."""
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"start: {start} is of other options than {options}: {reason}") from error
