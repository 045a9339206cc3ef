"""What goes in: samples, and samples as tensors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torch.utils._pytree import tree_map_only

from mmcam.errors import UserError
from mmcam.targets import move

Window = tuple[float, float, float, float]
"""Part of the original picture that the network sees: top, left, bottom, right in pixels."""


@dataclass(frozen=True)
class Sample:
    """One thing to explain, before it is a tensor.

    Attributes:
        image: RGB and upright, see `mmcam.image.read_image`.
        id: Names the picture (for questions: the question) in every output.
        text: The question; empty where the task has none.
    """

    image: Image.Image
    id: str
    text: str = ""


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples as tensors.

    Attributes:
        images: The network's input.
        ids: One name a sample.
        sizes: Height and width of each original picture.
        texts: The questions; "" where there is none.
        windows: Which part of the original the input shows; the whole of it unless cropped.
        inputs: What else the task needs, first axis b (question tokens, lengths …).
        memo: What `trunk` leaves for `scores` besides the activations (prefix tokens, skip connections), first axis b.
    """

    images: Float[Tensor, "b c h w"]
    ids: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    texts: tuple[str, ...] = ()
    windows: tuple[Window, ...] = ()
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    memo: dict[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not self.texts:
            object.__setattr__(self, "texts", ("",) * len(self))
        if not self.windows:
            object.__setattr__(self, "windows", tuple((0.0, 0.0, float(h), float(w)) for h, w in self.sizes))
        counts = [len(self.images), len(self.sizes), len(self.texts), len(self.windows)]
        if set(counts) != {len(self)}:
            raise ValueError(f"a Batch of {len(self)} ids needs as many images, sizes, texts and windows; got {counts}")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def pictures(self) -> Float[Tensor, "b c h w"]:
        """The network's input, for those who change it or differentiate down to it.

        Raises:
            UserError: The network gets no picture a sample, but tiles or patches, which are among `inputs`.
        """
        if len(self) and not self.images.numel():
            raise UserError(
                "expected a model that gets one picture a sample, got one that gets tiles or patches, which cannot be "
                "changed pixel by pixel; explain the layer, by grad_cam or gradient_norm, and ask no metric that "
                "changes pictures"
            )
        return self.images

    def to(self, device: torch.device | str) -> "Batch":
        """Move every tensor; asynchronously where the memory is pinned."""
        return replace(
            self,
            images=move(self.images, device),
            inputs={name: move(value, device) for name, value in self.inputs.items()},
            memo=_each_tensor(self.memo, lambda value: move(value, device)),
        )

    def pin_memory(self) -> "Batch":
        """Let a GPU fetch the tensors while it computes; `DataLoader` calls this."""
        inputs = {name: value.pin_memory() for name, value in self.inputs.items()}
        return replace(self, images=self.images.pin_memory(), inputs=inputs)

    def take(self, index: Int[Tensor, " n"]) -> "Batch":
        """Choose samples by number, in that order, also several times."""
        chosen = index.tolist()
        return Batch(
            images=self.images[index],
            ids=tuple(self.ids[i] for i in chosen),
            sizes=tuple(self.sizes[i] for i in chosen),
            texts=tuple(self.texts[i] for i in chosen),
            windows=tuple(self.windows[i] for i in chosen),
            inputs={name: value[index] for name, value in self.inputs.items()},
            memo=_each_tensor(self.memo, lambda x: x[index] if x.ndim and len(x) == len(self) else x),
        )


def _each_tensor(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:  # noqa: ANN401
    return tree_map_only(Tensor, change, tree)
