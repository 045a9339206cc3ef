"""yunjey/pytorch-tutorial, image captioning (commit 0500d3df): encoder, decoder and `vocab.pkl`.

The picture is squashed to 224 x 224 by Lanczos, as the tutorial's `sample.py` does. The encoder runs without a graph
there; here it is the trunk. Its last batch norm is folded into the linear layer before it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from captioning.importers.parts import Order, absent, check_words, fold_norm, lstm, order_words, rows, sorted_out
from captioning.peers import ImageFirst
from mmcam.errors import UserError
from mmcam.importing.folder import write_model
from mmcam.importing.pickles import read_pickle
from mmcam.importing.resnet import named_like_torchvision, sizes_of
from mmcam.importing.weights import built, group, load_weights, shape_of
from mmcam.text import SPECIAL

__all__ = ["captioner", "convert", "read_words"]

PEER = "yunjey/pytorch-tutorial"
FILES = "the encoder's and the decoder's checkpoint and vocab.pkl"
LENGTH = 19  # `sample` takes 20 steps, of which the first says the start mark


def convert(files: Sequence[Path], out: Path) -> Path:
    """Import an encoder, a decoder and their vocabulary.

    Args:
        files: The three, in any order.
        out: The folder to write.

    Returns:
        The folder.

    Raises:
        UserError: A file is missing, is something else, or does not fit the others.
    """
    names = ("the decoder", "the encoder", "vocab.pkl")
    decoder, encoder, words = sorted_out(files, "embed.weight", names, FILES)
    if encoder is None or decoder is None or words is None:
        raise absent(FILES, files, {"the encoder": encoder, "the decoder": decoder, "vocab.pkl": words})
    model = captioner(encoder[1], decoder[1], read_words(words), str(encoder[0]), str(decoder[0]), str(words))
    return write_model(model, out, PEER, files, "captioning.CaptioningTask", {"beam": 1, "length": LENGTH})


def read_words(path: Path) -> Order:
    """Read `vocab.pkl`, whose class may be of any module.

    Raises:
        UserError: It is no such vocabulary.
    """
    vocabulary = read_pickle(path, ["*.Vocabulary"])
    words = getattr(vocabulary, "idx2word", None)
    if not isinstance(words, dict) or not all(isinstance(n, int) and isinstance(w, str) for n, w in words.items()):
        raise UserError(f"{path}: expected a vocabulary with idx2word, got a {type(vocabulary).__name__} without")
    special = tuple(words.get(number) for number in range(4))
    if special != SPECIAL:
        raise UserError(f"{path}: expected the words {', '.join(SPECIAL)} first, got {special}")
    return order_words(words, (0, 1, 2, 3), str(path))


def captioner(
    encoder: Mapping[str, Tensor],
    decoder: Mapping[str, Tensor],
    words: Order,
    where: str = "the encoder",
    decoder_file: str = "the decoder",
    words_file: str = "the vocabulary",
) -> ImageFirst:
    """Make the model out of both state dicts.

    Raises:
        UserError: They are not of this peer, or do not fit one another or the words.
    """
    count, embedding = shape_of(decoder, "embed.weight", 2, decoder_file)
    hidden = shape_of(decoder, "lstm.weight_hh_l0", 2, decoder_file)[1]
    check_words(words, count, words_file, decoder_file)
    shape_of(encoder, "resnet.0.weight", 4, where)
    trunk = named_like_torchvision(encoder, "resnet.")
    out, _ = shape_of(encoder, "linear.weight", 2, where)
    for name in ("bn.weight", "bn.bias", "bn.running_mean", "bn.running_var", "linear.bias"):
        if shape_of(encoder, name, 1, where) != (out,):
            raise UserError(f"{where}: expected {out} numbers at {name!r}, got {tuple(encoder[name].shape)}")
    see = fold_norm(encoder["linear.weight"], encoder["linear.bias"], group(encoder, "bn."), after=True)
    layers = len({name for name in decoder if name.startswith("lstm.weight_hh_l")})
    sizes = sizes_of(trunk, where) | {"size": [224, 224], "interpolation": "lanczos"}
    model = built(lambda: ImageFirst(words[0], sizes, embedding, hidden, layers))
    load_weights(model.backbone, trunk, where, HINT)
    rest = {name: value for name, value in decoder.items() if not name.startswith(("embed.", "lstm.", "linear."))}
    head = {
        **rest,
        **lstm(decoder, "lstm.", "cells"),
        "hear.weight": rows(decoder["embed.weight"], words[1]),
        **{f"readout.{name}": rows(value, words[1]) for name, value in group(decoder, "linear.").items()},
        "see.weight": see[0],
        "see.bias": see[1],
    }
    backbone = {f"backbone.{name}": value for name, value in model.backbone.state_dict().items()}
    load_weights(model, backbone | head, decoder_file, HINT)
    return model.eval()


HINT = "The peer's EncoderCNN and DecoderRNN have other names or sizes; were the classes changed?"
