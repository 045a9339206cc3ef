"""The words that a model hears besides the picture: the prompt's, and those of its own answer so far, as vectors.

They enter where the language model embeds its tokens, so a twin whose embedding gives other vectors tells how the
answer depends on each.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmcam.errors import UserError
from mmcam.huggingface.inputs import continued
from mmcam.huggingface.speaker import Speaker
from mmcam.networks.twin import Call, Nest, named
from mmcam.task import Batch, Heard, Targets

__all__ = ["heard", "hearing"]

Wrappers = Mapping[str, Callable[[Call], Call]]


def heard(speaker: Speaker, batch: Batch, targets: Targets) -> Heard:
    """Say which tokens are heard, and embed them; marks, places of pictures and the last token are not among them.

    Raises:
        UserError: The model's answers have a sequence of their own, beside the prompt's.
    """
    ids, places, real = _places(speaker, batch, targets)
    tokens = ids.gather(1, places)
    vectors = _embedding(speaker)[1](tokens) * real[..., None]
    names = zip(tokens.tolist(), real.sum(1).tolist(), strict=True)
    words = tuple(tuple(speaker.tokenizer.decode([n]).strip() for n in row[:count]) for row, count in names)
    return Heard(words, vectors)


def hearing(speaker: Speaker, batch: Batch, targets: Targets, vectors: Float[Tensor, "b l d"]) -> Wrappers:
    """Make the wrapper by which a twin hears other vectors in the place of those of `heard`."""
    _, places, real = _places(speaker, batch, targets)
    name, _ = _embedding(speaker)

    def wrap(call: Call) -> Call:
        def embed(*args: object, **kwargs: object) -> Nest:
            x = call(*args, **kwargs)  # (b, n, d)
            keep = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device).scatter(1, places, real)
            spread = torch.zeros_like(x).scatter(
                1, places[..., None].expand_as(vectors), (vectors * real[..., None]).to(x.dtype)
            )
            return torch.where(keep[..., None], spread, x)

        return embed

    return {name: wrap}


def _places(
    speaker: Speaker, batch: Batch, targets: Targets
) -> tuple[Int[Tensor, "b n"], Int[Tensor, "b l"], Bool[Tensor, "b l"]]:
    """The whole text, and where in it lies what is heard, from the left; padded places are those of other tokens."""
    if speaker.speech != "decoder":
        raise UserError(
            f"{type(speaker.model).__name__} reads its prompt apart from its answer; what it hears is not told. Models "
            "whose answer goes on after the prompt can be asked, such as LLaVA, Qwen-VL or BLIP captioning"
        )
    filler = torch.where(targets.mask, targets.ids, speaker.reader.pad)
    counts = targets.mask.sum(1)
    inputs, _ = continued(batch.inputs, filler, counts, {})
    ids, end = inputs["input_ids"], batch.inputs["lengths"].to(filler.device) + counts - 1
    silent = torch.tensor(sorted({*speaker.tokenizer.all_special_ids, *_pictures(speaker.config)}), device=ids.device)
    told = (torch.arange(ids.shape[1], device=ids.device) < end[:, None]) & ~torch.isin(ids, silent)
    shown = inputs.get("image_embeds_position_mask")  # Kosmos-2's pictures stand in the place of ordinary tokens
    told = told if shown is None else told & (shown == 0)
    most = max(1, int(told.sum(1).max())) if told.numel() else 1
    places = (~told).to(torch.int8).argsort(stable=True, dim=1)[:, :most]  # what is told first, in order
    return ids, places, told.gather(1, places)


def _pictures(config: Any) -> list[int]:  # noqa: ANN401
    names = ("image_token_id", "image_token_index", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return [number for name in names if isinstance(number := getattr(config, name, None), int)]


def _embedding(speaker: Speaker) -> tuple[str, Any]:
    module = speaker.model.get_input_embeddings()
    return next(name for name, x in named(speaker.model) if x is module), module
