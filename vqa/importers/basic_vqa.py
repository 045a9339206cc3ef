"""tbmoon/basic_vqa: a checkpoint and two lists of words; VGG-19 is in the checkpoint, or in torchvision's own file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from mmcam.errors import UserError
from mmcam.importing.files import kind_of, read_lines
from mmcam.importing.folder import write_model
from mmcam.importing.weights import built, group, load_weights, read_weights, renamed, shape_of
from vqa.importers.parts import vgg_stages
from vqa.peers import BasicVQA

__all__ = ["NAMES", "PEER", "convert", "model_of", "read"]

PEER = "tbmoon/basic_vqa"
NAMES = {
    "img_encoder.model": "backbone",
    "img_encoder.fc": "image",
    "qst_encoder.word2vec": "hear.0",
    "qst_encoder.lstm": "lstm",
    "qst_encoder.fc": "question",
    "fc1": "readout.0",
    "fc2": "readout.2",
}
"""The peer's names of layers, and ours."""

CNN = "img_encoder.model."


def convert(files: Sequence[Path], out: Path, length: int = 30) -> Path:
    """Turn the peer's files into a folder of ours.

    Args:
        files: As for `read`.
        out: The folder to write.
        length: As for `read`.

    Returns:
        The folder, which `mmcam.load_task` takes.

    Raises:
        UserError: As for `read`, or the folder holds a model.
    """
    return write_model(read(files, length), out, PEER, files, "vqa.VQATask", {})


def read(files: Sequence[Path], length: int = 30) -> BasicVQA:
    """Read the model.

    Args:
        files: `model-epoch-NN.ckpt`, `vocab_questions.txt` and `vocab_answers.txt`, in any order; also torchvision's
            weights of VGG-19, which the peer never trained, if the checkpoint was saved without them.
        length: The peer's `--max_qst_length`, which no file tells: the LSTM hears the padding, too.

    Returns:
        The model, CNN and all.

    Raises:
        UserError: A file is missing, one too many, broken or of something else.
    """
    texts = [path for path in files if kind_of(path) in ("text", "json")]
    checkpoints = [path for path in files if path not in texts]
    lists = {path: read_lines(path) for path in texts}
    asked = [path for path, lines in lists.items() if "<pad>" in lines]
    said = [path for path in texts if path not in asked]
    if len(asked) != 1 or len(said) != 1:
        raise UserError(
            f"expected vocab_questions.txt, with '<pad>' among its lines, and vocab_answers.txt, without; got "
            f"{len(asked)} and {len(said)} of them"
        )
    weights: dict[str, Tensor] = {}
    cnn: dict[str, Tensor] = {}
    model, other = None, None
    for path in checkpoints:
        found = read_weights(path)
        if any(name.startswith("qst_encoder.") for name in found) and model is None:
            weights, model = found, path
        elif "features.0.weight" in found and other is None:
            cnn, other = {f"{CNN}{name}": v for name, v in found.items() if not name.startswith("classifier.6.")}, path
        else:
            raise UserError(f"expected one checkpoint of {PEER}, and VGG's weights if it lacks them; {path} is neither")
    if model is None:
        raise UserError(f"expected a checkpoint of {PEER}, with tensors such as 'qst_encoder.fc.weight'; got none")
    if not group({**weights, **cnn}, CNN):
        raise UserError(f"{model} was saved without VGG-19; give torchvision's weights of it, too: vgg19-dcbb9e9d.pth")
    if cnn and group(weights, CNN):
        raise UserError(f"expected VGG's weights once, got them in {model} and in {other}; leave out the latter")
    return model_of(weights | cnn, lists[asked[0]], lists[said[0]], str(model), length)


def model_of(
    weights: Mapping[str, Tensor],
    words: list[str],
    answers: list[str],
    where: str,
    length: int = 30,
) -> BasicVQA:
    """Make our model of what was read.

    Args:
        weights: By the peer's names, VGG's among them.
        words: Of questions.
        answers: In the order of the logits.
        where: The checkpoint's file, for errors.
        length: Of all questions, with their padding.

    Returns:
        The model, in eval mode.

    Raises:
        UserError: Something is missing, or does not fit the rest.
    """
    if length < 1:
        raise UserError(f"expected a length of questions of 1 or more, got {length}")
    count, embedding = shape_of(weights, "qst_encoder.word2vec.weight", 2, where)
    hidden = shape_of(weights, "qst_encoder.lstm.weight_hh_l0", 2, where)[1]
    common = shape_of(weights, "qst_encoder.fc.weight", 2, where)[0]
    shape_of(weights, "img_encoder.fc.weight", 2, where)
    shape_of(weights, "fc1.weight", 2, where)
    logits = shape_of(weights, "fc2.weight", 2, where)[0]
    for what, got, wanted in (("words of questions", len(words), count), ("answers", len(answers), logits)):
        if got != wanted:
            raise UserError(f"{where}: expected {wanted} {what}, got {got} lines; is the list another training's?")
    if words[0] != "<pad>":
        raise UserError(f"expected the words of questions to begin with '<pad>', got {words[0]!r}; the file is another")
    vgg = group(weights, CNN)
    dim = shape_of(vgg, "classifier.3.weight", 2, where)[0]
    stages = vgg_stages(vgg, where)
    layers = sum(name.startswith("qst_encoder.lstm.weight_hh_l") for name in weights)
    model = built(lambda: BasicVQA(words, answers, stages, dim, embedding, hidden, layers, common, length))
    hint = f"(The peer's {', '.join(NAMES)} are {', '.join(NAMES.values())} here.)"
    load_weights(model, renamed(weights, NAMES), where, hint)
    return model.eval()
