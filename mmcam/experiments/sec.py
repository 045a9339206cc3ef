"""Seeds as SEC reads them (Kolesnikov and Lampert, arXiv 1603.06098).

    <folder>/localization_cues.pickle   a pickled dictionary: "7_labels" → class numbers of picture 7, from 1;
                                        "7_cues" → three lists as long as there are seeds: class (0 is background), row
                                        and column on a grid of 41 x 41 over the whole picture
    <folder>/input_list.txt             a line a picture: its name, a blank, its number
    <folder>/classes.txt                a line a class, the background first; ours, so that numbers have names

This is what the layer that feeds SEC's losses reads, as published in Caffe and copied by later code: `labels` indexes a
vector of 21 classes, `cues[0], cues[1], cues[2]` an array of 21 x 41 x 41. It runs on Python 2, so the pickle has
protocol 2 and holds nothing but a dictionary of texts and lists of numbers: arrays pickled by a new NumPy name modules
that an old one lacks. It has not been tried with SEC itself. mmcam only writes this file; it never reads a pickle.
"""

import pickle
from collections.abc import Sequence
from pathlib import Path

import torch

from mmcam.draw import upsample
from mmcam.errors import UserError, unknown
from mmcam.explanation import Explanation
from mmcam.metrics.seeds import seed_labels

__all__ = ["GRID", "Cues"]

GRID = 41
"""Side of SEC's output, for pictures brought to 321 x 321."""


class Cues:
    """The seeds of all pictures, until they are written."""

    def __init__(self, threshold: float, background: float) -> None:
        """Say where maps are cut.

        Args:
            threshold: Part of its maximum that a map needs to seed its class.
            background: Where all maps are below this part of their maxima, background is seeded. SEC takes background
                seeds from a saliency map instead, which there is none of here.
        """
        self.threshold, self.background = threshold, background
        self._pictures: list[tuple[str, list[str], list[list[int]]]] = []

    def add(self, explanation: Explanation, names: Sequence[str | None]) -> None:
        """Take the seeds of one picture.

        Args:
            explanation: A map a class.
            names: Of each map's class; None for what is not in the picture.
        """
        kept = [(i, name) for i, name in enumerate(names) if name is not None]
        classes = list(dict.fromkeys(name for _, name in kept))
        (height, width), (top, left, bottom, right) = explanation.size, explanation.window
        window = (top * GRID / height, left * GRID / width, bottom * GRID / height, right * GRID / width)
        maps = upsample(explanation.maps[[i for i, _ in kept]], (GRID, GRID), window)
        numbers = torch.tensor([classes.index(name) + 1 for _, name in kept], dtype=torch.long)
        labels = seed_labels(maps, numbers, self.threshold)
        empty = seed_labels(maps, numbers, self.background) == 0
        rows, columns = ((labels > 0) | empty).nonzero(as_tuple=True)
        seeds = [labels[rows, columns].tolist(), rows.tolist(), columns.tolist()]
        self._pictures.append((explanation.id, classes, seeds))

    def write(self, folder: Path, classes: Sequence[str] = ()) -> Path:
        """Write the files.

        Args:
            folder: Made if it is missing.
            classes: In the order of their numbers, from 1; the pictures' own in alphabetical order if not given.

        Returns:
            The file of seeds.

        Raises:
            UserError: A picture has another class, or a blank in its name, which SEC's list cannot hold.
        """
        order = list(classes) or sorted({name for _, own, _ in self._pictures for name in own})
        content: dict[str, list[int] | list[list[int]]] = {}
        lines = []
        for number, (name, own, seeds) in enumerate(self._pictures):
            if len(name.split()) != 1:
                raise UserError(f"expected names without blanks for SEC's list of pictures, got {name!r}")
            for missing in (kind for kind in own if kind not in order):
                raise unknown("class", missing, order)
            numbers = [0, *(order.index(kind) + 1 for kind in own)]
            content[f"{number}_labels"] = sorted(numbers[1:])
            content[f"{number}_cues"] = [[numbers[kind] for kind in seeds[0]], *seeds[1:]]
            lines.append(f"{name} {number}\n")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "localization_cues.pickle"
        path.write_bytes(pickle.dumps(content, protocol=2))
        (folder / "input_list.txt").write_text("".join(lines), encoding="utf-8")
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in ("background", *order)), encoding="utf-8")
        return path
