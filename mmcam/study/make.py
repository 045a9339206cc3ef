"""Making a study out of a dump: choosing, drawing, writing."""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, get_args

import torch
from PIL import Image

from mmcam.config import SECTIONS
from mmcam.draw import highlight, scale, upsample
from mmcam.dumps.reader import MapReader
from mmcam.errors import UserError, unknown
from mmcam.explanation import Explanation
from mmcam.sources import Source, choose_source
from mmcam.study.candidates import candidates, common_methods
from mmcam.study.choose import check_count, checks, choose, trials
from mmcam.study.plan import PICTURES, PLAN, Kind, Study, Trial

__all__ = ["CONSENT", "make", "paint"]

logger = logging.getLogger(__name__)

TITLES = {
    "discrimination": "What is this map about?",
    "words": "Which word does this map explain?",
    "trust": "Which program looked at more reasonable places?",
}
CONSENT = (
    "This is a study about computer programs that show where they looked in a picture. It is about the programs, not "
    "about you. Where you are not sure, go by your first impression.",
    "Taking part is voluntary. You can stop at any time, without giving a reason; answers up to then are kept. Stored "
    "are a random code, your answers and how long each took; no name, no address, nothing about your computer.",
)


def make(
    folder: Path,
    dump: Path,
    second: Path | None = None,
    *,
    kind: Kind,
    pairs: int = 40,
    seed: int = 0,
    methods: Sequence[str] = (),
    data: str = "",
    attention: int | None = None,
    title: str = "",
    consent: Sequence[str] = CONSENT,
    side: int = 448,
    colours: str = "viridis",
    opacity: float = 0.8,
) -> Study:
    """Make a study.

    Args:
        folder: Where it is written: the plan, with what is right, and the pictures.
        dump: A dump, its folder or file.
        second: Of "trust" the dump of the other model; a positive score will say that it is trusted more.
        kind: "discrimination", "words" or "trust".
        pairs: How many pictures each person is asked about; a multiple of twice the number of methods.
        seed: Of all that chance decides. The same seed and dumps make the same study.
        methods: Whose maps are shown; all that the dumps have if none is named.
        data: Where the pictures are, if not where the dump says.
        attention: Number of checks of attention; one to ten pairs if not given.
        title: Of the page.
        consent: Paragraphs that people agree to.
        side: Longest side of the pictures, in pixels; small ones are enlarged.
        colours: A colour map of matplotlib.
        opacity: Of the map over the picture in grey, where it is greatest.

    Raises:
        UserError: There is a study already, or nothing that could be asked about.
    """
    if kind not in get_args(Kind):
        raise unknown("kind of study", kind, get_args(Kind))
    if (second is not None) != (kind == "trust"):
        came = "one" if second is None else "two"
        raise UserError(f"{kind}: expected {'two dumps' if kind == 'trust' else 'one dump'}, got {came}")
    if (folder / PLAN).exists():
        raise UserError(f"{folder} holds a study already; its answers belong to it, so write to another folder")
    for name, least, number in (("side", 64, side), ("attention", 0, attention or 0)):
        if number < least:
            raise UserError(f"{name}: expected {least} or more, got {number}")
    dumps = [dump] if second is None else [dump, second]
    found = common_methods(dumps, methods)
    check_count(pairs, len(found))
    rng = Random(seed)
    source = _source(dump, data)
    chosen = choose(candidates(dumps, found, kind, source), pairs, rng)
    asked = trials(chosen, len(found), kind, rng)
    both = (*asked, *checks(asked, max(1, pairs // 10) if attention is None else attention, kind, rng))
    facts = {
        "seed": seed,
        "pairs": pairs,
        "colours": colours,
        "opacity": opacity,
        "legend": _legend(colours, opacity),
        "dumps": [_facts(path) for path in dumps],
    }
    asks = [(t.id, t.source, t.word, t.question, t.options) for t in both]
    same = facts | {"dumps": [{**one, "path": ""} for one in facts["dumps"]]}
    content = json.dumps([kind, found, asks, same], sort_keys=True)
    name = hashlib.sha256(content.encode()).hexdigest()[:12]
    study = Study(name, kind, title or TITLES[kind], tuple(consent), found, both, facts)
    rows = {(one.source, one.word): one.rows for one in chosen}
    _draw(folder, study, dumps, source, rows, (side, colours, opacity))
    study.save(folder)
    return study


def paint(image: Image.Image, one: Explanation, row: int, side: int, colours: str, opacity: float) -> Image.Image:
    """Draw a map over its picture in grey, scaled by its own maximum, with `side` pixels along the longer side."""
    factor = side / max(image.size)
    width, height = (max(1, round(length * factor)) for length in image.size)
    top, left, bottom, right = one.window
    down, across = height / one.size[0], width / one.size[1]
    window = (top * down, left * across, bottom * down, right * across)
    large = scale(upsample(one.maps[row : row + 1], (height, width), window), "own")[0]
    return highlight(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC), large, opacity, colours)


def _legend(colours: str, opacity: float, steps: int = 32) -> list[str]:
    """Maps from 0 to 1 over grey, as the page writes colours."""
    row = highlight(Image.new("RGB", (steps, 1), "#999"), torch.linspace(0, 1, steps)[None], opacity, colours)
    return ["#" + row.crop((step, 0, step + 1, 1)).tobytes().hex() for step in range(steps)]


def _draw(
    folder: Path,
    study: Study,
    dumps: Sequence[Path],
    source: Source,
    rows: dict[tuple[str, str], tuple[int, ...]],
    look: tuple[int, str, float],
) -> None:
    (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    numbers = {name: number for number, name in enumerate(source.ids)}
    for turn, method in enumerate(study.methods):
        for place, path in enumerate(dumps):
            with MapReader(path, method) as maps:
                for trial in (trial for trial in study.trials if trial.method == turn):
                    # Of trust, option `key` shows the second dump.
                    option = trial.key if place else (1 - trial.key if study.kind == "trust" else 0)
                    row = rows[trial.source, trial.word][place]
                    one = maps[trial.source]
                    painted = paint(_picture(source, numbers, trial, one), one, row, *look)
                    painted.save(folder / PICTURES / trial.pictures[option], quality=90)


def _picture(source: Source, numbers: dict[str, int], trial: Trial, one: Explanation) -> Image.Image:
    base = trial.source if trial.source in numbers else trial.source.rpartition(":given")[0]
    image = source.sample(numbers[base]).image
    if (image.height, image.width) != one.size:
        came, expected = f"{image.width} x {image.height}", f"{one.size[1]} x {one.size[0]}"
        raise UserError(f"{base}: expected the explained picture of {expected}, got one of {came}; name its --data")
    return image


def _source(dump: Path, data: str) -> Source:
    with MapReader(dump) as maps:
        config = maps.attributes["config"]
    own = {name: section for name, section in config.items() if name in SECTIONS}
    if not data and "data" not in own:
        raise UserError(f"{dump}: expected a dump that says where its pictures are; name the place with --data")
    return choose_source(data, own, {})[0]


def _facts(path: Path) -> dict[str, Any]:
    with MapReader(path) as maps:
        about = maps.attributes
    task, data = (about["config"].get(name, {}) for name in ("task", "data"))
    given = task.get("init_args", {})
    return {
        "path": str(path),
        "task": task.get("class_path", ""),
        "model": str(given.get("model", given.get("weights", ""))),
        "data": data.get("class_path", ""),
        "layer": str(about["layer"]),
        "weights_sha256": str(about["weights_sha256"]),
    }
