"""`mmcam explain`: pictures in; a table, a strip and a JSON file a picture out, and the raw maps of all if wanted."""

import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser, Namespace

from mmcam.errors import UserError, unknown
from mmcam.verbs import add_model, add_texts, check_text, overrides_of, print_config, table, text_of
from mmcam.verbs.pictures import batches, find, names

if TYPE_CHECKING:
    from PIL import Image

    from mmcam.dumps.store import MapWriter
    from mmcam.explanation import Explanation
    from mmcam.report import Shown
    from mmcam.task import Batch, Sample, Targets, Task

logger = logging.getLogger(__name__)

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

Scale = Literal["own", "joint", "none"]
How = Literal["beside", "mean", "max", "product"]
LARGEST_DRAWN = 1024  # pixels a side; a panel has 224
MOST_HEARD = 3  # words in the table; the strip has all
ON_PAGE, MAP_ON_PAGE = 448, 112  # pixels; a page of few pictures may show more of each than one of thousands


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
        type=How,
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
                explained = explain_batch(
                    task,
                    samples,
                    text,
                    phrases,
                    arguments.sentence,
                    arguments.method,
                    arguments.heard,
                    tasks[1:],
                    arguments.fuse,
                )
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


class Phrases:
    """The words and phrases that the user wants explained (all words if none), and which have been met."""

    def __init__(self, phrases: Sequence[str]) -> None:
        self.phrases = [" ".join(phrase.casefold().split()) for phrase in phrases]
        self._met: set[str] = set()
        self._heard: set[str] = set()

    def spans(self, words: Sequence[str]) -> list[tuple[int, int]]:
        """Find them among the words of one picture, as half-open ranges; each range will be one row."""
        ends = range(1, len(words) + 1)
        if not self.phrases:
            return [(end - 1, end) for end in ends]
        self._heard.update(words)
        found = [
            (start, end)
            for phrase in self.phrases
            for end in ends
            for start in range(end)
            if " ".join(words[start:end]).casefold() == phrase
        ]
        self._met |= {" ".join(words[start:end]).casefold() for start, end in found}
        return found

    def check(self) -> None:
        """Complain about phrases that were met nowhere.

        Raises:
            UserError: None was met at all; where some were, the others may well be missing, and are logged.
        """
        missing = [phrase for phrase in self.phrases if phrase not in self._met]
        if missing and not self._met:
            raise unknown("word in what was said", missing[0], self._heard)
        for phrase in missing:
            logger.warning("%r was said of no picture", phrase)


@dataclass(frozen=True)
class Explained:
    """One sample's explanation, the ids of its rows (-1 for a row of several), and all that was said of it."""

    explanation: "Explanation"
    ids: list[int]
    said: str


def explain_batch(
    task: "Task",
    samples: "Sequence[Sample]",
    text: str,
    phrases: Phrases,
    sentence: bool,
    method: str,
    heard: bool = False,
    others: "Sequence[Task]" = (),
    how: How = "beside",
) -> list[Explained]:
    """Explain what the user wants of some samples.

    Args:
        task: The task, in eval mode.
        samples: The samples.
        text: Caption, answer or class to explain; "" for what the model says itself.
        phrases: Which words of it.
        sentence: Give the whole of it a row too.
        method: Name of a method; "" for the task's own.
        heard: Explain it by the words heard, too.
        others: The same model, cut at other layers, whose maps are joined with the first one's.
        how: They are joined: side by side, or one map of all, see `mmcam.methods.fuse`.

    Returns:
        One a sample.

    Raises:
        UserError: A name or word is unknown, the task takes no question, or no score depends on the layer.
    """
    import torch

    from mmcam.doctor import depends_on_layer
    from mmcam.engine import check, explain_activations
    from mmcam.heard import with_words
    from mmcam.methods.fuse import beside, fuse

    batch = task.collate(samples)
    if samples[0].text and not any(batch.texts):
        raise UserError(
            f"{type(task).__name__} takes no question, got {samples[0].text!r}; use a config such as vqa/scenes"
        )
    targets = task.given([text] * len(batch), batch) if text else None
    batch = batch.to(task.device)
    with torch.no_grad():
        activations = task.trunk(batch)
        check(activations, batch, task.layer)
        targets = (task.predict(activations, batch) if targets is None else targets).to(activations.device)
    said = [task.separator.join(words) for words in targets.words]
    whole = [[(0, len(words))] if sentence and len(words) > 1 else [] for words in targets.words]
    spans = [phrases.spans(words) + more for words, more in zip(targets.words, whole, strict=True)]
    targets = targets.merged(spans, task.separator)
    explanations = explain_activations(task, activations, batch, targets, method)
    flags = {flag for explanation in explanations for flag in explanation.flags}
    if flags == {"zero"} and not depends_on_layer(task, batch, targets):
        raise UserError(f"no score depends on the layer {task.layer!r}: every map is zero; choose another with --layer")
    if heard:
        explanations = with_words(explanations, task, activations, batch, targets)
    ids = targets.row_ids()
    if others:
        layers = [explanations, *(at_other(other, batch, targets, method) for other in others)]
        joined = [beside(maps) if how == "beside" else fuse(maps, how) for maps in zip(*layers, strict=True)]
        repeats = len(layers) if how == "beside" else 1
        explanations, ids = joined, [[i for i in row for _ in range(repeats)] for row in ids]
    return [Explained(*each) for each in zip(explanations, ids, said, strict=True)]


