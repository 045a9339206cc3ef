"""`mmcam quality`: what a model gets right on fresh scenes, and whether its maps point there."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from mmcam.errors import UserError
from mmcam.verbs import print_config, table

EPILOG = """\
Draws scenes of a seed that the model has not seen (the shipped ones were trained on seed 0) and measures what the model
says and where its maps point, beside the rows that know nothing: centre, random place, activation norm, flipped sign.

examples:
  mmcam quality --config captioning/scenes --seed 7 --limit 500
  mmcam quality --config vqa/scenes --seed 7 --limit 500 --json runs/vqa.json"""


def configure(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    parser.epilog = EPILOG
    parser.add_argument("--config", type=str, required=True, help="YAML file, or name of a shipped one")
    parser.add_argument("--seed", type=int, default=7, help="of the scenes (default: 7)")
    parser.add_argument("--limit", type=int, default=500, metavar="N", help="number of scenes (default: 500)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and their conditions there too")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1 … (default: auto)")
    parser.add_argument(
        "--print_config", action="store_true", help="print the configuration as it would be used, and stop"
    )


def run(arguments: Namespace) -> int:
    """Measure and print."""
    import json
    import platform

    import torch

    from mmcam import __version__
    from mmcam.load import instantiate, load_task, resolve, weights_sha256
    from mmcam.quality import Quality
    from mmcam.task import Task

    if arguments.print_config:
        print_config(arguments.config, arguments.overrides, task=Task, quality=Quality)
        return 0
    if arguments.limit < 1:
        raise UserError(f"--limit: expected 1 or more, got {arguments.limit}")
    task = load_task(arguments.config, device=arguments.device, **arguments.overrides)
    quality = instantiate(arguments.config, "quality", Quality, arguments.overrides)
    measured = quality.measure(task, arguments.seed, arguments.limit)
    conditions = {
        "config": arguments.config,
        "task": resolve(arguments.config, "task", Task, arguments.overrides),
        "weights_sha256": weights_sha256(task),
        "layer": task.layer,
        "quality": resolve(arguments.config, "quality", Quality, arguments.overrides),
        "data": quality.source(arguments.seed),
        "limit": arguments.limit,
        "device": str(task.device),
        "versions": {"mmcam": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
    rows = [[name, f"{value:.4f}" if isinstance(value, float) else str(value)] for name, value in measured.items()]
    print(table(["figure", "value"], rows))
    print(f"{conditions['data']}, limit {arguments.limit}, {task.layer}, weights {conditions['weights_sha256'][:12]}")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        # JSON knows no NaN, which the share of nothing is.
        known = {name: None if value != value else value for name, value in measured.items()}
        record = json.dumps({**known, "conditions": conditions}, indent=1, allow_nan=False)
        arguments.json.write_text(record, encoding="utf-8")
        print(arguments.json)
    return 0
