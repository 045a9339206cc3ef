"""`mmcam train`: make a model out of a configuration's `train:` section."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from mmcam.verbs import print_config

EPILOG = """\
The section `train:` names a recipe and its arguments; any of them can be set: --train.init_args.epochs=3. Started again
on the same folder, a run that was killed goes on after its last whole epoch and ends with the same weights. Several
GPUs share each step's examples if torchrun starts the command; docs/training.md.

examples:
  mmcam scenes --out runs/scenes --train 12000 --val 500
  mmcam train --config classification/scenes --out runs/classifier --amp
  mmcam train --config captioning/scenes --out runs/captioner --train.init_args.backbone_weights=runs/classifier
  torchrun --nproc-per-node 4 -m mmcam train --config captioning/train_coco_show_and_tell --out runs/coco \
    --amp --workers 8"""


def configure(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    parser.epilog = EPILOG
    parser.add_argument("--config", type=str, required=True, help="YAML file, or name of a shipped one")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="gets the weights and the learning curves"
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1 … (default: auto)")
    parser.add_argument(
        "--amp", action="store_true", help="compute in bfloat16 (float16 on older GPUs) where it is safe"
    )
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that load examples, a GPU (default: 0, none)"
    )
    parser.add_argument(
        "--accumulate", type=int, default=1, metavar="N", help="compute a step in N parts, to save memory (default: 1)"
    )
    parser.add_argument("--tensorboard", action="store_true", help="write the curves for TensorBoard too")
    parser.add_argument("--threads", type=int, metavar="N", help="of the CPU (default: all cores)")
    parser.add_argument(
        "--print_config", action="store_true", help="print the configuration as it would be used, and stop"
    )


def run(arguments: Namespace) -> int:
    """Train, or go on training."""
    import logging

    import torch

    from mmcam.load import choose_device, instantiate
    from mmcam.training import Recipe, train
    from mmcam.training.processes import rank

    if arguments.print_config:
        print_config(arguments.config, arguments.overrides, train=Recipe)
        return 0
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if rank() == 0:
        logging.getLogger("mmcam").setLevel(logging.INFO)
    recipe = instantiate(arguments.config, "train", Recipe, arguments.overrides)
    options = {name: arguments[name] for name in ("amp", "workers", "accumulate", "tensorboard")}
    folder = train(recipe, arguments.out, choose_device(arguments.device), **options)
    if rank() == 0:
        print(folder)
    return 0
