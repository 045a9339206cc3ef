"""ILSVRC's validation set with its boxes: the tree of 2015 and Kaggle's copy of it."""

import csv
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from classification.data import judge_classes, plain
from classification.labels import imagenet_labels
from mmcam.annotations.markup import read_markup
from mmcam.annotations.published import inside, read_lines
from mmcam.errors import UserError, unknown
from mmcam.image import read_image
from mmcam.task import Sample
from mmcam.truth import Things, Truth

__all__ = ["ImageNet", "KaggleImageNet"]

Box = tuple[float, float, float, float]


class _OneClass(Truth):
    """Pictures of one class each, with boxes of the things of that class.

    A class may be named by its number (that of the sorted wnids, as in torchvision), its wnid, or any of its names;
    a name that two classes have ("crane") means both. Boxes are read as 0-based and inclusive and clipped to the
    picture.
    """

    wnids: Sequence[str]
    names: Sequence[tuple[str, ...]]
    classes: Sequence[int]
    paths: Sequence[Path]

    @abstractmethod
    def boxes(self, number: int) -> tuple[Sequence[Box], tuple[int, int] | None]:
        """xmin, ymin, xmax, ymax of each thing as they are written; height and width of the picture if they are."""

    def sample(self, number: int) -> Sample:
        """Read one picture."""
        return Sample(read_image(self.paths[number]), self.ids[number])

    def given(self, number: int) -> tuple[str, ...]:
        """The number of its class, which every task of a thousand classes understands."""
        return (str(self.classes[number]),)

    def things(self, number: int) -> Things:
        """The boxes of the picture's class, named by its wnid."""
        boxes, size = self.boxes(number)
        if size is None:
            picture = read_image(self.paths[number])
            size = picture.height, picture.width
        edges = [[left, top, right + 1, bottom + 1] for left, top, right, bottom in boxes]
        names = [self.wnids[self.classes[number]]] * len(edges)
        return Things.of_boxes(names, torch.tensor(edges, dtype=torch.float32).view(-1, 4), size)

    def about(self, number: int, words: Sequence[str]) -> list[tuple[int, ...] | None]:
        """The picture's class means all boxes, another class none of them.

        Raises:
            UserError: A word names no class.
        """
        every = tuple(range(len(self.boxes(number)[0])))
        return [every if self._right(number, plain(word)) else () for word in words]

    def judge(self, said: Mapping[int, Sequence[str]]) -> dict[str, Float[Tensor, " n"]]:
        """See `judge_classes`."""
        return judge_classes(said, self._right)

    def _right(self, number: int, word: str) -> bool:
        name = _key(word)
        classes = self._named.get(name) or self._named.get(name.partition(",")[0].strip())
        if classes is None:
            raise unknown("class", word, [names[0] for names in self.names])
        return self.classes[number] in classes

    @cached_property
    def _named(self) -> dict[str, set[int]]:
        """Classes by all of their names."""
        labels = imagenet_labels() if len(self.wnids) == 1000 else ("",) * len(self.wnids)
        named: dict[str, set[int]] = {}
        for i, (wnid, names, label) in enumerate(zip(self.wnids, self.names, labels, strict=True)):
            for name in (str(i), wnid, *names, label):
                named.setdefault(_key(name), set()).add(i)
        return named


class ImageNet(_OneClass):
    """`Annotations/CLS-LOC/val`, `Data/CLS-LOC/val`, `ImageSets/CLS-LOC/val.txt` and `devkit/data`.

    Pictures on the blacklist are left out. The numbers of the devkit are not those of the classes of a network:
    `map_clsloc.txt` tells the wnid, and the wnids in order are the network's classes.
    """

    def __init__(self, data: str, split: str = "val") -> None:
        """Read the lists; boxes are read when they are asked for.

        Args:
            data: The folder.
            split: "val"; the devkit has no classes of the test set.

        Raises:
            UserError: A file is missing or broken, an id stands twice or is not known.
        """
        if split != "val":
            raise unknown("split of ILSVRC with classes", split, ["val"])
        root = Path(data)
        kit = root / "devkit" / "data"
        by_id = _synsets(kit / "map_clsloc.txt")
        self.wnids = sorted(wnid for wnid, _ in by_id.values())
        names = dict(by_id.values())
        self.names = [(names[wnid],) for wnid in self.wnids]
        truth_file = kit / "ILSVRC2015_clsloc_validation_ground_truth.txt"
        truth = read_lines(truth_file)
        blacklist = {
            _whole(line, f"{kit / 'ILSVRC2015_clsloc_validation_blacklist.txt'}: line {i}", len(truth))
            for i, line in enumerate(read_lines(kit / "ILSVRC2015_clsloc_validation_blacklist.txt"), start=1)
        }
        number_of = {wnid: i for i, wnid in enumerate(self.wnids)}
        listed = root / "ImageSets" / "CLS-LOC" / "val.txt"
        self.ids, self.classes, self.paths, self._files = [], [], [], []
        seen: set[object] = set()
        for i, line in enumerate(read_lines(listed), start=1):
            name, _, number = line.partition(" ")
            index = _whole(number, f"{listed}: line {i}", len(truth))
            if name in seen or index in seen:
                raise UserError(f"{listed}: line {i}: expected each picture once, got {line!r} again")
            seen |= {name, index}
            if index in blacklist:
                continue
            ilsvrc = _whole(truth[index - 1], f"{truth_file}: line {index}", None)
            if ilsvrc not in by_id:
                raise UserError(f"{truth_file}: line {index}: map_clsloc.txt has no class {ilsvrc}")
            self.ids.append(name)
            self.classes.append(number_of[by_id[ilsvrc][0]])
            self.paths.append(inside(root / "Data" / "CLS-LOC" / "val", f"{name}.JPEG", f"{listed}: line {i}"))
            self._files.append(inside(root / "Annotations" / "CLS-LOC" / "val", f"{name}.xml", f"{listed}: line {i}"))

    def boxes(self, number: int) -> tuple[Sequence[Box], tuple[int, int] | None]:
        """Those of the picture's file.

        Raises:
            UserError: It is broken, or a thing is of another class than the ground truth.
        """
        found = read_markup(self._files[number], self.ids[number])
        wnid = self.wnids[self.classes[number]]
        for i, thing in enumerate(found.things, start=1):
            if thing.names != (wnid,):
                where = f"{self._files[number]}: object {i}"
                raise UserError(f"{where}: expected {wnid}, as in the ground truth, got {thing.names[0]}")
        return [thing.box for thing in found.things if thing.box is not None], found.size


