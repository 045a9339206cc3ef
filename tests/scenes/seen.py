"""Scenes as their masks show them, and how things stand to each other there."""

from dataclasses import dataclass

import numpy as np

from mmcam.scenes.kinds import KINDS

PLURALS = {kind.plural: kind.name for kind in KINDS}
WAYS = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "over": (0, -1), "below": (0, 1), "under": (0, 1)}


@dataclass
class Seen:
    """A thing as its mask shows it."""

    kind: str
    x: float
    y: float


def look(scene, masks):
    seen = []
    for thing, mask in zip(scene.things, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        seen.append(Seen(thing.kind, (columns[0] + columns[-1] + 1) / 2, (rows[0] + rows[-1] + 1) / 2))
    return seen


def stands(a, word, b, *, clearly):
    """Whether a stands so to b; the box of what is visible may differ from the whole outline's by a pixel or two."""
    x, y = a.x - b.x, a.y - b.y
    dx, dy = WAYS[word]
    along, across = x * dx + y * dy, abs(x * dy) + abs(y * dx)
    return along > 7 and along > 1.25 * across if clearly else along > 0 and along > 0.75 * across
