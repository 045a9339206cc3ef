"""Which part of the original picture each picture shows that an image processor makes: measured, not known by family.

The processor is run on synthetic pictures of the same size, see `mmcam.huggingface.measure`. Centre crops, squashing,
padding and tiles of any kind are undone. What turns or mirrors pictures or looks at what they show is refused.
"""

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from PIL import Image

from mmcam.errors import UserError
from mmcam.huggingface.measure import NOWHERE, Picture, View, contrast, measure
from mmcam.task import Window

__all__ = ["NOWHERE", "View", "views", "windows"]

MOST_KEPT = 4096  # sizes a processor
_kept: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()  # of a processor: contrasts and views


def windows(processor: Any, size: tuple[int, int], **options: Any) -> tuple[Window, ...]:  # noqa: ANN401
    """Give the windows of `views` alone."""
    return tuple(view.window for view in views(processor, size, **options))


def views(processor: Any, size: tuple[int, int], **options: Any) -> tuple[View, ...]:  # noqa: ANN401
    """Measure what the pictures show that a processor makes of one picture.

    Windows are right to 0.05 pixels of the original or 0.02 of the coarser picture, whichever is more. Of a side of
    very few pixels all is taken to be seen. The answer is kept for the processor, its settings, the size and the
    options.

    Args:
        processor: Of images, called as transformers' are: `processor(images=…, return_tensors="pt")["pixel_values"]`;
            or a processor of text and images that has one.
        size: Height and width of the original picture.
        options: For the processor's call, as in the real one (`crop_to_patches=True`).

    Returns:
        One view a tile, in the processor's order; of a processor without tiles a single one.

    Raises:
        UserError: The output is no picture (packed or flattened patches: see `mmcam.huggingface.patches`), or the
            processor turns, mirrors or bends pictures or cuts them by what they show.
    """
    if min(size) < 1:
        raise UserError(f"expected a picture of at least one pixel, got {size[0]} x {size[1]}")
    processor = getattr(processor, "image_processor", processor)
    if options.get("do_crop_margin", getattr(processor, "do_crop_margin", False)):
        raise UserError(f"{_name(processor)} cuts margins by what they show; set do_crop_margin=False")
    kept, settings = _kept.setdefault(processor, {}), (repr(sorted(options.items())), repr(vars(processor)))
    if (size, settings) not in kept:

        def run(image: Image.Image) -> list[Picture]:
            return _pictures(processor, image, options)

        if len(kept) >= MOST_KEPT:
            kept.clear()
        most = kept.get(settings)
        if most is None:
            most = kept[settings] = contrast(run, _name(processor))
        kept[size, settings] = measure(run, size, most, _name(processor))
    return kept[size, settings]


def _name(processor: Any) -> str:  # noqa: ANN401
    return getattr(processor, "__name__", type(processor).__name__)


def _pictures(processor: Any, image: Image.Image, options: dict[str, Any]) -> list[Picture]:  # noqa: ANN401
    """Run the processor on one picture and take its pictures apart."""
    out = processor(images=image, return_tensors="pt", **options)
    values = out.get("pixel_values")
    if values is None:
        raise UserError(
            f"expected pixel_values of {_name(processor)}, got {', '.join(out)}; "
            "for flattened patches see mmcam.huggingface.patches"
        )
    return [picture for part in (values if isinstance(values, list) else [values]) for picture in _apart(part)]


def _apart(values: Any) -> list[Picture]:  # noqa: ANN401
    if isinstance(values, list):
        return [picture for part in values for picture in _apart(part)]
    array = np.asarray(values.double() if hasattr(values, "double") else values, dtype=np.float64)
    shape = array.shape
    if array.ndim >= 3 and shape[-3] == 3:
        return list(np.moveaxis(array.reshape(-1, *shape[-3:]), 1, -1))
    if array.ndim >= 3 and shape[-1] == 3:
        return list(array.reshape(-1, *shape[-3:]))
    raise UserError(
        f"expected pictures of three channels in pixel_values, got the shape {tuple(shape)}; "
        "for packed patches see mmcam.huggingface.patches"
    )
