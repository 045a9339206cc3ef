"""What is known about a picture besides its pixels: where its things are, and which of them a word means."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmcam.errors import UserError
from mmcam.sources import Source

__all__ = ["Things", "Truth", "box_masks"]


@dataclass(frozen=True, eq=False)
class Things:
    """The things of one picture.

    Attributes:
        names: Of each thing; its class, category or kind.
        masks: Where each is, at the picture's size; of things known by a box only, the box.
        boxes: left, top, right, bottom in pixels. Edges are half-open, so pixel i reaches from i to i + 1; VOC's
            1-based inclusive (1, 1, w, h) is (0, 0, w, h).
        exact: Whether the masks are outlines, not boxes.
        ignored: Places that count for nothing, such as crowds, difficult things and borders.
    """

    names: tuple[str, ...]
    masks: Bool[Tensor, "n H W"]
    boxes: Float[Tensor, "n 4"]
    exact: bool
    ignored: Bool[Tensor, "H W"] | None = None

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.masks) == len(self.boxes):
            counts = len(self.names), len(self.masks), len(self.boxes)
            raise UserError(f"expected a name, a mask and a box a thing; got {counts}")

    @classmethod
    def of_masks(
        cls, names: Sequence[str], masks: Bool[Tensor, "n H W"], ignored: Bool[Tensor, "H W"] | None = None
    ) -> "Things":
        """Make things of outlines; an empty one gets the box (0, 0, 0, 0)."""
        boxes = torch.zeros(len(masks), 4)
        for i, mask in enumerate(masks):
            rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
            if len(rows):
                edges = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
                boxes[i] = torch.stack(edges).to(boxes.dtype)
        return cls(tuple(names), masks, boxes, True, ignored)

    @classmethod
    def of_boxes(
        cls,
        names: Sequence[str],
        boxes: Float[Tensor, "n 4"],
        size: tuple[int, int],
        ignored: Bool[Tensor, "H W"] | None = None,
    ) -> "Things":
        """Make things of boxes, which are clipped to the picture.

        Args:
            names: Of each thing.
            boxes: left, top, right, bottom.
            size: Height and width of the picture.
            ignored: Places that count for nothing.
        """
        height, width = size
        limits = torch.tensor([width, height, width, height], dtype=boxes.dtype)
        clipped = boxes.clamp(min=0).minimum(limits)
        return cls(tuple(names), box_masks(clipped, size), clipped, False, ignored)

    def __len__(self) -> int:
        return len(self.names)

    def of(self, name: str) -> tuple[int, ...]:
        """Numbers of the things of a name."""
        return tuple(i for i, other in enumerate(self.names) if other == name)

    def take(self, numbers: Sequence[int]) -> "Things":
        """Choose some, in that order."""
        index = torch.tensor(list(numbers), dtype=torch.long)
        names = tuple(self.names[i] for i in numbers)
        return replace(self, names=names, masks=self.masks[index], boxes=self.boxes[index])


def box_masks(boxes: Float[Tensor, "n 4"], size: tuple[int, int]) -> Bool[Tensor, "n H W"]:
    """Fill boxes: a pixel belongs to a box if its centre lies in it.

    Args:
        boxes: left, top, right, bottom in pixels, half-open.
        size: Height and width of the picture.
    """
    y = torch.arange(size[0], dtype=boxes.dtype, device=boxes.device)[:, None] + 0.5
    x = torch.arange(size[1], dtype=boxes.dtype, device=boxes.device) + 0.5
    left, top, right, bottom = boxes[:, :, None, None].unbind(1)
    return (x >= left) & (x < right) & (y >= top) & (y < bottom)


class Truth(Source):
    """A source whose pictures are annotated: what `mmcam evaluate` holds maps and sentences against."""

    @abstractmethod
    def things(self, number: int) -> Things:
        """Where the things of a picture are."""

    @abstractmethod
    def about(self, number: int, words: Sequence[str]) -> list[tuple[int, ...] | None]:
        """Which things each explained word means.

        Args:
            number: Of the picture or question.
            words: Those of its explanation: of the caption, the answers, or the classes.

        Returns:
            For each word the numbers of its things in `things(number)`; None where it names no thing ("a", "left of",
            "yes" to a question about nothing), and () where it names a thing that is not there.
        """

    def human(self, number: int) -> Float[Tensor, "a h w"] | None:
        """Where a people looked, or pointed at, to say it: their maps, 0 or more; None where nobody was asked."""
        return None

    def judge(self, said: Mapping[int, Sequence[str]]) -> dict[str, Float[Tensor, " n"]]:
        """Hold what a model said against what people said.

        Args:
            said: The words of the model by number of the picture or question.

        Returns:
            By name of the metric ("cider_d", "vqa_accuracy") one value a picture or question, in the order of `said`;
            NaN where it is undefined. Their mean is the figure of a corpus, unless the name's docstring says otherwise.
        """
        return {}