def several(overrides: dict[str, Any]) -> list[str]:
    """The layers of `--layer layer3,layer4`, whose names must differ; none if it is one or the configuration's own."""
    layers = str(overrides.get("task.init_args.layer", "")).replace(" ", "").split(",")
    if len(layers) == 1:
        return []
    if "" in layers or len(set(layers)) < len(layers):
        raise UserError(f"--layer: expected layers, each once, with commas between; got {', '.join(layers)}")
    return layers


def at_other(task: "Task", batch: "Batch", targets: "Targets", method: str) -> "list[Explanation]":
    """Explain the same words at another layer: the task is the same model, cut there. Shared are pictures and words."""
    import torch

    from mmcam.engine import check, explain_activations

    batch = replace(batch, memo={})
    with torch.no_grad():
        activations = task.trunk(batch)
    check(activations, batch, task.layer)
    return explain_activations(task, activations, batch, targets, method)


def _prompted(one: Explained, caption: str) -> Explained:
    """Note the caption that was given, unless there was a question."""
    return replace(one, explanation=replace(one.explanation, prompt=one.explanation.prompt or caption))


def report(one: Explained, image: "Image.Image", out: Path, scale: Scale, colours: str) -> str:
    """Write the files of one picture, and say in a table what they show.

    Args:
        one: The explanation.
        image: The picture.
        out: The folder.
        scale: As for `Explanation.overlay`.
        colours: As for `Explanation.overlay`.

    Returns:
        The question or what was said, the table and the path of the strip.
    """
    from mmcam.explanation import file_name, where

    explanation = one.explanation
    explanation.save(out)
    small, picture = _shrink(explanation, image)
    title = explanation.prompt or one.said
    strip = out / f"{file_name(explanation.id)}.png"
    replace(small, prompt=title).overlay(picture, scale=scale, colours=colours).save(strip)
    rows = [
        (word, f"{score:.3f}", flag or (where(peak, small.size) if peak else "nowhere"))
        for word, score, flag, peak in zip(
            small.words, small.scores.tolist(), explanation.flags, small.peaks(), strict=True
        )
    ]
    header, more = ("word", "score", "where"), _heard(explanation)
    if more:
        header = (*header, "unseen", "seen", "heard")
        rows = [(*row, *cells) for row, cells in zip(rows, more, strict=True)]
    shown = table(header, rows) if rows else f"  nothing to explain in {one.said!r}"
    return f"{explanation.id}: {title}\n{shown}\n  {strip}"


def _heard(explanation: "Explanation") -> list[tuple[str, str, str]]:
    """Of each row the score without the picture, how much is seen, and the words that speak most for it or against."""
    e = explanation
    if e.heard_scores is None or e.image_shares is None or e.without_picture is None:
        return []
    cells = []
    for unseen, share, row in zip(
        e.without_picture.tolist(), e.image_shares.tolist(), e.heard_scores.tolist(), strict=True
    ):
        most = sorted(zip(e.heard, row, strict=True), key=lambda pair: -abs(pair[1]))[:MOST_HEARD]
        words = ", ".join(f"{word} {value:+.2f}" for word, value in most if value)
        cells.append((f"{unseen:.3f}", "-" if isnan(share) else f"{share:.0%}", words))
    return cells


def _shrink(explanation: "Explanation", image: "Image.Image") -> "tuple[Explanation, Image.Image]":
    """Bring a large picture near a panel's size: maps of 12 million pixels need not be made to fill 224 of them."""
    factor = min(1.0, LARGEST_DRAWN / max(image.size))
    if factor == 1:
        return explanation, image
    width, height = (max(1, round(side * factor)) for side in image.size)
    down, across = height / image.height, width / image.width
    top, left, bottom, right = explanation.window
    window = (top * down, left * across, bottom * down, right * across)
    return replace(explanation, size=(height, width), window=window), image.resize((width, height))


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
    write(path, shown, facts, side=ON_PAGE, map_side=MAP_ON_PAGE, overwrite=True)
