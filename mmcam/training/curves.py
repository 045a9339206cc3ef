"""Learning curves: a table, a picture, and TensorBoard where it is installed."""

import csv
from pathlib import Path
from typing import Any

from mmcam.errors import UserError

Curves = list[dict[str, int | float]]


def draw(curves: Curves, out: Path) -> None:
    """Write the curves as a table and as a picture."""
    from matplotlib.figure import Figure

    with (out / "curves.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(curves[-1]), extrasaction="ignore")
        table.writeheader()
        table.writerows(curves)
    names = [name for name in curves[-1] if name not in ("epoch", "seconds")]
    figure = Figure(figsize=(3 * len(names), 2.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        axes.plot([row["epoch"] for row in curves], [row.get(name, float("nan")) for row in curves])
        axes.set_title(name)
    figure.savefig(out / "curves.png", dpi=80)


def open_board(out: Path, epochs: int) -> Any:  # noqa: ANN401
    """Open TensorBoard's file of a run.

    Args:
        out: The run's folder; gets `tensorboard/`.
        epochs: Epochs done; what stands there of later ones is of a run that was killed.

    Raises:
        UserError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError(
            "--tensorboard needs an extra: pip install 'mmcam[tensorboard]'; curves.csv needs none"
        ) from error
    return SummaryWriter(str(out / "tensorboard"), purge_step=epochs + 1)


def add_row(board: Any, row: dict[str, int | float]) -> None:  # noqa: ANN401
    """Add an epoch."""
    for name, value in row.items():
        if name != "epoch":
            board.add_scalar(name, value, int(row["epoch"]))
    board.flush()
