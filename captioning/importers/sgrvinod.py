"""sgrvinod/a-PyTorch-Tutorial-to-Image-Captioning (commit cc9c7e2f): a whole-model checkpoint and its WORDMAP.

The picture is squashed to 256 x 256, bilinear. Decoding keeps five hypotheses, as `caption.py` does by default.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from captioning.importers.parts import Order, absent, check_words, is_torch, once, order_words, refuse, rows
from captioning.peers import ShowAttendTell
from mmcam.errors import UserError
from mmcam.importing.checkpoints import read_checkpoint, state_of
from mmcam.importing.files import kind_of, read_json
from mmcam.importing.folder import write_model
from mmcam.importing.resnet import named_like_torchvision, sizes_of
from mmcam.importing.weights import built, load_weights, renamed, shape_of, weights_of
from mmcam.text import SPECIAL

__all__ = ["captioner", "convert", "read_models", "read_words"]

PEER = "sgrvinod/a-PyTorch-Tutorial-to-Image-Captioning"
FILES = "the checkpoint (.pth.tar) and the WORDMAP (.json)"
# Copied projects have them in modules of other names.
CLASSES = ("*.Encoder", "*.DecoderWithAttention", "*.Attention")
NAMES = {
    "embedding": "hear",
    "attention.encoder_att": "key",
    "attention.decoder_att": "attention.ask",
    "attention.full_att": "attention.score",
    "init_h": "first_h",
    "init_c": "first_c",
    "f_beta": "gate",
    "decode_step": "lstm",
    "fc": "readout",
}
HINT = "The peer's Encoder and DecoderWithAttention have other names or sizes; were the classes changed?"


def convert(files: Sequence[Path], out: Path) -> Path:
    """Import a checkpoint and its words.

    Args:
        files: Both, in any order.
        out: The folder to write.

    Returns:
        The folder.

    Raises:
        UserError: A file is missing, is something else, or does not fit the other.
    """
    checkpoint = words = None
    for path in files:
        if is_torch(path):
            checkpoint = once(checkpoint, path, "the checkpoint")
        elif kind_of(path) == "json":
            words = once(words, path, "the WORDMAP")
        else:
            raise refuse(path, FILES)
    if checkpoint is None or words is None:
        raise absent(FILES, files, {"the checkpoint": checkpoint, "the WORDMAP": words})
    model = captioner(read_models(checkpoint), read_words(words), str(checkpoint), str(words))
    return write_model(model, out, PEER, files, "captioning.CaptioningTask", {"beam": 5, "length": 50})


def read_words(path: Path) -> Order:
    """Read a WORDMAP.

    Raises:
        UserError: It is none.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not all(type(number) is int for number in content.values()):
        raise UserError(f"{path}: expected a WORDMAP from words to numbers, got a {type(content).__name__} of others")
    lacking = [word for word in SPECIAL if word not in content]
    if lacking:
        raise UserError(f"{path}: expected a WORDMAP with {', '.join(SPECIAL)}, got one without {', '.join(lacking)}")
    words = {number: word for word, number in content.items()}
    if len(words) != len(content):
        raise UserError(f"{path}: expected one word a number, got {len(content)} words with {len(words)} numbers")
    return order_words(words, [content[word] for word in SPECIAL], str(path))


def read_models(path: Path) -> dict[str, Any]:
    """Read encoder and decoder out of a checkpoint, without the peer's code.

    Returns:
        "encoder" and "decoder", state dicts; and "grid", the side of what attention looks at.

    Raises:
        UserError: It is no such checkpoint.
    """
    tree = read_checkpoint(path, CLASSES)
    if not isinstance(tree, Mapping) or not {"encoder", "decoder"} <= {*tree}:
        there = ", ".join(map(str, list(tree)[:6])) if isinstance(tree, Mapping) else type(tree).__name__
        raise UserError(f"{path}: expected a checkpoint with encoder and decoder, got {there}")
    read: dict[str, Any] = {"grid": 14}
    for name in ("encoder", "decoder"):
        part = tree[name]
        inner = getattr(part, "_modules", None) or {}
        part = inner.get("module", part)  # DataParallel
        read[name] = weights_of(part if isinstance(part, Mapping) else state_of(part), f"{path}, {name}")
        pool = (getattr(part, "_modules", None) or {}).get("adaptive_pool")
        side = getattr(pool, "output_size", None)
        side = side[0] if isinstance(side, tuple) and side else side
        if isinstance(side, int):
            read["grid"] = side
    return read


def captioner(
    models: Mapping[str, Any], words: Order, where: str = "the checkpoint", words_file: str = "the WORDMAP"
) -> ShowAttendTell:
    """Make the model out of what `read_models` gave.

    Raises:
        UserError: It is not of this peer, or does not fit the words.
    """
    encoder, decoder = models["encoder"], models["decoder"]
    count, embedding = shape_of(decoder, "embedding.weight", 2, where)
    hidden = shape_of(decoder, "decode_step.weight_hh", 2, where)[1]
    attention = shape_of(decoder, "attention.encoder_att.weight", 2, where)[0]
    check_words(words, count, words_file, where)
    shape_of(encoder, "resnet.0.weight", 4, where)
    trunk = named_like_torchvision(encoder, "resnet.")
    sizes = sizes_of(trunk, where) | {"size": [256, 256], "interpolation": "bilinear"}
    model = built(lambda: ShowAttendTell(words[0], sizes, embedding, hidden, attention, models["grid"]))
    head = renamed(decoder, NAMES)
    for name in ("hear.weight", "readout.weight", "readout.bias"):
        if name in head and len(head[name]) == count:
            head[name] = rows(head[name], words[1])
    load_weights(model, {f"backbone.{name}": value for name, value in trunk.items()} | head, where, HINT)
    return model.eval()
