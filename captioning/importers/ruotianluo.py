"""ruotianluo/ImageCaptioning.pytorch (commit 4c48a330): `model.pth`, `infos_<id>.pkl` and the CNN's weights.

The peer's models were trained on features that its `prepro_feats.py` wrote, with a ResNet in Caffe's form fed with
pictures at their full size; they see no pixels. So the CNN's file (`resnet101.pth`) is asked for too.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from captioning.captioner import Captioner
from captioning.importers.parts import (
    CLOSED,
    Order,
    absent,
    check_words,
    fold_norm,
    lstm,
    order_words,
    rows,
    sorted_out,
)
from captioning.peers import Att2in2, ImageFirst, UpDown
from mmcam.errors import UserError, unknown
from mmcam.importing.folder import write_model
from mmcam.importing.pickles import read_pickle
from mmcam.importing.resnet import sizes_of
from mmcam.importing.weights import built, group, load_weights, renamed, shape_of

__all__ = ["MODELS", "captioner", "convert", "read_infos"]

PEER = "ruotianluo/ImageCaptioning.pytorch"
FILES = "model.pth, infos_<id>.pkl and the CNN's weights (resnet101.pth)"
GRID = 14
"""Side of the grid that `prepro_feats.py` pools to unless told otherwise."""

Made = tuple[Captioner, dict[str, Tensor]]


def convert(files: Sequence[Path], out: Path, grid: int | None = None) -> Path:
    """Import a model, its infos and its CNN.

    Args:
        files: The three, in any order.
        out: The folder to write.
        grid: Side of the grid that features were pooled to, the peer's `--att_size`, which no file tells; 14 if not
            given, as there.

    Returns:
        The folder.

    Raises:
        UserError: A file is missing, is something else, or does not fit the others.
    """
    names = ("the CNN's weights", "model.pth", "infos_<id>.pkl")
    cnn, head, infos = sorted_out(files, "conv1.weight", names, FILES)
    if head is None or infos is None:
        raise absent(FILES, files, {"model.pth": head, "infos_<id>.pkl": infos})
    if cnn is None:
        raise UserError(
            f"{head[0]} holds no CNN, as its model was trained on stored features: add the file of the CNN that made "
            "them, which the peer's prepro_feats.py reads (resnet101.pth)"
        )
    options, words = read_infos(infos)
    if grid is not None and grid < 1:
        raise UserError(f"expected a grid of 1 or more, got {grid}")
    model = captioner(head[1], options, words, cnn[1], str(head[0]), str(infos), str(cnn[0]), grid or GRID)
    if grid is not None and not hasattr(model, "grid"):
        raise UserError(f"{options['caption_model']!r} looks at no grid but at the picture's mean; leave --grid out")
    arguments = {"beam": options.get("beam_size") or 1, "length": options.get("max_length") or options["seq_length"]}
    return write_model(model, out, PEER, files, "captioning.peers.full_size.FullSizeCaptioningTask", arguments)


def read_infos(path: Path) -> tuple[dict[str, Any], Order]:
    """Read `infos_<id>.pkl` of any age.

    Returns:
        The options of the peer's run, and the words; 0 is start, end and padding at once.

    Raises:
        UserError: It is no such file, or the model was trained on something that has no places in a picture.
    """
    infos = read_pickle(path, ["argparse.Namespace"])
    options = vars(infos["opt"]) if isinstance(infos, dict) and hasattr(infos.get("opt"), "__dict__") else {}
    content = infos.get("vocab") if isinstance(infos, dict) else None
    if "caption_model" not in options or not isinstance(content, dict):
        raise UserError(f"{path}: expected infos with opt and vocab, got {type(infos).__name__} without")
    try:
        words = {int(number): str(word) for number, word in content.items()}
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: expected a vocabulary with numbers as keys: {error}") from error
    inputs = [str(options.get(key) or "") for key in ("input_att_dir", "input_fc_dir")]
    boxes = [name for name in inputs if Path(name).name.startswith("cocobu")]
    if options.get("use_box") or boxes:
        raise UserError(
            f"{path}: expected a model trained on a CNN's features on a grid, got one on boxes of a detector "
            f"({boxes[0] if boxes else 'use_box'}), which no pixels lead to"
        )
    if options.get("norm_att_feat"):
        raise UserError(f"{path}: expected features as they are, got norm_att_feat, which is not supported")
    if not options.get("max_length") and not options.get("seq_length"):
        options["seq_length"] = 16
    last = max(words, default=0)
    rare = last if words.get(last) == "UNK" else None
    return options, order_words({0: "", **words}, (None, None, 0, rare), str(path))


def captioner(
    weights: Mapping[str, Tensor],
    options: Mapping[str, Any],
    words: Order,
    cnn: Mapping[str, Tensor],
    where: str = "the model",
    infos: str = "the infos",
    cnn_file: str = "the CNN",
    grid: int = GRID,
) -> Captioner:
    """Make the model out of its state dict, its options and its CNN.

    Args:
        weights: Of `model.pth`.
        options: Of the infos; `caption_model` counts.
        words: As `read_infos` gives them.
        cnn: A ResNet's, with torchvision's names; its classifier is left aside.
        where: The first file, for errors.
        infos: The second.
        cnn_file: The third.
        grid: Side of the grid that features were pooled to.

    Raises:
        UserError: The parts do not fit one another, or the kind of model is not known.
    """
    kind = str(options["caption_model"])
    if kind not in MODELS:
        raise unknown(f"caption_model in {infos}", kind, MODELS)
    guessed = _kind_of(weights)
    if guessed and kind not in guessed:
        raise UserError(
            f"{infos} says caption_model {kind!r}, but {where} holds the weights of {' or '.join(guessed)}; "
            "they belong to different runs"
        )
    if "logit.0.weight" in weights:
        raise UserError(f"{where}: expected one layer in logit, got several (logit_layers), which is not supported")
    count = shape_of(weights, "logit.weight", 2, where)[0]
    shape_of(weights, "logit.bias", 1, where)
    check_words(words, count, infos, where)
    sizes = sizes_of(cnn, cnn_file) | {"caffe": True, "size": None}
    model, head = MODELS[kind](weights, words, sizes, where, grid)
    trunk = {name: value for name, value in cnn.items() if not name.startswith("fc.")}
    load_weights(model.backbone, trunk, cnn_file, "Expected a ResNet with torchvision's names.")
    own = {f"backbone.{name}": value for name, value in model.backbone.state_dict().items()}
    # Padding and start share the number of the end, but are never said.
    numbers = words[1]
    heard = [0, 0, *numbers[2:]]
    head["hear.weight"] = rows(head["hear.weight"], heard)
    head["readout.weight"] = rows(head["readout.weight"], numbers)
    head["readout.bias"] = rows(head["readout.bias"], numbers, CLOSED)
    hint = f"Its infos say caption_model {kind!r}; a file of another kind or size was mixed in, or use_bn is 2."
    load_weights(model, own | head, where, hint)
    return model.eval()


def _kind_of(weights: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Which models have such weights; none if they are of no known one."""
    if "core.a2c.weight" in weights:
        return ("att2in2",)
    if "core.att_lstm.weight_ih" in weights:
        return ("updown", "topdown")
    if "_core.i2h.weight" in weights:
        return ("newfc",)
    if "core.i2h.weight" in weights and "img_embed.weight" in weights:
        return ("fc",)
    return ("show_tell",) if "core.weight_ih_l0" in weights else ()


