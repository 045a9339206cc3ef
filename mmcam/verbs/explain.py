"""`mmcam explain`: pictures in; a table, a strip and a JSON file a picture out, and the raw maps of all if wanted."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from mmcam.errors import UserError
from mmcam.verbs import add_model, add_texts, check_text, overrides_of, print_config, text_of
from mmcam.verbs.explained import Explained, Fuse, Phrases, Wanted, explain_batch
from mmcam.verbs.pictures import batches, find, names
from mmcam.verbs.strip import Scale, report

if TYPE_CHECKING:
    from mmcam.dumps.store import MapWriter
    from mmcam.report import Shown
    from mmcam.task import Sample, Task

EPILOG = """\
Any key of the configuration can be set: --task.init_args.beam=3. A class of your own (class_path: my_task.MyTask) is
found in the folder that you stand in. Pictures that cannot be read are listed at the end, and the exit code is 1.

examples:
  mmcam explain photo.jpg                               a caption, one map a word
  mmcam explain photo.jpg --caption "a dog on a bench" --words dog --words "a bench" --sentence
  mmcam explain photos/ --question "what is above the dog?" --heard --out runs/dog
  mmcam explain "photos/**/*.jpg" --config classification/scenes --class "dog, cat" --hdf5
  mmcam explain photo.jpg --config my.yaml --layer layer3 --method hires_cam --device cuda
  mmcam explain photo.jpg --layer features.12,features.15,features.18 --fuse max"""

ON_PAGE = 448  # pixels a side; a page of few pictures may show more of each than one of thousands


def configure(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    parser.epilog = EPILOG
    parser.add_argument("pictures", nargs="*", type=str, help='pictures, folders, or globs such as "photos/**/*.jpg"')
    add_model(parser, "the shipped one that fits: captioning/scenes, vqa/scenes or classification/scenes")
    parser.add_argument("--question", action="append", type=str, help="asked of every picture; may be repeated")
    add_texts(parser)
    parser.add_argument("--words", action="append", type=str, help="explain only this word or phrase; may be repeated")
    parser.add_argument("--sentence", action="store_true", help="explain the whole sentence too, in one map")
    parser.add_argument(
        "--heard",
        action="store_true",
        help="which words of the question, or of the caption so far, drive each answer or word; how much of it is seen "
        "in the picture (and not heard), and what it scores without the picture",
    )
    parser.add_argument(
        "--method", type=str, default="", help="grad_cam, layer_cam, guided_grad_cam … (default: the configuration's)"
    )
    parser.add_argument(
        "--fuse",
        type=Fuse,
        default="beside",
        help="of several layers (--layer layer3,layer4): maps side by side, or one of all (default: beside)",
    )
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="pictures at a time (default: 8)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pictures")
    parser.add_argument("--out", type=Path, default=Path("runs/explain"), metavar="DIR", help="(default: runs/explain)")
    parser.add_argument("--hdf5", action="store_true", help="write the raw maps of all pictures to DIR/maps.h5 too")
    parser.add_argument("--html", type=Path, metavar="FILE", help="show all on one page too, as mmcam report does")
    parser.add_argument(
        "--scale",
        type=Scale,
        default="own",
        help="divide each map by its own maximum, all of a picture by their joint one, or none (default: own)",
    )
    parser.add_argument("--colours", type=str, default="jet", help="a colour map of matplotlib (default: jet)")


def run(arguments: Namespace) -> int:
    """Explain the pictures, and report those that could not be read."""
    from mmcam.load import default_config, load_layers, load_task
    from mmcam.task import Task

    text, questions = text_of(arguments), arguments.question or [""]
    for question in arguments.question or []:
        check_text("--question", question)
    for words in arguments.words or []:
        check_text("--words", words)
    for option, number in (("--batch-size", arguments.batch_size), ("--limit", arguments.limit)):
        if number is not None and number < 1:
            raise UserError(f"{option}: expected 1 or more, got {number}")
    config = arguments.config or default_config(questions[0], arguments["class"] or "")
    overrides = overrides_of(arguments)
    if arguments.print_config:
        print_config(config, overrides, task=Task)
        return 0
    failures: list[str] = []
    paths = find(arguments.pictures, failures)[: arguments.limit]
    asked = [
        (path, f"{name}-q{number}" if len(questions) > 1 else name, question)
        for path, name in zip(paths, names(paths), strict=True)
        for number, question in enumerate(questions, 1)
    ]
    phrases = Phrases(arguments.words or [])
    wanted = Wanted(text, phrases, arguments.sentence, arguments.method, arguments.heard, arguments.fuse)
    shown: list[Shown] = []
    done = 0
    if asked:
        layers = several(overrides)
        if arguments.heard and layers:
            raise UserError("--heard: expected one layer, got several; the words heard do not depend on the layer")
        if arguments.fuse != "beside" and not layers:
            raise UserError(f"--fuse {arguments.fuse}: expected several layers to fuse, such as --layer layer3,layer4")
        where = {"device": arguments.device, **overrides}
        tasks = load_layers(config, layers, **where) if layers else [load_task(config, **where)]
        task = tasks[0]
        with ExitStack() as stack:
            maps = None
            for samples in batches(asked, arguments.batch_size, failures):
                explained = explain_batch(task, samples, wanted, tasks[1:])
                if arguments.caption:
                    explained = [_prompted(one, text) for one in explained]
                if arguments.hdf5:
                    maps = maps or stack.enter_context(_writer(arguments, config, overrides, task, explained[0]))
                    maps.append([one.explanation for one in explained], [one.ids for one in explained])
                for sample, one in zip(samples, explained, strict=True):
                    print(report(one, sample.image, arguments.out, arguments.scale, arguments.colours), flush=True)
                if arguments.html:
                    shown += _shown(samples, explained)
                done += len(samples)
        phrases.check()
        if shown:
            _page(arguments.html, shown, task)
    for failure in failures:
        print(f"mmcam explain: {failure}", file=sys.stderr)
    if not done:
        return 2
    if failures:
        print(f"mmcam explain: {len(failures)} failed, {done} done", file=sys.stderr)
    print(arguments.out / "maps.h5" if arguments.hdf5 else arguments.out)
    if shown:
        print(arguments.html)
    return 1 if failures else 0


def several(overrides: dict[str, Any]) -> list[str]:
    """The layers of `--layer layer3,layer4`, whose names must differ; none if it is one or the configuration's own."""
    layers = str(overrides.get("task.init_args.layer", "")).replace(" ", "").split(",")
    if len(layers) == 1:
        return []
    if "" in layers or len(set(layers)) < len(layers):
        raise UserError(f"--layer: expected layers, each once, with commas between; got {', '.join(layers)}")
    return layers


