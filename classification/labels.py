"""Names of classes."""

from collections.abc import Sequence
from pathlib import Path

from mmcam.errors import UserError

__all__ = ["imagenet_labels", "read_labels"]


def read_labels(labels: Sequence[str] | str) -> tuple[str, ...]:
    """Get the names of classes.

    Args:
        labels: The names; "imagenet"; or the path of a text file with one name a line.

    Returns:
        The names.

    Raises:
        UserError: There is no such file, or it holds no text.
    """
    if not isinstance(labels, str):
        return tuple(labels)
    if labels == "imagenet":
        return imagenet_labels()
    if not Path(labels).is_file():
        raise UserError(
            f"expected labels as a list, 'imagenet' or a text file with one a line; got {labels!r}, which is no file"
        )
    try:
        return tuple(Path(labels).read_text(encoding="utf-8").rstrip().splitlines())
    except UnicodeDecodeError as error:
        raise UserError(f"expected labels as text in UTF-8, one a line; {labels!r} is something else") from error


def imagenet_labels() -> tuple[str, ...]:
    """The thousand classes of ImageNet, as torchvision names them."""
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.DEFAULT.meta["categories"])
