"""`mmcam report`: a dump as one HTML file that shows its pictures, words, maps and figures without any network."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from mmcam.errors import UserError

if TYPE_CHECKING:
    from mmcam.sources import Source

EPILOG = """\
RUN is a dump: a folder of mmcam dump, or a file of maps, as mmcam explain --hdf5 writes one. The page is one file: it
opens from the disk, asks for nothing, and can be sent to anybody. Its pictures come from the data of the dump; where
those are gone, it shows the maps alone and says so. Of annotated data it also shows which maps point elsewhere and
which words name what is not there; with --results, the figures of mmcam evaluate.

A picture takes some 10 kB, a map 0.4 kB (14 x 14): 5,000 photos with ten words each some 85 MB.

examples:
  mmcam report runs/captions
  mmcam report runs/answers --results runs/answers.json --out answers.html
  mmcam report runs/explain/maps.h5 --data photos/ --out photos.html"""


def configure(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    parser.epilog = EPILOG
    parser.add_argument("run", type=str, help="a dump: its folder or file")
    parser.add_argument("--out", type=Path, metavar="FILE", help="(default: report.html in the dump's folder)")
    parser.add_argument("--data", type=str, default="", help="where the pictures are (default: the dump's own data)")
    parser.add_argument("--no-pictures", action="store_true", help="show maps alone")
    parser.add_argument("--results", type=Path, metavar="FILE", help="of mmcam evaluate --json, of this dump")
    parser.add_argument("--methods", type=str, default="", help="with commas; the first is shown first (default: all)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N of the dump")
    parser.add_argument("--side", type=int, default=224, metavar="N", help="longest side of pictures (default: 224)")
    parser.add_argument("--map-side", type=int, default=32, metavar="N", help="longest side of maps (default: 32)")
    parser.add_argument("--title", type=str, default="", help="of the page")
    parser.add_argument("--date", type=str, default="", help="shown on the page, which else depends on the dump alone")
    parser.add_argument("--force", action="store_true", help="overwrite the file")


def run(arguments: Namespace) -> int:
    """Write the page."""
    if arguments.limit is not None and arguments.limit < 1:
        raise UserError(f"--limit: expected 1 or more, got {arguments.limit}")
    if arguments.no_pictures and arguments.data:
        raise UserError("expected --data or --no-pictures, got both; leave one out")

    from tqdm import tqdm

    from mmcam.dumps.folder import Folder
    from mmcam.dumps.plan import MAPS
    from mmcam.dumps.reader import MapReader
    from mmcam.evaluation.compare import read_results
    from mmcam.report import Facts, write
    from mmcam.report.dumped import Dumped

    path, out = Path(arguments.run), arguments.out
    if "://" in arguments.run or path.is_dir():
        folder = Folder(arguments.run, make=False)
        if not folder.exists(MAPS):
            raise UserError(
                f"{folder.url}: expected a finished dump, but {MAPS} is missing; dump again, or name a file"
            )
        path = folder.fetch(MAPS)
        if out is None and folder.local is None:
            raise UserError(f"{folder.url}: expected a file to write to, got none; name one with --out")
        out = out or path.with_name("report.html")
    out = out or path.with_suffix(".html")
    if out.exists() and not arguments.force:  # found before the data are read
        raise UserError(f"{out} exists already; overwrite it with --force, or write to another name with --out")
    results = read_results(arguments.results) if arguments.results else None
    with MapReader(path) as maps:
        about, failures = maps.attributes, maps.failures
    source, missing = _source(arguments, about["config"])
    methods = tuple(name for name in arguments.methods.replace(" ", "").split(",") if name)
    dumped = Dumped(path, source, missing=missing, methods=methods, limit=arguments.limit)
    facts = Facts(
        title=arguments.title or f"Where the model looked: {Path(arguments.run.rstrip('/')).name}",
        facts=_facts(about, dumped.methods),
        notes=(f"There are no pictures here, only maps: {missing}",) if missing else (),
        failures=failures,
        separator=_separator(about["config"]),
        date=arguments.date,
        results=results,
    )
    index = write(
        out,
        tqdm(dumped, desc="report", unit="img", mininterval=1),
        facts,
        columns=lambda: dumped.columns() | (dumped.evaluated(results) if results else {}),
        side=arguments.side,
        map_side=arguments.map_side,
        overwrite=arguments.force,
    )
    if dumped.unread:
        print(f"mmcam report: {dumped.unread} pictures are missing; the page says why", file=sys.stderr)
    size = out.stat().st_size / 1e6
    print(f"{index.shown} explained, {index.pictures} pictures, {index.maps} maps, {size:.1f} MB")
    print(out)
    return 1 if dumped.unread else 0


def _source(arguments: Namespace, config: dict[str, Any]) -> "tuple[Source | None, str]":
    """Where the pictures come from; none, and why, if the dump's own data are gone."""
    from mmcam.config import SECTIONS
    from mmcam.sources import choose_source

    if arguments.no_pictures:
        return None, "they were left out."
    own = {name: section for name, section in config.items() if name in SECTIONS}
    if arguments.data:
        source, section = choose_source(arguments.data, own, arguments.overrides)
        known = own.get("data", {})
        seeds = [part.get("init_args", {}).get("seed") for part in (known, section)]
        if known.get("class_path") == section["class_path"] and seeds[0] != seeds[1]:
            raise UserError(f"expected the data of the dump, seed {seeds[0]}, got seed {seeds[1]}; leave --data out")
        return source, ""
    if "data" not in own:
        return None, "the file does not say where they are; name the place with --data."
    try:
        return choose_source("", own, arguments.overrides)[0], ""
    except (UserError, OSError) as error:
        return None, str(error)


def _facts(about: dict[str, Any], methods: tuple[str, ...]) -> dict[str, str]:
    """What the file says of itself, as far as people want to know it."""
    config = about["config"]
    found = {
        "task": str(config.get("task", {}).get("class_path", "")),
        "model": str(config.get("task", {}).get("init_args", {}).get("model", "")),
        "weights (SHA-256)": str(about["weights_sha256"]),
        "layer": str(about["layer"]),
        "methods": ", ".join(methods),
        "data": str(config.get("data", {}).get("class_path", "")),
        "explained": str(config.get("settings", {}).get("targets", "")),
        "maps made": str(about["created"]),
        "by": ", ".join(f"{name} {version}" for name, version in about["versions"].items()),
    }
    return {name: value for name, value in found.items() if value}


def _separator(config: dict[str, Any]) -> str:
    """That of the task between its words; a space if the task is not at hand."""
    from mmcam.class_path import import_class
    from mmcam.task import Task

    try:
        return import_class(config.get("task", {}).get("class_path"), "task.class_path", Task).separator
    except UserError:
        return " "
