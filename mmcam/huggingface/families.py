"""Which families of models are known: one row each says where they are cut, how their tokens lie, how they speak.

A row is made of the published structure of a family. `find` falls back on `mm_encoder_outputs` for those without a row
(`mmcam.huggingface.features`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isnan
from typing import Any, Literal

from torch import Tensor

from mmcam.huggingface.grids import Coordinates, Grid, Maps, Packed, Raster, Tiles, sides
from mmcam.task import Window

__all__ = ["FAMILIES", "Family", "Rule", "find"]

Rule = Callable[[Any, Mapping[str, Tensor], tuple[int, ...]], Grid]
"""(the model's configuration, the inputs of a batch, shape of the leaf) → how the leaf lies."""


@dataclass(frozen=True)
class Family:
    """What is particular to a family.

    Attributes:
        kinds: Its `config.model_type`s.
        towers: Modules whose work is done once a picture, besides the leaf's own.
        leaf: The module of the explained tensors.
        side: Whether they go in or come out.
        fields: Of an output that has several tensors.
        grid: How they lie.
        speech: "decoder" (the answer goes on after the prompt), "encoder-decoder" (it has a sequence of its own),
            "classes" (one of a list of answers).
        opening: How prompts become inputs; see `mmcam.huggingface.prompts`.
        packed: Whether pictures come one after the other, without an axis for samples.
        tapped: The module that gives the logits, where the model itself does not.
        filled: What inputs that go along with the words have at an answer's; 0 for those not named.
        class_name: Of the model, where its kind is not enough to tell.
        alike: Whether only prompts of one length can be batched, as the model attends to padding.
        apart: Whether only prompts of one length can go on together, as padding before them moves their places.
        batched: Whether tiles have an axis for samples, all as many.
        shown: What the network gets: "one" picture, whose window is measured, "tiles" likewise, or the "whole" picture.
    """

    kinds: Sequence[str]
    towers: Sequence[str]
    leaf: str
    grid: Rule
    side: Literal["in", "out"] = "out"
    fields: Sequence[str] = ()
    speech: Literal["decoder", "encoder-decoder", "classes"] = "decoder"
    opening: str = "chat"
    packed: bool = False
    tapped: str = ""
    filled: Mapping[str, int] | None = None
    class_name: str = ""
    alike: bool = False
    apart: bool = False
    batched: bool = False
    shown: Literal["one", "tiles", "whole"] = "one"


def _maps(config: Any, inputs: Mapping[str, Tensor], shape: tuple[int, ...]) -> Grid:  # noqa: ANN401
    return Maps()


# Rules are partial functions and not closures, so that tasks can go to other processes.
def _raster(*prefixes: int) -> Rule:
    """Tokens in rows, after as many as the tower's configuration says, else as one of these."""
    return partial(_raster_rule, prefixes)


def _raster_rule(
    prefixes: Sequence[int],
    config: Any,  # noqa: ANN401
    inputs: Mapping[str, Tensor],
    shape: tuple[int, ...],
) -> Grid:
    picture = inputs["pixel_values"].shape[-2:]
    known = _known_prefix(config)
    found = prefixes if known is None else (known,)
    return Raster(*sides(shape[-2], (picture[0], picture[1]), found))


def _known_prefix(config: Any) -> int | None:  # noqa: ANN401
    """Class and register tokens of a VisionEncoderDecoder's encoder."""
    encoder: Any = getattr(config, "encoder", None)
    kind = getattr(encoder, "model_type", "")
    if kind in ("dinov2_with_registers", "dinov3_vit"):
        return 1 + encoder.num_register_tokens
    known = {"vit": 1, "deit": 2, "beit": 1, "dinov2": 1, "clip_vision_model": 1, "siglip_vision_model": 0}
    return {**known, "swin": 0, "donut-swin": 0, "swinv2": 0}.get(kind)


def _packed(config: Any, inputs: Mapping[str, Tensor], shape: tuple[int, ...]) -> Packed:  # noqa: ANN401
    """Pictures one after the other, their rows and columns in `image_grid_thw`, several patches a token."""
    merge = config.vision_config.spatial_merge_size
    rows = inputs["image_grid_thw"].view(-1, 3).tolist()
    return Packed(tuple((h // merge, w // merge) for _, h, w in rows))


def _deepstack(config: Any, inputs: Mapping[str, Tensor], shape: tuple[int, ...]) -> Grid:  # noqa: ANN401
    """The same, with features of layers in between."""
    return replace(_packed(config, inputs, shape), leaves=1 + len(config.vision_config.deepstack_visual_indexes))


def _tiles(prefix: int = 0, batched: bool = False) -> Rule:
    """Parts of the picture, at the windows that were measured."""
    return partial(_tiles_rule, prefix, batched)


def _tiles_rule(
    prefix: int,
    batched: bool,
    config: Any,  # noqa: ANN401
    inputs: Mapping[str, Tensor],
    shape: tuple[int, ...],
) -> Grid:
    picture = inputs["pixel_values"].shape[-2:]
    h, w, p = sides(shape[-2], (picture[0], picture[1]), (prefix,))
    tiles = tuple(_real(row) for row in inputs["tile_windows"].tolist())
    if not batched:
        return Tiles(h, w, tiles, p)
    return Tiles(h, w, tiles, p, (len(tiles), *shape[1:-2]))


def _real(windows: Sequence[Sequence[float]]) -> tuple[Window, ...]:
    """The tiles that are there; those that only fill a batch up are NaN."""
    return tuple((top, left, bottom, right) for top, left, bottom, right in windows if not isnan(top))


def _vilt(config: Any, inputs: Mapping[str, Tensor], shape: tuple[int, ...]) -> Grid:  # noqa: ANN401
    """Patches in the random order in which ViLT puts them, which `mmcam.huggingface.speaker` finds out."""
    return Coordinates(inputs["patch_index"], tuple((h, w) for h, w in inputs["patch_sizes"].tolist()))


def _pix2struct(config: Any, inputs: Mapping[str, Tensor], shape: tuple[int, ...]) -> Grid:  # noqa: ANN401
    """Each flattened patch begins with its row and column, from 1; 0 is padding."""
    index = inputs["flattened_patches"][..., :2].round().long() - 1
    return Coordinates(index, tuple((h, w) for h, w in (index.amax(1) + 1).tolist()))


_VIT = _raster(1, 0, 2, 5)

FAMILIES: tuple[Family, ...] = (
    Family(
        ("blip",),
        (),
        "vision_model",
        _VIT,
        speech="encoder-decoder",
        opening="blip-question",
        tapped="text_decoder",
        class_name="BlipForQuestionAnswering",
        alike=True,  # transformers 5.23: the mask of its cross-attention is lost
    ),
    Family(("blip",), (), "vision_model", _VIT, opening="blip", apart=True),
    Family(("vision-encoder-decoder",), (), "encoder", _VIT, speech="encoder-decoder", opening="none"),
    Family(("git",), ("git.image_encoder",), "git.visual_projection", _VIT, side="in", opening="git"),
    Family(("vilt",), (), "vilt.encoder.layer.-2", _vilt, speech="classes", opening="plain"),
    Family(("blip-2",), (), "vision_model", _VIT, opening="plain"),
    Family(("instructblip",), (), "vision_model", _VIT, opening="plain"),
    Family(("llava",), ("model.vision_tower",), "model.multi_modal_projector", _raster(0, 1), side="in"),
    Family(
        ("llava_next", "llava_onevision"),
        ("model.vision_tower",),
        "model.multi_modal_projector",
        _tiles(),
        side="in",
        shown="tiles",
    ),
    Family(
        ("paligemma",),
        ("model.vision_tower",),
        "model.multi_modal_projector",
        _raster(0),
        side="in",
        opening="paligemma",
        filled={"token_type_ids": 1},
    ),
    Family(("gemma3",), ("model.vision_tower",), "model.multi_modal_projector", _raster(0), side="in"),
    Family(
        ("qwen2_vl", "qwen2_5_vl"), (), "model.visual", _packed, fields=("pooler_output",), packed=True, shown="whole"
    ),
    Family(
        ("qwen3_vl",),
        (),
        "model.visual",
        _deepstack,
        fields=("pooler_output", "deepstack_features"),
        packed=True,
        shown="whole",
    ),
    Family(("smolvlm", "idefics3"), ("model.vision_model",), "model.connector", _tiles(), side="in", shown="tiles"),
    Family(("internvl",), (), "model.vision_tower", _tiles(1), packed=True, shown="tiles"),
    Family(("florence2",), (), "model.vision_tower", _maps, speech="encoder-decoder", opening="plain"),
    Family(("kosmos-2",), (), "vision_model", _VIT, opening="plain", apart=True),
    Family(("pix2struct",), (), "encoder", _pix2struct, speech="encoder-decoder", opening="none", shown="whole"),
    Family(("mllama",), (), "model.vision_model", _tiles(1, batched=True), batched=True, shown="tiles"),
)


def find(config: Any, class_name: str) -> Family | None:  # noqa: ANN401
    """Find the row of a model.

    Args:
        config: The model's configuration.
        class_name: Name of the model's class.

    Returns:
        The row; None for a family without one.
    """
    rows = [row for row in FAMILIES if config.model_type in row.kinds and row.class_name in ("", class_name)]
    return rows[0] if rows else None