def _image_first(core: str, see: str) -> Callable[..., Made]:
    def make(weights: Mapping[str, Tensor], words: Order, sizes: dict[str, Any], where: str, grid: int) -> Made:
        embedding = shape_of(weights, "embed.weight", 2, where)[1]
        hidden = shape_of(weights, f"{core}.h2h.weight", 2, where)[1]
        names = {"embed": "hear", see: "see", core: "cells.0", "logit": "readout"}
        model = built(lambda: ImageFirst(words[0], sizes, embedding, hidden, cell="maxout"))
        return model, renamed(weights, names)

    return make


def _show_tell(weights: Mapping[str, Tensor], words: Order, sizes: dict[str, Any], where: str, grid: int) -> Made:
    embedding = shape_of(weights, "embed.weight", 2, where)[1]
    hidden = shape_of(weights, "core.weight_hh_l0", 2, where)[1]
    layers = len({name for name in weights if name.startswith("core.weight_hh_l")})
    rest = {name: value for name, value in weights.items() if not name.startswith("core.")}
    head = renamed(rest, {"embed": "hear", "img_embed": "see", "logit": "readout"}) | lstm(weights, "core.", "cells")
    return built(lambda: ImageFirst(words[0], sizes, embedding, hidden, layers)), head


def _attending(cls: type[Att2in2] | type[UpDown], size: str, names: Mapping[str, str]) -> Callable[..., Made]:
    def make(weights: Mapping[str, Tensor], words: Order, sizes: dict[str, Any], where: str, grid: int) -> Made:
        embedding = shape_of(weights, "embed.0.weight", 2, where)[1]
        hidden = shape_of(weights, size, 2, where)[1]
        attention = shape_of(weights, "ctx2att.weight", 2, where)[0]
        common = {
            "embed.0": "hear",
            "att_embed.0": "place",
            "ctx2att": "key",
            "core.attention.h2att": "attention.ask",
            "core.attention.alpha_net": "attention.score",
            "logit": "readout",
        }
        head = renamed(_normed(weights, where), {**common, **names})
        head["hear.weight"] = head["hear.weight"].relu()  # the peer rectifies words' vectors
        return built(lambda: cls(words[0], sizes, embedding, hidden, attention, grid)), head

    return make


def _normed(weights: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """With `use_bn` features are normalised before their linear layer, into which that is folded."""
    if "att_embed.0.running_mean" not in weights:
        return dict(weights)
    for name in ("0.weight", "0.bias", "0.running_mean", "0.running_var", "1.bias"):
        shape_of(weights, f"att_embed.{name}", 1, where)
    shape_of(weights, "att_embed.1.weight", 2, where)
    rest = {name: value for name, value in weights.items() if not name.startswith(("att_embed.0.", "att_embed.1."))}
    norm, linear = group(weights, "att_embed.0."), group(weights, "att_embed.1.")
    w, b = fold_norm(linear["weight"], linear["bias"], norm, after=False)
    return rest | {"att_embed.0.weight": w, "att_embed.0.bias": b}


_UPDOWN = _attending(
    UpDown,
    "core.att_lstm.weight_hh",
    {"fc_embed.0": "see", "core.att_lstm": "asking", "core.lang_lstm": "speaking"},
)
MODELS: dict[str, Callable[..., Made]] = {
    "newfc": _image_first("_core", "fc_embed"),
    "fc": _image_first("core", "img_embed"),
    "show_tell": _show_tell,
    "att2in2": _attending(Att2in2, "core.h2h.weight", {"core.i2h": "i2h", "core.h2h": "h2h", "core.a2c": "a2c"}),
    "updown": _UPDOWN,
    "topdown": _UPDOWN,
}
