"""`mmcam import`: other people's checkpoints as models that can be explained."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from mmcam.errors import UserError, unknown

PEERS = {
    "yunjey": ("captioning.importers.yunjey", "yunjey/pytorch-tutorial: encoder, decoder, vocab.pkl"),
    "sgrvinod": (
        "captioning.importers.sgrvinod",
        "sgrvinod/a-PyTorch-Tutorial-to-Image-Captioning: BEST_checkpoint_*.pth.tar, WORDMAP_*.json",
    ),
    "ruotianluo": (
        "captioning.importers.ruotianluo",
        "ruotianluo/ImageCaptioning.pytorch: model.pth, infos_*.pkl, resnet101.pth",
    ),
    "cyanogenoid": ("vqa.importers.pytorch_vqa", "Cyanogenoid/pytorch-vqa: logs/<name>.pth, resnet152-caffe.pth"),
    "tbmoon": (
        "vqa.importers.basic_vqa",
        "tbmoon/basic_vqa: model-epoch-NN.ckpt, vocab_questions.txt, vocab_answers.txt",
    ),
    "bottom_up": (
        "vqa.importers.bottom_up",
        "hengyuan-hu/bottom-up-attention-vqa: model.pth, dictionary.pkl, trainval_label2ans.pkl, features",
    ),
}
"""Each has a module with `convert(files, out) -> folder`, and what `OPTIONS` of its own names."""

OPTIONS = {
    "grid": "ruotianluo: side of the grid that features were pooled to, prepro_feats.py's --att_size; 14 if not given",
    "length": "tbmoon: words of a question with its padding, the peer's --max_qst_length; 30 if not given",
}
"""What no file of the peer's tells."""

EPILOG = """\
Writes config.json and model.safetensors: the CNN, the words and how pictures are prepared are all in there, so that
the folder is a configuration. Files are known by their content, in any order; nothing in them is ever executed.

peers:
{peers}

examples:
  mmcam import yunjey encoder-5-3000.pkl decoder-5-3000.pkl vocab.pkl --out runs/yunjey
  mmcam import tbmoon model-epoch-30.ckpt vocab_questions.txt vocab_answers.txt --length 26 --out runs/tbmoon
  mmcam explain photo.jpg --config runs/yunjey"""


def configure(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    parser.epilog = EPILOG.format(peers="\n".join(f"  {name:<13} {what}" for name, (_, what) in PEERS.items()))
    parser.add_argument("peer", type=str, metavar="PEER", help="whose files they are; see below")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="the peer's files")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    for name, what in OPTIONS.items():
        parser.add_argument(f"--{name}", type=int | None, default=None, metavar="N", help=what)


def run(arguments: Namespace) -> int:
    """Import, and say where the model lies."""
    from importlib import import_module
    from inspect import signature

    if arguments.peer not in PEERS:
        raise unknown("peer", arguments.peer, PEERS)
    if arguments.overrides:
        raise UserError(f"mmcam import reads no configuration, got --{next(iter(arguments.overrides))}; leave it out")
    convert = import_module(PEERS[arguments.peer][0]).convert
    told = {name: arguments[name] for name in OPTIONS if arguments[name] is not None}
    for name in told.keys() - signature(convert).parameters:
        raise UserError(f"the files of {arguments.peer} need no --{name}; leave it out")
    print(convert(arguments.files, arguments.out, **told))
    return 0
