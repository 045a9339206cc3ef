"""Captioning of pictures as large as they are, as ruotianluo's features were made."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from captioning.task import CaptioningTask
from mmcam.errors import UserError
from mmcam.image import to_tensor
from mmcam.task import Batch, Sample

__all__ = ["FullSizeCaptioningTask"]


class FullSizeCaptioningTask(CaptioningTask):
    """Captioning without resizing: each picture goes through the CNN at its own size.

    Pictures of several sizes are padded to one shape to be a batch, but each is looked at without its padding, so that
    a batch gives what its pictures give alone.
    """

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Pad pictures at the right and below; `inputs["extent"]` says how large each is."""
        cnn = self.model.backbone
        images = [to_tensor(sample.image, None, cnn.mean, cnn.std) for sample in samples]
        extents = [(image.shape[1], image.shape[2]) for image in images]
        height, width = max(h for h, _ in extents), max(w for _, w in extents)
        padded = [pad(image, (0, width - w, 0, height - h)) for image, (h, w) in zip(images, extents, strict=True)]
        return Batch(
            torch.stack(padded),
            tuple(sample.id for sample in samples),
            tuple((sample.image.height, sample.image.width) for sample in samples),
            inputs={"extent": torch.tensor(extents)},
        )

    def trunk(self, batch: Batch) -> Float[Tensor, "b k h w"]:
        """The CNN's maps, one picture after the other if they differ in size.

        Raises:
            UserError: They differ, and the explained layer is not the last map, where alone the rest can tell.
        """
        extents = [(int(h), int(w)) for h, w in batch.inputs["extent"].tolist()]
        if len(set(extents)) == 1:
            return super().trunk(batch)
        if self.layer != f"backbone.{self.model.backbone.layer}":
            raise UserError(
                f"expected pictures of one size at the layer {self.layer}, got {len(set(extents))} sizes; "
                "explain one picture at a time, or the last map"
            )
        maps = [
            self._trunk.below(image[None, :, :h, :w])[0] for image, (h, w) in zip(batch.images, extents, strict=True)
        ]
        grid = torch.tensor([one.shape[2:] for one in maps], device=batch.images.device)
        height, width = grid.amax(0).tolist()
        batch.memo.update(grid=grid, places=grid.prod(1))
        return torch.cat([pad(one, (0, width - one.shape[3], 0, height - one.shape[2])) for one in maps])

    def laid(self, maps: Float[Tensor, "b r h w"], batch: Batch) -> Sequence[Float[Tensor, "r _ _"]]:
        """Each picture's own places."""
        grid = batch.memo.get("grid")
        if grid is None:
            return super().laid(maps, batch)
        return [one[:, :h, :w] for one, (h, w) in zip(maps, grid.tolist(), strict=True)]
