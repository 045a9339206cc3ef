"""One HTML file that shows where a model looked: it opens from the disk, asks for nothing, and holds thousands.

    write(path, shown, facts)    the file
    Shown                        one picture, question or caption with its maps
    shrink(image, side)          a picture as small as the page has it
    dumped.Dumped                all of a dump, one after the other

The file's size: a picture is a JPEG of at most 224 pixels a side (some 10 kB of a photo), a map has 8 bits a place and
at most 32 places a side (0.3 kB at 14 x 14, 1.4 kB at most), all a third larger in base64. So 5,000 photos with ten
words each of 14 x 14 take some 85 MB. Pictures that several questions are asked about are stored once. What belongs to
a picture lies in an island of its own, which the browser decodes when it is shown; only the index of words and scores
is read at the beginning. No more than one picture is in memory while the file is written.

Nothing in the file runs but its own script: its policy (CSP) names that by its hash and forbids every connection.
"""

import base64
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcam import __version__
from mmcam.disk import sync, unfinished
from mmcam.errors import UserError
from mmcam.report.index import Index, shrink
from mmcam.report.shown import Shown
from mmcam.report.tables import views

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["Facts", "Shown", "shrink", "write"]

logger = logging.getLogger(__name__)

HERE = Path(__file__).parent
LARGE = 300_000_000
"""Bytes above which browsers take long to open a file."""


@dataclass(frozen=True)
class Facts:
    """What a reader has to know about all pictures together.

    Attributes:
        title: Of the page.
        facts: Model, layer, data and so on, by name.
        notes: Sentences that stand above the pictures, such as why there are none.
        failures: What could not be explained, by id, with the reason.
        separator: Between words where they are shown as one, that of the task; with a comma in it they are answers or
            classes, the best first.
        date: Shown if it is given; nothing else in the file depends on when it is made.
        results: What `mmcam evaluate --json` wrote; its tables are shown and drawn.
    """

    title: str = "Where the model looked"
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    separator: str = " "
    date: str = ""
    results: Mapping[str, Any] | None = None


def write(
    path: Path | str,
    shown: Iterable[Shown],
    facts: Facts | None = None,
    *,
    columns: Callable[[], Mapping[str, Sequence[float | None]]] = dict,
    side: int = 224,
    map_side: int = 32,
    overwrite: bool = False,
) -> Index:
    """Write the page.

    Args:
        path: The file; its folder is made if it is missing.
        shown: What is shown, in order; read one at a time.
        facts: About all of it.
        columns: Called when all are written, gives values to sort by: by name one a thing shown, None where undefined.
        side: Longest side of the pictures, in pixels.
        map_side: Longest side of the maps; larger ones are averaged down.
        overwrite: Replace a file that is there.

    Returns:
        What the file holds: numbers of things shown, pictures, maps, and of pictures that are missing.

    Raises:
        UserError: There is such a file already, jinja2 is missing, or what is shown does not fit together.
    """
    for name, least, number in (("side", 16, side), ("map_side", 4, map_side)):
        if number < least:
            raise UserError(f"{name}: expected {least} pixels or more, got {number}")
    path = Path(path)
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists already; overwrite it with --force, or write to another name")
    facts = facts or Facts()
    template = _template()
    index = Index(facts.separator, side, map_side)

    def islands() -> Iterator[dict[str, Any]]:
        for one in shown:
            yield from index.add(one)

    style, script = _text("page.css"), "\n".join(_text(name) for name in ("core.js", "entry.js", "view.js"))
    parts = template.generate(
        facts=facts,
        islands=islands(),
        index=lambda: index.record(columns()),
        found=index.failures,
        heard=lambda: index.heard,
        tables=views(facts.results) if facts.results else [],
        style=style,
        script=script,
        hashes={"style": _digest(style), "script": _digest(script)},
        version=__version__,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = unfinished(path)
    try:
        # A name may hold half a character of a file system that is not UTF-8.
        with part.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.writelines(parts)
        sync(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    if (size := path.stat().st_size) > LARGE:
        logger.warning("%s has %d MB, which browsers open slowly; take fewer or smaller pictures", path, size // 10**6)
    return index


def _template() -> "Template":
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise UserError("a page needs jinja2: pip install 'mmcam[report]'") from error
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FileSystemLoader(HERE),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # `tojson` escapes <, >, & and ', so that no text can end its island.
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return environment.get_template("page.html.j2")


def _text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """As a policy names a script: the hash of all between its tags."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
