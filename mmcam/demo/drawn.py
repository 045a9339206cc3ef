"""Looks as pieces of a page: figures with a text for those who do not see them, coloured words, files to keep.

Pictures and files travel inside the page (data URIs): nothing is written on the server for them.
"""

import base64
import html
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isfinite
from typing import Literal

import numpy as np
import torch
from PIL import Image

from mmcam import draw, sheet
from mmcam.demo.looks import Beside, Look, phrase
from mmcam.errors import unknown
from mmcam.explanation import Explanation, where

__all__ = [
    "COLOURS",
    "SCALES",
    "beside",
    "chips",
    "everything",
    "figure",
    "files",
    "opacity_of",
    "record",
    "strip",
    "words_heard",
]

COLOURS = {
    "viridis": "viridis, over the picture in grey",
    "jet": "jet, over everything (the papers')",
    "cividis": "cividis, over the picture in grey",
    "inferno": "inferno, over the picture in grey",
    "magma": "magma, over the picture in grey",
    "turbo": "turbo, over the picture in grey",
    "gray": "grey, over everything",
}
"""Colour maps with their names on the page. The first is told apart by the colour-blind, the second is the papers'."""
EVERYWHERE = ("jet", "gray")
"""Colours that are laid over the whole picture with one opacity."""
SCALES = ("own", "joint")

Scale = Literal["own", "joint"]
MOST_IN_STRIP = 24
THUMB = 112
FINE = 64
"""Maps with more cells a side show single pixels, and are softened for showing."""
STOPS = 9
FLAGS = {
    "negative": "the map is nowhere positive: nothing in the picture speaks for it",
    "zero": "the map is empty: it does not depend on the picture",
    "non-finite": "the map holds numbers that are not finite",
}


def figure(look: Look, rows: Sequence[int], colours: str, opacity: float, scale: str) -> str:
    """Draw the map of a word, or of several as one, over the picture.

    Args:
        look: The words; all of them count for the joint scale.
        rows: Numbers of words.
        colours: A colour map.
        opacity: Of the map, 0 to 1.
        scale: "own" or "joint".

    Returns:
        HTML.

    Raises:
        UserError: The colour map or the scale is not known, the opacity is out of range, or there is no such word.
    """
    if scale not in SCALES:
        raise unknown("scale", scale, SCALES)
    row = phrase(look, rows)
    large = draw.upsample(row.maps, row.size, row.window).nan_to_num(0.0, 0.0, 0.0)
    own = float(large.max())
    peak = max(own, *look.peaks) if scale == "joint" else own
    seen, how = large / (peak if peak > 0 else 1), f"{row.method} at {row.layer}"
    if max(row.maps.shape[1:]) > FINE:
        how = f"{how}; softened for showing"
        seen = draw.scale(draw.soften(seen), "own") * (own / peak if peak > 0 else 1)
    picture = _painter(colours)(look.picture, seen[0], opacity, colours)
    place = divmod(int(large[0].argmax()), row.size[1]) if own > 0 else None
    facts = [f"strongest at the {where(place, row.size)}" if place else FLAGS.get(row.flags[0], "the map is empty")]
    alt = f"Map over the picture for “{row.words[0]}”: {facts[0]}"
    probable = look.probabilities[rows[0]] if len(set(rows)) == 1 else None
    if probable is not None:
        facts.insert(0, f"probability {_percent(probable)}")
    facts.insert(0, f"score {float(row.scores[0]):.2f}")
    caption = f"<b>{html.escape(row.words[0])}</b> <span>{html.escape('; '.join(facts))}</span>"
    caption += f"<small>{html.escape(how)}</small>"
    return (
        f'<figure class="mm-figure">{_img(picture, alt)}{_legend(colours)}'
        f'<figcaption aria-live="polite">{caption}</figcaption></figure>'
    )


