"""The page that people answer on: one HTML file, with a server behind it or without one."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from mmcam.disk import sync, unfinished
from mmcam.errors import UserError
from mmcam.study.plan import PICTURES, Study

__all__ = ["export", "page", "policy"]

HERE = Path(__file__).parent
SCALE = ("left, clearly", "left, slightly", "no difference", "right, slightly", "right, clearly")


def export(study: Study, folder: Path, path: Path, *, overwrite: bool = False) -> int:
    """Write a page that needs no server: it opens from the disk, and people download their answers and send them.

    What is right is not in it.

    Args:
        study: The study.
        folder: Of the study, where its pictures are.
        path: The file.
        overwrite: Replace a file that is there.

    Returns:
        Its size in bytes.

    Raises:
        UserError: There is such a file already, a picture is missing, or jinja2 is.
    """
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists already; overwrite it with --force, or write to another name")
    pictures: dict[str, str] = {}
    for trial in study.trials:
        for name in trial.pictures:
            file = folder / PICTURES / name
            if not file.is_file():
                raise UserError(f"{file}: expected a picture of the study, but it is missing; make the study again")
            pictures[name] = "data:image/jpeg;base64," + base64.b64encode(file.read_bytes()).decode()
    text = page(study, pictures)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = unfinished(path)
    try:
        part.write_text(text, encoding="utf-8", newline="\n")
        sync(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path.stat().st_size


def page(study: Study, pictures: dict[str, str] | None = None) -> str:
    """Make the page.

    Args:
        study: The study.
        pictures: Every picture as a URL that holds it; None of a page that asks a server.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise UserError("a page needs jinja2: pip install 'mmcam[report]'") from error
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, loader=FileSystemLoader(HERE), trim_blocks=True, lstrip_blocks=True
    )
    # `tojson` escapes <, >, & and ', so that no text can end its island.
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    style, script = _text("study.css"), _text("study.js")
    return environment.get_template("page.html.j2").render(
        study=study,
        scale=SCALE,
        legend=study.facts.get("legend", ()),
        open_part=json.loads(json.dumps(study.open_part())),
        pictures=pictures,
        style=style,
        script=script,
        policy=policy(served=pictures is None),
    )


def policy(*, served: bool) -> str:
    """What the page may do (CSP): run its own script; show its own pictures; talk to its own server, if it has one."""
    rules: dict[str, Any] = {
        "default-src": "'none'",
        "script-src": f"'{_digest(_text('study.js'))}'",
        "style-src": f"'{_digest(_text('study.css'))}'",
        "img-src": "'self' data:" if served else "data:",
        "connect-src": "'self'" if served else "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
