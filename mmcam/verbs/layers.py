"""`mmcam layers`: which layers of a network can be explained, which one is, and why not the others."""

from collections import defaultdict
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from mmcam.errors import UserError
from mmcam.verbs import add_model, check_text, overrides_of, print_config, table

if TYPE_CHECKING:
    from mmcam.networks.survey import Surveyed
    from mmcam.task import Task

EPILOG = """\
Runs the network once on noise, forwards and backwards. A layer can be explained if it runs once and gives maps, or
tokens on a grid of the picture's aspect, and if the output depends on its places: after the last attention of a vision
transformer only the class token counts. "*" marks the layer of the configuration, or, where that names none, the last
that can be. Early layers have fine maps of edges and colours, late ones coarse maps of things. Choose another with
--layer in every verb, or `layer:` in the configuration; of captioners and VQA models these are the CNN's layers.

examples:
  mmcam layers --model resnet50
  mmcam layers --model timm/vit_tiny_patch16_224 --all
  mmcam layers --model timm/swin_tiny_patch4_window7_224 --task.init_args.size=448
  mmcam layers --config captioning/scenes
  mmcam layers --config my.yaml --layer layer3"""


def configure(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    parser.epilog = EPILOG
    add_model(parser, "captioning/scenes")
    parser.add_argument(
        "--model",
        type=str,
        default="",
        metavar="NAME",
        help="a classifier of torchvision, or of timm as timm/NAME, with random weights; instead of --config",
    )
    parser.add_argument("--question", type=str, default="", help="for a task of your own that cannot do without")
    parser.add_argument("--all", action="store_true", help="every layer in order, also those that are refused")


def run(arguments: Namespace) -> int:
    """Survey the network and print what was found."""
    from mmcam.load import load_task
    from mmcam.networks.survey import survey_task
    from mmcam.task import Sample, Task
    from mmcam.verbs.doctor import random_pictures

    config = arguments.config or "captioning/scenes"
    if arguments.model:
        if arguments.config:
            raise UserError("expected --config or --model, got both; leave one out")
        check_text("--model", arguments.model)
        init_args = {"model": arguments.model}
        config = {"task": {"class_path": "classification.ClassificationTask", "init_args": init_args}}
    overrides = overrides_of(arguments)
    if arguments.print_config:
        print_config(config, overrides, task=Task)
        return 0
    task = load_task(config, **{"device": arguments.device, **overrides})
    found, size = survey_task(task, Sample(random_pictures()[0][1], "noise", arguments.question))
    fit = [layer for layer in found if not (layer.refused or layer.passed)]
    if not fit:
        raise UserError(
            f"the layers of {type(task).__name__} cannot be seen from outside: none that runs gives maps of its own; "
            "its documentation says which it takes"
        )
    name = arguments.model or config
    print(f"{name}: {type(task).__name__}, layer {task.layer or '(unnamed)'}, input {size[0]} x {size[1]}")
    if arguments.all:
        print(table(("", "layer", "class", "output", "grid", "if not, why not"), [_row(x, task) for x in found]))
    else:
        shown = [layer for layer in found if layer in fit or _is_chosen(layer, task)]
        print(table(("", "layer", "class", "output", "grid"), [_row(layer, task)[:5] for layer in shown]))
        print(_refused(found))
    chosen = next((layer for layer in found if _is_chosen(layer, task)), None)
    if chosen and (chosen.refused or chosen.passed):
        print(f"the layer {task.layer!r}: {chosen.refused or chosen.passed}; better: {fit[-1].name!r}")
    elif chosen and chosen != fit[-1]:
        print(f"found without a name would be {fit[-1].name!r}")
    return 0


def _is_chosen(layer: "Surveyed", task: "Task") -> bool:
    return layer.name == task.layer


def _row(layer: "Surveyed", task: "Task") -> tuple[str, ...]:
    shape = " x ".join(map(str, layer.shape[1:]))
    grid = ""
    if layer.layout:
        rest = f" + {layer.layout.prefix}" if layer.layout.prefix else ""
        grid = f"{layer.layout.order} {layer.layout.grid[0]} x {layer.layout.grid[1]}{rest}"
    mark = "*" if _is_chosen(layer, task) else ""
    return mark, layer.name, layer.kind, shape, grid, layer.refused or layer.passed


def _refused(found: "list[Surveyed]") -> str:
    """Why the others are not listed, most frequent reason first, with an example."""
    groups: dict[str, list[str]] = defaultdict(list)
    for layer in found:
        if reason := layer.refused or layer.passed:
            groups[reason].append(layer.name)
    rows = [(str(len(names)), reason, names[-1]) for reason, names in groups.items()]
    rows.sort(key=lambda row: -int(row[0]))
    heading = "the others, with one example each (all: --all)"
    return f"{heading}\n{table(('', 'why not', 'such as'), rows)}" if rows else ""
