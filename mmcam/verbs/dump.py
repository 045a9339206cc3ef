"""`mmcam dump`: explain a whole data set, in parts that outlive any accident; and look into what was written."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser, Namespace

from mmcam.errors import UserError, unknown
from mmcam.verbs import add_model, overrides_of, print_config, table

if TYPE_CHECKING:
    from mmcam.dumps.folder import Folder
    from mmcam.dumps.plan import Plan

EPILOG = """\
Writes OUT/maps.h5 (see docs/dumps.md) by way of OUT/parts. Killed or interrupted, it goes on when the same command is
given again; what could not be explained is listed in the file and does not stop the rest.

The data are a split of a shipped data set (scenes:test, coco:val2014), a folder, a list (.txt with a path or URL a
line; .csv with the columns path, id, text, given), a YAML file with a section `data:`, or a URL of such (s3://…).

examples:
  mmcam dump --config captioning/scenes --data scenes:test --out runs/captions
  mmcam dump --config vqa/scenes --data scenes:test --out runs/answers --top-k 3 --methods grad_cam,hires_cam
  mmcam dump --config classification/resnet50 --data photos/ --out runs/photos --device cuda --batch-size 64 --amp
  mmcam dump --config captioning/coco --data coco:val2014 --out runs/coco --targets both --shard 2/8
  mmcam dump --config captioning/coco --data coco:val2014 --out runs/coco --engine ray --num-actors 8
  mmcam dump inspect runs/captions             what is in a file or a dump
  mmcam dump verify runs/captions              whether it is whole and right
  mmcam dump merge one.h5 two.h5 --out all.h5  dumps from several machines as one file"""

ACTIONS = ("inspect", "verify", "merge")


def configure(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    parser.epilog = EPILOG
    parser.add_argument("action", nargs="*", type=str, help="inspect, verify or merge, and files or folders; else dump")
    add_model(parser, "none: name one")
    parser.add_argument("--data", type=str, default="", help="what to go through (default: the configuration's own)")
    parser.add_argument("--question", type=str, default="", help="asked of every picture of a folder or list")
    parser.add_argument(
        "--out", type=str, default="", metavar="DIR", help="a folder, or a URL such as s3://bucket/dump"
    )
    parser.add_argument(
        "--targets",
        type=Literal["predicted", "given", "both"],
        default="predicted",
        help="explain what the model says, what the data give, or both (default: predicted)",
    )
    parser.add_argument(
        "--methods", type=str, default="", help="one or several, with commas (default: the configuration's)"
    )
    parser.add_argument("--top-k", type=int, metavar="K", help="explain the K best answers or classes")
    parser.add_argument("--signed", action="store_true", help="keep the maps before ReLU too")
    parser.add_argument("--weights", action="store_true", help="keep the weights of the channels (α) too")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="pictures at a time (default: 8)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that read ahead (default: 1)")
    parser.add_argument("--threads", type=int, metavar="N", help="of the CPU (default: all cores)")
    parser.add_argument("--amp", action="store_true", help="compute the CNN in bfloat16")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pictures or questions")
    parser.add_argument("--part-size", type=int, default=1000, metavar="N", help="pictures a part (default: 1000)")
    parser.add_argument("--shard", type=str, default="1/1", metavar="I/N", help="do every N-th part, from the I-th on")
    parser.add_argument(
        "--only-missing", action="store_true", help="also what failed before, and what the data have gained since"
    )
    parser.add_argument("--strict", action="store_true", help="stop at the first picture that cannot be explained")
    parser.add_argument("--engine", type=Literal["local", "ray"], default="local", help="(default: local)")
    parser.add_argument("--ray-address", type=str, default="", help="of a running cluster: auto, or ray://host:10001")
    parser.add_argument(
        "--num-actors", type=int, default=0, metavar="N", help="models in the cluster (default: all fit)"
    )
    parser.add_argument("--gpus-per-actor", type=float, default=0.0, metavar="G", help="(default: 0)")
    parser.add_argument("--cpus-per-actor", type=float, default=1.0, metavar="C", help="(default: 1)")


def run(arguments: Namespace) -> int:
    """Dump, or look into a dump."""
    if arguments.action:
        return _look(arguments)
    overrides = overrides_of(arguments)
    if arguments.top_k is not None:
        overrides["task.init_args.top_k"] = arguments.top_k
    if arguments.question:
        overrides["data.init_args.question"] = arguments.question
    if not arguments.config:
        raise UserError("expected a model, got none; name one with --config, such as captioning/scenes")
    if arguments.print_config:
        print_config(arguments.config, overrides)
        return 0
    if not arguments.out:
        raise UserError("expected a folder to write to, got none; name one with --out")
    for option, least in (("batch_size", 1), ("part_size", 1), ("limit", 1), ("threads", 1), ("workers", 0)):
        if arguments[option] is not None and arguments[option] < least:
            raise UserError(f"--{option.replace('_', '-')}: expected {least} or more, got {arguments[option]}")
    shard = _shard(arguments.shard)
    if arguments.only_missing and shard != (1, 1):
        raise UserError("--only-missing plans more parts, which one process has to do; leave --shard out, then resume")

    from mmcam.dumps.folder import Folder
    from mmcam.dumps.lock import Stopped, locked
    from mmcam.dumps.plan import MAPS

    folder = Folder(arguments.out)
    try:
        with locked(folder, shard):
            complete = _dump(arguments, overrides, folder, shard)
    except Stopped:
        print("mmcam dump: stopped; give the same command again to go on", file=sys.stderr)
        return 130
    if not complete:
        print(f"{folder.path('parts')}: this shard is done; maps.h5 is written when the others are")
        return 0
    return _report(folder, MAPS)


def _dump(arguments: Namespace, overrides: dict[str, Any], folder: "Folder", shard: tuple[int, int]) -> bool:
    """Plan, and make what is missing, here or in a cluster."""
    import torch

    from mmcam.config import resolve
    from mmcam.dumps.loading import Loading
    from mmcam.dumps.lock import stopping
    from mmcam.dumps.plan import Settings, make_plan, todo
    from mmcam.load import default_method, load_task
    from mmcam.sources import choose_source
    from mmcam.task import Task

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    settings = Settings(
        methods=tuple((arguments.methods or default_method(arguments.config, overrides)).replace(" ", "").split(",")),
        targets=arguments.targets,
        signed=arguments.signed,
        weights=arguments.weights,
        amp=arguments.amp,
        part_size=arguments.part_size,
    )
    source, data = choose_source(arguments.data, arguments.config, overrides)
    on_ray = arguments.engine == "ray"
    task = load_task(arguments.config, device="cpu" if on_ray else arguments.device, **overrides)
    plan = make_plan(
        folder,
        task,
        source,
        settings,
        config=resolve(arguments.config, "task", Task, overrides),
        data=data,
        limit=arguments.limit,
        only_missing=arguments.only_missing,
    )
    left = todo(folder, plan, shard)
    loading = Loading(arguments.batch_size, arguments.workers)
    with stopping() as look, _progress(plan, shard, left, look) as tell:
        if not on_ray:
            from mmcam.dumps.dump import dump

            return dump(folder, task, source, plan, left, loading, strict=arguments.strict, tell=tell)
        from mmcam.dumps.cluster import Cluster, dump_on_ray

        cluster = Cluster(
            address=arguments.ray_address,
            actors=arguments.num_actors,
            gpus=arguments.gpus_per_actor,
            cpus=arguments.cpus_per_actor,
            device=arguments.device,
            threads=arguments.threads,
        )
        return dump_on_ray(folder, plan, left, loading, cluster, strict=arguments.strict, tell=tell)


def _report(folder: "Folder", name: str) -> int:
    """Say what the finished dump holds."""
    from mmcam.dumps.reader import MapReader

    with MapReader(folder.fetch(name)) as maps:
        for sample, reason in list(maps.failures.items())[:10]:
            print(f"mmcam dump: {sample}: {reason}", file=sys.stderr)
        if maps.failures:
            print(f"mmcam dump: {len(maps.failures)} failed, {len(maps)} done; see /failures", file=sys.stderr)
        print(f"{len(maps)} explained, {maps.rows} maps")
        code = (1 if len(maps) else 2) if maps.failures else 0
    print(folder.path(name))
    return code


def _shard(text: str) -> tuple[int, int]:
    """Read "2/8"."""
    first, _, count = text.partition("/")
    if not (first.isdigit() and count.isdigit() and 1 <= int(first) <= int(count)):
        raise UserError(f"--shard: expected I/N with I from 1 to N, such as 2/8; got {text!r}")
    return int(first), int(count)


@contextmanager
def _progress(
    plan: "Plan", shard: tuple[int, int], left: Sequence[int], look: Callable[[], None]
) -> Iterator[Callable[[int, int], None]]:
    """A bar with rate, time left and failures; and a look whether the user wants to stop."""
    from tqdm import tqdm

    todo = sum(len(plan.parts[number]) for number in left)
    mine = sum(len(part) for part in plan.parts[shard[0] - 1 :: shard[1]])
    failed = 0
    with tqdm(total=mine, initial=mine - todo, desc="dump", unit="img", mininterval=1) as bar:

        def tell(done: int, more: int) -> None:
            nonlocal failed
            failed += more
            bar.update(done)
            if more:
                bar.set_postfix(failed=failed)
            look()

        yield tell


def _look(arguments: Namespace) -> int:
    """Inspect, verify or merge."""
    action, *names = arguments.action
    if action not in ACTIONS:
        raise unknown("action of mmcam dump", action, ACTIONS)
    if not names:
        raise UserError(f"mmcam dump {action}: expected a file or a folder, got none")
    if action == "merge":
        return _merge([Path(name) for name in names], arguments.out)
    code = 0
    for name in names:
        code = max(code, _inspect(name) if action == "inspect" else _verify(name))
    return code


def _merge(files: list[Path], out: str) -> int:
    from mmcam.dumps.merge import merge

    if not out:
        raise UserError("mmcam dump merge: expected a file to write, got none; name one with --out")
    paths = [file / "maps.h5" if file.is_dir() else file for file in files]
    merge(paths, Path(out))
    print(out)
    return 0


def _inspect(name: str) -> int:
    """Print what a file says of itself, and its data sets."""
    from mmcam.dumps.reader import MapReader

    with MapReader(name) as maps:
        print(maps.path)
        shown = {k: v for k, v in maps.attributes.items() if k not in ("config", "conventions")}
        rows = [
            (k, json.dumps(v, ensure_ascii=False) if isinstance(v, list | dict) else str(v)) for k, v in shown.items()
        ]
        print(table(("attribute", "value"), rows))
        print(table(("data set", "shape", "type", "bytes on disk"), maps.contents()))
        print(json.dumps(maps.attributes["config"], indent=1, ensure_ascii=False))
    return 0


def _verify(name: str) -> int:
    """Check a file or a folder, and name what is wrong."""
    from mmcam.dumps.verify import verify

    problems = verify(name)
    for problem in problems:
        print(f"mmcam dump: {problem}", file=sys.stderr)
    print(f"{name}: {'whole' if not problems else f'{len(problems)} problems'}")
    return 1 if problems else 0