class KaggleImageNet(_OneClass):
    """Kaggle's copy: `LOC_val_solution.csv`, `LOC_synset_mapping.txt` and the pictures in `ILSVRC/Data/CLS-LOC/val`.

    It has no blacklist; all 50,000 pictures count.
    """

    def __init__(self, data: str, split: str = "val") -> None:
        """Read the table, which holds classes and boxes.

        Args:
            data: The folder.
            split: "val"; the table of the test set is not published.

        Raises:
            UserError: A file is missing or broken, or a picture stands twice.
        """
        if split != "val":
            raise unknown("split of ILSVRC with classes", split, ["val"])
        root = Path(data)
        pairs = [line.partition(" ")[::2] for line in read_lines(root / "LOC_synset_mapping.txt")]
        names = {wnid: tuple(part.strip() for part in text.split(",")) for wnid, text in pairs}
        if len(names) < len(pairs) or not all(wnid and text for wnid, text in pairs):
            raise UserError(f"{root / 'LOC_synset_mapping.txt'}: expected lines '<wnid> <names>', each wnid once")
        self.wnids = sorted(names)
        self.names = [names[wnid] for wnid in self.wnids]
        number_of = {wnid: i for i, wnid in enumerate(self.wnids)}
        file = root / "LOC_val_solution.csv"
        rows = csv.DictReader(read_lines(file))
        if list(rows.fieldnames or []) != ["ImageId", "PredictionString"]:
            raise UserError(f"{file}: expected the columns ImageId and PredictionString, got {rows.fieldnames}")
        inner = root / "ILSVRC" if (root / "ILSVRC").is_dir() else root
        pictures = inner / "Data" / "CLS-LOC" / "val"
        self.ids, self.classes, self.paths, self._boxes = [], [], [], []
        seen: set[str] = set()
        for row in rows:
            where = f"{file}: line {rows.line_num}"
            name = row["ImageId"]
            if name in seen:
                raise UserError(f"{where}: expected each picture once, got {name} again")
            seen.add(name)
            wnid, boxes = _prediction(row["PredictionString"] or "", where)
            if wnid not in number_of:
                raise UserError(f"{where}: LOC_synset_mapping.txt has no class {wnid}")
            self.ids.append(name)
            self.classes.append(number_of[wnid])
            self.paths.append(inside(pictures, f"{name}.JPEG", where))
            self._boxes.append(boxes)

    def boxes(self, number: int) -> tuple[Sequence[Box], tuple[int, int] | None]:
        """Those of the table, which knows no sizes."""
        return self._boxes[number], None


def _synsets(file: Path) -> dict[int, tuple[str, str]]:
    """Class and name by ILSVRC's number."""
    found: dict[int, tuple[str, str]] = {}
    for i, line in enumerate(read_lines(file), start=1):
        parts = line.split()
        if len(parts) != 3:
            raise UserError(f"{file}: line {i}: expected <wnid> <id> <name>, got {line[:60]!r}")
        number = _whole(parts[1], f"{file}: line {i}", None)
        if number in found or any(parts[0] == wnid for wnid, _ in found.values()):
            raise UserError(f"{file}: line {i}: expected each class once, got {line[:60]!r} again")
        found[number] = parts[0], parts[2]
    return found


def _prediction(text: str, where: str) -> tuple[str, list[Box]]:
    """Read "wnid x1 y1 x2 y2 wnid x1 …"; all of one class."""
    parts = text.split()
    try:
        numbers = [tuple(float(part) for part in parts[i + 1 : i + 5]) for i in range(0, len(parts), 5)]
    except ValueError:
        numbers = []
    boxes = [(n[0], n[1], n[2], n[3]) for n in numbers if len(n) == 4 and n[0] <= n[2] and n[1] <= n[3]]
    if not boxes or 5 * len(boxes) != len(parts) or len(set(parts[::5])) != 1:
        raise UserError(f"{where}: expected '<wnid> x1 y1 x2 y2' once or more, of one class, got {text[:60]!r}")
    return parts[0], boxes


def _whole(text: str, where: str, most: int | None) -> int:
    """Read a number from 1 on."""
    if not text.strip().isdecimal() or int(text) < 1 or (most is not None and int(text) > most):
        upto = "" if most is None else f" to {most}"
        raise UserError(f"{where}: expected a number from 1{upto}, got {text[:60]!r}")
    return int(text)


def _key(name: str) -> str:
    return name.strip().lower().replace("_", " ")
