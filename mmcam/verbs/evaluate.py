"""`mmcam evaluate`: maps and sentences against the truth, as a table that can be put in a paper."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser, Namespace

from mmcam.errors import UserError
from mmcam.verbs import add_model, overrides_of, table

if TYPE_CHECKING:
    from mmcam.evaluation.tables import Table

EPILOG = """\
RUN is a dump (a folder of mmcam dump, or a file with --data); without one, --config is run on the spot. The data must
be annotated (see docs/data.md). Beside the methods stand the rows that know nothing of the word: the centre, a random
map, a uniform one, the norm of the activations, the method's map with its sign flipped. Every figure comes with the
number of maps it stands for, those left out as undefined, and a bootstrap interval over pictures.

--faithful N also asks the model: what happens to the score of a word when the places of its map are removed, kept or
occluded. --sanity N asks what is left of the maps when parts of the model, or of the text, are made random.

examples:
  mmcam evaluate runs/captions --json runs/captions.json --plot runs/captions.png
  mmcam evaluate --config vqa/scenes --data scenes:test --limit 500 --methods grad_cam,hires_cam --faithful 20
  mmcam evaluate --config captioning/coco --data coco:val2014 --targets given --metrics localisation
  mmcam evaluate --compare runs/one.json runs/two.json --json runs/difference.json"""


FORMATS = (".png", ".svg", ".pdf")


def configure(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    parser.epilog = EPILOG
    parser.add_argument("run", nargs="?", type=str, default="", help="a dump: its folder or file")
    add_model(parser, "that of the dump")
    parser.add_argument("--data", type=str, default="", help="what to go through (default: the run's own)")
    parser.add_argument("--methods", type=str, default="", help="with commas; the first is the one under test")
    parser.add_argument(
        "--metrics", type=str, default="metrics/localisation", help="YAML file, or a shipped one's name"
    )
    parser.add_argument(
        "--targets",
        type=Literal["predicted", "given"],
        default="predicted",
        help="without a dump, or of one of both (default: predicted)",
    )
    parser.add_argument("--right-only", action="store_true", help="judge the maps of right answers only")
    parser.add_argument("--faithful", type=int, default=0, metavar="N", help="of the first N pictures (default: 0)")
    parser.add_argument("--sanity", type=int, default=0, metavar="N", help="of the first N pictures (default: 0)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pictures or questions")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="pictures at a time (default: 16)")
    parser.add_argument("--seed", type=int, default=0, help="of the random row and all sampling (default: 0)")
    parser.add_argument("--compare", nargs=2, type=Path, metavar="FILE", help="two results, picture by picture")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures, conditions and values there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there")
    parser.add_argument("--latex", type=Path, metavar="FILE", help="write the tables there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the first table: .png, .svg or .pdf")


def run(arguments: Namespace) -> int:
    """Judge a run, or compare two results."""
    for option, least in (("limit", 1), ("batch_size", 1), ("faithful", 0), ("sanity", 0)):
        if arguments[option] is not None and arguments[option] < least:
            raise UserError(f"--{option.replace('_', '-')}: expected {least} or more, got {arguments[option]}")
    if arguments.plot and arguments.plot.suffix.lower() not in FORMATS:
        raise UserError(f"--plot: expected a {', '.join(FORMATS)} file, got {str(arguments.plot)!r}")
    if arguments.compare:
        from mmcam.evaluation.compare import compare, read_results

        one, two = arguments.compare
        difference = compare(read_results(one), read_results(two), (one.stem, two.stem))
        return _write(arguments, [difference], {})
    if arguments.print_config:
        from mmcam.verbs import print_config

        print_config(arguments.metrics, arguments.overrides)
        return 0

    from mmcam.config import instantiate
    from mmcam.evaluation.judge import Amounts
    from mmcam.evaluation.results import Judging, open_run, results
    from mmcam.metrics.chosen import MetricSet

    methods = tuple(name for name in arguments.methods.replace(" ", "").split(",") if name)
    overrides = overrides_of(arguments)
    run = open_run(arguments.run, arguments.config, methods, overrides)
    judging = Judging(
        data=arguments.data,
        overrides=overrides,
        given=arguments.targets == "given",
        limit=arguments.limit,
        batch_size=arguments.batch_size,
        amounts=Amounts(arguments.right_only, arguments.faithful, arguments.sanity, arguments.seed),
        device=arguments.device,
    )
    metrics = instantiate(arguments.metrics, "metrics", MetricSet, overrides)
    tables, pictures = results(run, judging, metrics)
    return _write(arguments, tables, pictures)


def _write(arguments: Namespace, tables: "list[Table]", pictures: Mapping[str, Any]) -> int:
    """Print the tables, and write them where the user wants them."""
    for one in tables:
        header, *rows = one.cells()
        print(one.title)
        print(table(header, rows))
        for note in one.remarks():
            print(f"  {note}")
        print()
    texts = {
        "json": lambda: json.dumps(
            {**tables[0].record(), "tables": [one.record() for one in tables[1:]], "pictures": pictures},
            indent=1,
            ensure_ascii=False,
            allow_nan=False,
        ),
        "markdown": lambda: "\n".join(one.markdown() for one in tables),
        "latex": lambda: "\n".join(one.latex() for one in tables),
    }
    for option, text in texts.items():
        if path := arguments[option]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text(), encoding="utf-8")
            print(path)
    if arguments.plot:
        from mmcam.evaluation.plots import plot

        plot(tables[0], arguments.plot)
        print(arguments.plot)
    return 0