def _prompted(one: Explained, caption: str) -> Explained:
    """Note the caption that was given, unless there was a question."""
    return replace(one, explanation=replace(one.explanation, prompt=one.explanation.prompt or caption))


def _writer(arguments: Namespace, config: str, overrides: dict, task: "Task", first: Explained) -> "MapWriter":
    from mmcam.dumps.store import MapWriter
    from mmcam.load import resolve, weights_sha256
    from mmcam.task import Task

    layers = several(overrides)
    if layers:
        overrides = overrides | {"task.init_args.layer": layers[0]}
    return MapWriter(
        arguments.out / "maps.h5",
        config={"task": resolve(config, "task", Task, overrides)},
        layer=first.explanation.layer,
        methods=(first.explanation.method,),
        weights_sha256=weights_sha256(task),
        overwrite=True,
    )


def _shown(samples: "Sequence[Sample]", explained: Sequence[Explained]) -> "list[Shown]":
    """What a page keeps of some samples: their pictures small, since it is written when all are known."""
    from mmcam.report import Shown, shrink

    return [
        Shown({one.explanation.method: one.explanation}, shrink(sample.image, ON_PAGE))
        for sample, one in zip(samples, explained, strict=True)
    ]


def _page(path: Path, shown: "Sequence[Shown]", task: "Task") -> None:
    from mmcam.report import Facts, write

    first = shown[0].first
    facts = Facts(facts={"layer": first.layer, "method": first.method}, separator=task.separator)
    write(path, shown, facts, side=ON_PAGE, overwrite=True)