def everything(look: Look, colours: str, opacity: float, scale: str, slug: str) -> str:
    """Draw a small picture a word, in a line that wraps; each is a button that chooses its word.

    Args:
        look: The words; of very long texts the first.
        colours: A colour map.
        opacity: Of the map, 0 to 1.
        scale: As for `figure`.
        slug: The tab, whose word is chosen.

    Returns:
        HTML; nothing for a single word.
    """
    if len(look.words) < 2:
        return ""
    found, longest = look.shown, max(look.picture.size)
    width, height = (max(1, side * THUMB // longest) for side in look.picture.size)
    small = look.picture.resize((width, height))
    window = tuple(edge * small.height / look.picture.height for edge in found.window)
    maps = draw.upsample(found.maps[:MOST_IN_STRIP], (small.height, small.width), window)  # pyright: ignore[reportArgumentType]
    if max(found.maps.shape[1:]) > FINE:
        maps = draw.soften(maps)
    cells = ""
    for number, (word, row) in enumerate(zip(look.words, draw.scale(maps, scale), strict=False)):  # pyright: ignore[reportArgumentType]
        picture = _painter(colours)(small, row.clamp(0, 1), opacity, colours)
        click = f"document.querySelectorAll('#{slug}-words input')[{number}].click()"
        name = html.escape(word)
        cells += (
            f'<button type="button" onclick="{click}">{_img(picture, f"{word}, small")}<span>{name}</span></button>'
        )
    return f'<div class="mm-all" role="group" aria-label="All words at once">{cells}</div>'


def opacity_of(colours: str) -> float:
    """Give the opacity with which a colour map is first shown."""
    return 0.5 if colours in EVERYWHERE else 0.85


def chips(look: Look) -> list[tuple[str, int]]:
    """Each word with its number, for a page to choose from; answers and classes with their probability."""
    if look.task.separator == " ":
        return [(word, number) for number, word in enumerate(look.words)]
    return [
        (word if probable is None else f"{word} · {_percent(probable)}", number)
        for number, (word, probable) in enumerate(zip(look.words, look.probabilities, strict=True))
    ]


def beside(found: Beside, look: Look, colours: str, opacity: float) -> str:
    """Draw Guided Backprop, Grad-CAM and Guided Grad-CAM in one line."""
    large = draw.scale(draw.upsample(found.cam.maps, found.cam.size, found.cam.window), "own")
    word = found.cam.words[0]
    pictures = {
        "Guided Backprop": found.guided,
        "Grad-CAM": _painter(colours)(look.picture, large[0], opacity, colours),
        "Guided Grad-CAM": found.product,
    }
    panels = "".join(
        f'<figure class="mm-figure">{_img(picture, f"{name} of “{word}”")}<figcaption>{name}</figcaption></figure>'
        for name, picture in pictures.items()
    )
    return f'<div class="mm-three" role="group" aria-label="Three views of “{html.escape(word)}”">{panels}</div>'


def words_heard(row: Explanation) -> str:
    """Draw the words heard, on the colour of what each adds to the score, with the number beneath."""
    if row.heard_scores is None or row.image_shares is None or row.without_picture is None:
        return ""
    values = row.heard_scores[0].float().nan_to_num(0.0, 0.0, 0.0)
    most = float(values.abs().max()) if values.numel() else 0.0
    painted = draw.colour(((values / (most or 1) + 1) / 2)[None, None], sheet.SIGNED)[0, :, 0].T  # (l, 3)
    cells = ""
    for word, value, ground in zip(row.heard, values.tolist(), (painted * 255).round().int().tolist(), strict=True):
        ink = ",".join(map(str, sheet.ink_on(ground)))
        style = f"background:rgb({','.join(map(str, ground))});color:rgb({ink})"
        cells += f'<span class="mm-heard" style="{style}">{html.escape(word)}<small>{value:+.2f}</small></span>'
    share, unseen = float(row.image_shares[0]), float(row.without_picture[0])
    seen = f"{_percent(share)} of it is seen, the rest is heard; " if isfinite(share) else ""
    title = f"What drives <b>{html.escape(row.words[0])}</b>: red speaks for it, blue against"
    scores = f"its score is {float(row.scores[0]):.2f}, and {unseen:.2f} without the picture"
    return f'<div class="mm-words"><p>{title}</p><p>{cells}</p><p>{seen}{scores}.</p></div>'


def strip(look: Look, colours: str = "jet", opacity: float = 0.5, scale: Scale = "own") -> Image.Image:
    """Draw the picture and one panel a word; of very long texts the first words."""
    few = look.shown
    if len(few.words) > MOST_IN_STRIP:
        part = slice(MOST_IN_STRIP)
        few = replace(few, words=few.words[part], scores=few.scores[part], signed=few.signed[part])
    return few.overlay(look.picture, scale=scale, colours=colours, opacity=opacity)


def record(look: Look, config: str) -> dict[str, object]:
    """All that is known of a look, but for the maps, as JSON takes it; null for what is no finite number."""
    found = look.explanation
    return {
        "config": config,
        "question": found.prompt,
        "words": list(found.words),
        "scores": [value if isfinite(value) else None for value in found.scores.tolist()],
        "probabilities": list(look.probabilities),
        "flags": list(found.flags),
        "peaks": [None if peak is None else list(peak) for peak in _peaks(look)],
        "size": list(found.size),
        "window": list(found.window),
        "method": found.method,
        "layer": found.layer,
    }


def files(look: Look, config: str, colours: str, opacity: float, scale: Scale) -> str:
    """Links to keep what is shown: the strip as PNG, raw maps as .npz, words and scores as JSON."""
    npz = io.BytesIO()
    found = look.explanation
    np.savez_compressed(
        npz,
        maps=found.maps.numpy(),
        signed=found.signed.numpy(),
        scores=found.scores.numpy(),
        words=np.array(found.words),
        size=np.array(found.size),
        window=np.array(found.window),
    )
    text = json.dumps(record(look, config), indent=1, ensure_ascii=False, allow_nan=False)
    kinds = {
        "strip.png": ("image/png", _png(strip(look, colours, opacity, scale)), "the strip (PNG)"),
        "maps.npz": ("application/octet-stream", npz.getvalue(), "raw maps (NumPy .npz)"),
        "words.json": ("application/json", text.encode(), "words and scores (JSON)"),
    }
    links = "".join(
        f'<li><a download="{name}" href="{_uri(kind, data)}">{label}</a></li>'
        for name, (kind, data, label) in kinds.items()
    )
    return f'<ul class="mm-files">{links}</ul>'


def _painter(colours: str) -> Callable[..., Image.Image]:
    return draw.overlay if colours in EVERYWHERE else draw.highlight


def _legend(colours: str) -> str:
    """Tell low colours from high ones."""
    painted = draw.colour(torch.linspace(0, 1, STOPS)[None, None], colours)[0, :, 0].T
    stops = ",".join(f"rgb({','.join(map(str, stop))})" for stop in (painted * 255).round().int().tolist())
    bar = f'<i style="background:linear-gradient(to right,{stops})"></i>'
    return f'<div class="mm-legend" aria-hidden="true"><span>0</span>{bar}<span>strongest</span></div>'


def _peaks(look: Look) -> Sequence[tuple[int, int] | None]:
    """Row and column in the picture as uploaded, found at the size shown: a photo of 50 MB has too many pixels."""
    down, across = (full / small for full, small in zip(look.explanation.size, look.shown.size, strict=True))
    return [None if p is None else (int((p[0] + 0.5) * down), int((p[1] + 0.5) * across)) for p in look.shown.peaks()]


def _img(picture: Image.Image, alt: str) -> str:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=92, subsampling=0)
    size = f'width="{picture.width}" height="{picture.height}"'
    return f'<img src="{_uri("image/jpeg", data.getvalue())}" alt="{html.escape(alt)}" {size}>'


def _png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 or share == 0 else "< 1 %"
