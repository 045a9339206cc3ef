"""hengyuan-hu/bottom-up-attention-vqa: a state dict, two pickles of words, and the features of the pictures' boxes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmcam.errors import UserError
from mmcam.importing.files import kind_of
from mmcam.importing.folder import write_model
from mmcam.importing.pickles import read_pickle
from mmcam.importing.weights import built, load_weights, read_weights, renamed, shape_of
from vqa.importers.parts import numbered
from vqa.peers.bottom_up import BottomUp
from vqa.peers.boxes import BoxFeatures, rows_of

__all__ = ["NAMES", "PEER", "convert", "model_of", "read", "written_out"]

PEER = "hengyuan-hu/bottom-up-attention-vqa"
NAMES = {
    "w_emb.emb": "hear",
    "q_emb.rnn": "gru",
    "v_att.v_proj.main.0": "attention.v_proj",
    "v_att.q_proj.main.0": "attention.q_proj",
    "v_att.nonlinear.main.0": "attention.nonlinear",
    "v_att.linear": "attention.linear",
    "q_net.main.0": "question",
    "v_net.main.0": "image",
    "classifier.main.0": "readout.0",
    "classifier.main.3": "readout.2",
}
"""The peer's names of layers, and ours."""


def convert(files: Sequence[Path], out: Path) -> Path:
    """Turn the peer's files into a folder of ours, which goes on reading the features where they are.

    Args:
        files: As for `read`, and the features of the pictures that shall be explained: `val36.hdf5` and
            `val36_imgid2idx.pkl`.
        out: The folder to write.

    Returns:
        The folder, which `mmcam.load_task` takes.

    Raises:
        UserError: As for `read`, or the folder holds a model, or there are no features, or of another length.
    """
    features = [path for path in files if kind_of(path) == "hdf5"]
    numbers = [path for path in files if kind_of(path) == "pickle" and _is_rows(read_pickle(path))]
    if len(features) != 1 or len(numbers) != 1:
        raise UserError(
            f"expected the features of pictures, such as val36.hdf5 with val36_imgid2idx.pkl, got {len(features)} and "
            f"{len(numbers)} such files; give one of each"
        )
    small = [path for path in files if path not in features]
    model = read([path for path in small if path not in numbers])
    found = BoxFeatures(features[0], numbers[0])
    if found.shape[2] != model.backbone.channels:
        raise UserError(f"{features[0]}: expected features of length {model.backbone.channels}, got {found.shape[2]}")
    arguments = {"features": str(features[0].resolve()), "pictures": str(numbers[0].resolve())}
    return write_model(model, out, PEER, small, "vqa.peers.bottom_up.BoxTask", arguments)


def read(files: Sequence[Path]) -> BottomUp:
    """Read the model.

    Args:
        files: `saved_models/<name>/model.pth`, `dictionary.pkl` and `trainval_label2ans.pkl` or
            `trainval_ans2label.pkl`, in any order.

    Returns:
        The model.

    Raises:
        UserError: A file is missing, one too many, broken or of something else.
    """
    found: dict[str, tuple[Any, Path]] = {}
    for path in files:
        if kind_of(path) == "pickle":
            tree = read_pickle(path)
            paired = isinstance(tree, list) and len(tree) == 2 and isinstance(tree[0], Mapping)
            what = "a dictionary of words" if paired else "a list of answers"
        else:
            tree, what = read_weights(path), "a model"
        if what in found:
            raise UserError(f"expected {what} once, got {found[what][1]} and {path}")
        found[what] = tree, path
    wanted = {"a model": "model.pth", "a dictionary of words": "dictionary.pkl", "a list of answers": "label2ans.pkl"}
    for what, name in wanted.items():
        if what not in found:
            raise UserError(f"expected {what} of {PEER} among the files, got none; give {name}")
    weights, where = found["a model"]
    return model_of(weights, *(found[what] for what in list(wanted)[1:]), where=str(where))


def model_of(weights: Mapping[str, Tensor], words: tuple[Any, Path], answers: tuple[Any, Path], where: str) -> BottomUp:
    """Make our model of what was read.

    Args:
        weights: By the peer's names.
        words: Two containers of words, one from words to numbers, and their file.
        answers: In the order of the logits, or to their numbers, and their file.
        where: The checkpoint's file, for errors.

    Returns:
        The model, in eval mode.

    Raises:
        UserError: Something is missing, or does not fit the rest.
    """
    plain = written_out(weights, where)
    tokens, embedding = shape_of(plain, "w_emb.emb.weight", 2, where)
    hidden = shape_of(plain, "q_emb.rnn.weight_hh_l0", 2, where)[1]
    channels = shape_of(plain, "v_net.main.0.weight", 2, where)[1]
    count = shape_of(plain, "classifier.main.3.weight", 2, where)[0]
    known = numbered(words[0][0], 0, f"{words[1]}[0]")
    said = answers[0]
    if isinstance(said, list):
        if not all(isinstance(answer, str) for answer in said):
            raise UserError(f"{answers[1]}: expected a list of answers, got one of other things")
    else:
        said = numbered(said, 0, str(answers[1]))
    for what, got, need, path in (
        ("words", len(known), tokens - 1, words[1]),
        ("answers", len(said), count, answers[1]),
    ):
        if got != need:
            raise UserError(f"{path}: expected {need} {what}, as {where} has, got {got}; is it another training's?")
    attention = "joined" if "v_att.nonlinear.main.0.weight" in plain else "product"
    model = built(lambda: BottomUp(known, said, attention, channels, embedding, hidden))
    load_weights(
        model, renamed(plain, NAMES), where, f"(The peer's {', '.join(NAMES)} are {', '.join(NAMES.values())}.)"
    )
    return model.eval()


def written_out(weights: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Undo weight normalisation: weight = g · v / ‖v‖, with the norm of the whole matrix and g a single number.

    Raises:
        UserError: A g is lacking or no single number, or a v is zero.
    """
    plain = {name: value for name, value in weights.items() if not name.endswith(("weight_g", "weight_v"))}
    for name, direction in weights.items():
        if not name.endswith("weight_v"):
            continue
        scale = weights.get(f"{name[:-1]}g")
        if scale is None or scale.numel() != 1 or not bool(direction.any()):
            raise UserError(f"{where}: expected {name[:-1]}g as one number and {name} not zero; is the file whole?")
        plain[name.removesuffix("_v")] = scale.reshape(()) * direction / torch.linalg.vector_norm(direction)
    return plain


def _is_rows(tree: object) -> bool:
    """Whether a pickle is that from pictures' numbers to rows."""
    try:
        return bool(rows_of(tree, ""))
    except UserError:
        return False
