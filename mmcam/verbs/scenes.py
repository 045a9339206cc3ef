"""`mmcam scenes`: the embedded world as files."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from mmcam.errors import UserError

EPILOG = """\
Writes pictures of OpenMoji things with captions, questions, boxes and exact masks, in the formats of COCO and VQA v2.
The same seed gives the same world on every machine; the four splits share no scene, and "hard" shows pairs of things
that are never together in the others.

examples:
  mmcam scenes --out runs/scenes --train 12000 --val 1000
  mmcam scenes --out runs/fresh --test 500 --seed 7"""


def configure(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    parser.epilog = EPILOG
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    for split in ("train", "val", "test", "hard"):
        parser.add_argument(
            f"--{split}", type=int, default=0, metavar="N", help=f"pictures of the split {split!r} (default: 0)"
        )
    parser.add_argument("--seed", type=int, default=0, help="the world's seed (default: 0)")


def run(arguments: Namespace) -> int:
    """Write the splits that were asked for."""
    from mmcam.scenes.write import SPLITS, write

    counts = {split: arguments[split] for split in SPLITS}
    if min(counts.values()) < 0 or not any(counts.values()):
        raise UserError("expected a number of pictures for one split at least, such as --train 1000, got none")
    for split, count in counts.items():
        if count:
            write(arguments.out, split, count, seed=arguments.seed)
    print(arguments.out)
    return 0
