"""What is kept of a picture between two clicks: one trunk pass, and every map made of it since."""

from dataclasses import dataclass, replace
from functools import cached_property

from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.utils._pytree import tree_leaves

from mmcam.explanation import Explanation
from mmcam.task import Batch, Targets, Task

__all__ = ["Look", "resized", "small"]

SMALLEST_SHOWN, LARGEST_SHOWN = 384, 768
"""Of a picture on the page, its longest side in pixels."""


@dataclass(frozen=True, eq=False)
class Look:
    """A picture, what is said of it, and where the model looked for each word.

    Attributes:
        key: Digest of picture, question, configuration and layer: the same trunk pass.
        task: At the layer.
        picture: As large as it is shown.
        batch: The sample, with what the trunk left.
        activations: A.
        targets: The words.
        explanation: Their maps, over the picture as it was uploaded.
        shown: The same, over the picture as it is shown.
        probabilities: Of each word; None of rows made of several, or where the task does not say.
        peaks: The greatest value of each map, at the size shown.
    """

    key: str
    task: Task
    picture: Image.Image
    batch: Batch
    activations: Float[Tensor, "1 k h w"]
    targets: Targets
    explanation: Explanation
    shown: Explanation
    probabilities: tuple[float | None, ...]
    peaks: tuple[float, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """What is explained: the words of a caption, answers or classes."""
        return self.explanation.words

    @cached_property
    def nbytes(self) -> int:
        """How much memory it takes: its tensors, each storage once, and the picture (PIL keeps four bytes a pixel)."""
        found = [self.explanation, self.shown, self.targets, self.batch]
        leaves = tree_leaves([self.activations, *(vars(one) for one in found)])
        storages = {leaf.untyped_storage() for leaf in leaves if isinstance(leaf, Tensor)}
        return (
            sum({one.data_ptr(): one.nbytes() for one in storages}.values())
            + 4 * self.picture.width * self.picture.height
        )


def small(image: Image.Image) -> Image.Image:
    """The picture as large as it is shown."""
    longest = max(image.size)
    ratio = min(max(longest, SMALLEST_SHOWN), LARGEST_SHOWN) / longest
    size = max(1, round(image.width * ratio)), max(1, round(image.height * ratio))
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def resized(explanation: Explanation, picture: Image.Image) -> Explanation:
    """Lay the same maps over a smaller or larger copy of the picture."""
    down, across = picture.height / explanation.size[0], picture.width / explanation.size[1]
    top, left, bottom, right = explanation.window
    return replace(
        explanation,
        size=(picture.height, picture.width),
        window=(top * down, left * across, bottom * down, right * across),
    )
