"""GQA: questions whose words, and those of their answers, point at boxes of a scene graph."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mmcam.annotations.published import Entry, inside, read_object
from mmcam.truth import Things
from vqa.data import Questions
from vqa.published import Asked, once

GRAPHED = ("train", "val")
"""The splits of which scene graphs are published."""


@dataclass(frozen=True)
class Graph:
    """The objects of one picture.

    Attributes:
        size: Height and width.
        numbers: Of each object, by its id.
        names: Of each object.
        boxes: left, top, right, bottom in pixels.
    """

    size: tuple[int, int]
    numbers: dict[str, int]
    names: tuple[str, ...]
    boxes: tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True)
class Pointed:
    """Which objects the words of a question and of its answers point at, one a word or span, so some may come twice.

    Attributes:
        question: From the question's words.
        answer: From the short answer.
        full: From the answer as a sentence.
        absent: Whether the question asks about an object that is not there.
        scene: Whether it asks about the scene as a whole.
    """

    question: tuple[int, ...] = ()
    answer: tuple[int, ...] = ()
    full: tuple[int, ...] = ()
    absent: bool = False
    scene: bool = False


class Gqa(Questions):
    """The questions of GQA, as published: `questions/`, `sceneGraphs/` and `images/`, or the JSON files in the folder.

    A thing is an object of the scene graph, known by its box.
    """

    def __init__(self, data: str, split: str = "val", kind: str = "balanced", limit: int | None = None) -> None:
        """Read questions and scene graphs.

        Args:
            data: The folder; `questions/<split>_<kind>_questions.json` may also be a folder of parts, or numbered.
            split: "train", "val", "testdev", "test"; scene graphs are published of the first two only.
            kind: "balanced", of which the official figures are, or "all".
            limit: Use the first questions only.

        Raises:
            UserError: A file is missing or broken, an id comes twice, or a word points at an object that is not there.
        """
        root = Path(data)
        files = _question_files(root, f"{split}_{kind}_questions")
        graphs = read_object(_graph_file(root, split)) if split in GRAPHED else None
        self._graphs: dict[int, Graph] = {}
        self._pointed: list[Pointed] = []
        asked: list[Asked] = []
        number: dict[Path, int] = {}
        seen: set[str] = set()
        for identity, row in (pair for file in files for pair in _questions(file)):
            if limit is not None and len(asked) >= limit:
                break
            once(identity, seen, row)
            image = row.take("imageId", str)
            picture = number.setdefault(
                inside(root / "images", f"{image}.jpg", f"{row.file}: {row.place}"), len(number)
            )
            answer = row.take("answer", str) if graphs is not None or "answer" in row.values else ""
            asked.append(Asked(identity, picture, row.take("question", str), answer, form=_form(row)))
            if graphs is None:
                self._pointed.append(Pointed())
                continue
            if image not in graphs.values:
                raise row.broken(f"expected a picture of {graphs.file}, got {image!r}, which has no scene graph there")
            if picture not in self._graphs:
                self._graphs[picture] = _graph(Entry.of(graphs.values[image], graphs.file, f"picture {image!r}"))
            self._pointed.append(_pointed(row, self._graphs[picture]))
        super().__init__(list(number), asked)

    def things(self, number: int) -> Things:
        """The objects of the picture; of a question about the scene, last of all, the whole picture as "scene".

        None where no scene graph is published.
        """
        graph = self._graphs.get(self.asked[number].picture)
        if graph is None:
            return super().things(number)
        names, boxes = graph.names, graph.boxes
        if self._pointed[number].scene:
            names, boxes = (*names, "scene"), (*boxes, (0.0, 0.0, float(graph.size[1]), float(graph.size[0])))
        return Things.of_boxes(names, torch.tensor(boxes).view(-1, 4), graph.size)

    def about(self, number: int, words: Sequence[str]) -> list[tuple[int, ...] | None]:
        """The regions of the official grounding score, for every answer: what question and full answer point at.

        An object comes as often as words point at it: the official score counts it so. The whole picture is the last
        one if the question asks about the scene; that is what the official code says it does, but it looks for "scene"
        among the names of a step's fields, where the published files never have it.
        """
        pointed = self._pointed[number]
        scene = (len(self._graphs[self.asked[number].picture].names),) if pointed.scene else ()
        return [_none_is(pointed, pointed.question + pointed.full + scene)] * len(words)


class GqaAnswers(Gqa):
    """GQA, where an answer is about what the answer itself points at ("the man"), if it does.

    Other answers, and wrong ones, are about the objects of question and full answer, each once, never about the scene.
    """

    def about(self, number: int, words: Sequence[str]) -> list[tuple[int, ...] | None]:
        """The objects of each answer."""
        pointed, right = self._pointed[number], self.asked[number].answer
        asked = _none_is(pointed, tuple(dict.fromkeys(pointed.question + pointed.full)))
        answer = tuple(dict.fromkeys(pointed.answer))
        return [answer if answer and word == right else asked for word in words]


def _none_is(pointed: Pointed, numbers: tuple[int, ...]) -> tuple[int, ...] | None:
    """Where nothing is pointed at, a thing that is not there is asked for, or no thing at all."""
    return numbers or (() if pointed.absent else None)


def _question_files(root: Path, name: str) -> list[Path]:
    """The one file, or its parts in their order."""
    for folder in (root / "questions", root):
        if (folder / f"{name}.json").is_file():
            return [folder / f"{name}.json"]
        parts = [*folder.glob(f"{name}_*.json"), *(folder / name).glob(f"{name}_*.json")]
        if parts:
            return sorted(parts, key=lambda part: (len(part.name), part.name))
    return [root / "questions" / f"{name}.json"]


def _graph_file(root: Path, split: str) -> Path:
    inside, beside = root / "sceneGraphs" / f"{split}_sceneGraphs.json", root / f"{split}_sceneGraphs.json"
    return beside if beside.is_file() and not inside.is_file() else inside


def _questions(file: Path) -> Iterator[tuple[str, Entry]]:
    for identity, row in read_object(file).values.items():
        yield identity, Entry.of(row, file, f"question {identity!r}")


def _form(row: Entry) -> str:
    """What the official figures tell apart: open questions and those to be answered by one of two."""
    if "types" not in row.values:
        return ""
    types = Entry.of(row.values["types"], row.file, f"{row.place}, types")
    return "open" if types.take("structural", str) == "query" else "binary"


def _graph(entry: Entry) -> Graph:
    objects = entry.take("objects", dict)
    names, boxes = [], []
    for identity, value in objects.items():
        thing = Entry.of(value, entry.file, f"{entry.place}, object {identity!r}")
        names.append(thing.take("name", str))
        x, y, w, h = (thing.number(key) for key in ("x", "y", "w", "h"))
        boxes.append((x, y, x + w, y + h))
    return Graph(entry.size(), {identity: i for i, identity in enumerate(objects)}, tuple(names), tuple(boxes))


def _pointed(row: Entry, graph: Graph) -> Pointed:
    notes = Entry.of(row.take("annotations", dict), row.file, f"{row.place}, annotations")
    found = []
    for part in ("question", "answer", "fullAnswer"):
        links = Entry.of(notes.take(part, dict), row.file, f"{row.place}, annotations.{part}")
        for words in links.values:
            if links.take(words, str) not in graph.numbers:
                raise links.broken(
                    f"expected word {words!r} to point at an object of the picture's scene graph, got "
                    f"{links.values[words]!r}, which is not in it"
                )
        found.append(tuple(graph.numbers[identity] for identity in links.values.values()))
    arguments = [step.take("argument", str).strip() for step in row.entries("semantic")]
    absent = any(argument.endswith("(-)") for argument in arguments)
    scene = any(argument == "scene" for argument in arguments)
    return Pointed(found[0], found[1], found[2], absent, scene)
