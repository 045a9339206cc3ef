"""Cyanogenoid/pytorch-vqa: one file with weights and vocabulary; the CNN, which it lacks, is a second one."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mmcam.errors import UserError
from mmcam.importing.checkpoints import read_checkpoint
from mmcam.importing.folder import write_model
from mmcam.importing.resnet import sizes_of
from mmcam.importing.weights import built, load_weights, renamed, shape_of, state_dict_in, weights_of
from vqa.importers.parts import numbered
from vqa.peers import ShowAskAttendAnswer

__all__ = ["NAMES", "PEER", "convert", "model_of", "read"]

PEER = "Cyanogenoid/pytorch-vqa"
NAMES = {
    "text.embedding": "hear.0",
    "text.lstm": "lstm",
    "attention.v_conv": "show",
    "attention.q_lin": "ask",
    "attention.x_conv": "attend",
    "classifier.lin1": "readout.0",
    "classifier.lin2": "readout.2",
}
"""The peer's names of layers, and ours."""

CNN = (
    "the weights of a Caffe-style ResNet-152 for RGB pictures with ImageNet's mean and standard deviation, "
    "resnet152-caffe.pth of Cyanogenoid/pytorch-resnet"
)
LARGEST_SIDE = 4096  # pixels


def convert(files: Sequence[Path], out: Path) -> Path:
    """Turn the peer's files into a folder of ours.

    Args:
        files: As for `read`.
        out: The folder to write.

    Returns:
        The folder, which `mmcam.load_task` takes.

    Raises:
        UserError: As for `read`, or the folder holds a model.
    """
    return write_model(read(files), out, PEER, files, "vqa.VQATask", {})


def read(files: Sequence[Path]) -> ShowAskAttendAnswer:
    """Read the model.

    Args:
        files: `logs/<name>.pth`, and the weights of the CNN whose features it was trained on, in any order.

    Returns:
        The model, CNN and all.

    Raises:
        UserError: A file is missing, one too many, broken or of something else.
    """
    model, cnn = None, None
    for path in files:
        tree = read_checkpoint(path)
        if isinstance(tree, Mapping) and "weights" in tree and "vocab" in tree:
            if model:
                raise UserError(f"expected one checkpoint of {PEER}, got {model[1]} and {path}")
            model = tree, path
        elif cnn:
            raise UserError(f"expected a checkpoint of {PEER} with 'weights' and 'vocab', and {CNN}; {path} is neither")
        else:
            cnn = tree, path
    if model is None:
        raise UserError(f"expected a checkpoint of {PEER}, with 'weights' and 'vocab'; none of the files is one")
    if cnn is None:
        raise UserError(f"{model[1]} holds no CNN: its features were computed beforehand; give also {CNN}")
    trunk = {name: v for name, v in state_dict_in(cnn[0], str(cnn[1])).items() if not name.startswith("fc.")}
    return model_of(model[0], trunk, str(model[1]), str(cnn[1]))


def model_of(
    checkpoint: Mapping[str, Any],
    cnn: Mapping[str, Tensor],
    where: str,
    where_cnn: str,
) -> ShowAskAttendAnswer:
    """Make our model of what was read.

    Args:
        checkpoint: The peer's dictionary.
        cnn: The CNN's weights, by torchvision's names.
        where: The checkpoint's file, for errors.
        where_cnn: The CNN's.

    Returns:
        The model, in eval mode.

    Raises:
        UserError: Something is missing, or does not fit the rest.
    """
    weights = weights_of(checkpoint["weights"], where)
    tokens, embedding = shape_of(weights, "text.embedding.weight", 2, where)
    hidden = shape_of(weights, "text.lstm.weight_hh_l0", 2, where)[1]
    attention, channels = shape_of(weights, "attention.v_conv.weight", 4, where)[:2]
    shape_of(weights, "attention.q_lin.weight", 2, where)
    glimpses = shape_of(weights, "attention.x_conv.weight", 4, where)[0]
    common = shape_of(weights, "classifier.lin1.weight", 2, where)[0]
    count = shape_of(weights, "classifier.lin2.weight", 2, where)[0]

    known = checkpoint["vocab"]
    if not isinstance(known, Mapping) or not {"question", "answer"} <= set(known):
        raise UserError(f"{where}: expected a vocabulary with 'question' and 'answer', got {type(known).__name__}")
    words = numbered(known["question"], 1, f"{where}, vocab['question']")
    answers = numbered(known["answer"], 0, f"{where}, vocab['answer']")
    if (len(words) + 1, len(answers)) != (tokens, count):
        raise UserError(
            f"{where}: expected as many words and answers as the weights have, {tokens - 1} and {count}; the "
            f"vocabulary has {len(words)} and {len(answers)}; is it another training's?"
        )

    sizes = sizes_of(cnn, where_cnn)
    if sizes["outs"][-1] != channels:
        raise UserError(
            f"{where_cnn}: expected a CNN whose last map has {channels} channels, which {where} looks at, got "
            f"{sizes['outs'][-1]}; give {CNN}"
        )
    resize, crop = _sides(checkpoint.get("config"), where)
    model = built(
        lambda: ShowAskAttendAnswer(
            vocabulary=["<unk>", *words],
            answers=answers,
            trunk={**sizes, "caffe": True, "size": [crop, crop]},
            embedding=embedding,
            hidden=hidden,
            attention=attention,
            glimpses=glimpses,
            common=common,
            resize=resize,
        )
    )
    load_weights(
        model.backbone, cnn, where_cnn, "A Caffe-style ResNet has torchvision's names, without a bias in conv1"
    )
    head = renamed(weights, NAMES)
    head = {name: value[..., 0] if value.ndim == 4 else value for name, value in head.items()}  # 1 x 1 convolutions
    trunk = {f"backbone.{name}": value for name, value in cnn.items()}
    load_weights(model, head | trunk, where, f"(The peer's {', '.join(NAMES)} are {', '.join(NAMES.values())} here.)")
    return model.eval()


def _sides(config: object, where: str) -> tuple[int, int]:
    """The short side after resizing, and the side of the square, as the peer's configuration has them."""
    values = config if isinstance(config, Mapping) else {}
    side, fraction = values.get("image_size", 448), values.get("central_fraction", 0.875)
    fits = all(type(value) in (int, float) and math.isfinite(value) for value in (side, fraction)) and fraction > 0
    if not fits or side != int(side) or not 32 <= side <= int(side / fraction) <= LARGEST_SIDE:
        raise UserError(
            f"{where}: expected image_size and central_fraction such as 448 and 0.875 in 'config', got {side!r} and "
            f"{fraction!r}"
        )
    return int(side / fraction), int(side)
