"""Reading a page as a parser of HTML sees it, and things to show."""

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import torch
from PIL import Image

from mmcam.explanation import Explanation
from mmcam.report import Shown


@dataclass
class Page:
    """What a page holds.

    Attributes:
        text: The whole file.
        tags: Every start tag with its attributes.
        islands: JSON by id.
        scripts: The scripts that run.
        texts: The text of each element that has an id, without that of scripts.
    """

    text: str
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    islands: dict[str, object] = field(default_factory=dict)
    scripts: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def index(self):
        return self.islands["index"]

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


class Reader(HTMLParser):
    VOID = ("meta", "input", "img", "br", "link")

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.page, self.open, self.raw = Page(text), [], ""
        self.feed(text)
        self.close()
        assert self.open == []  # every element is closed

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        assert len(attributes) == len(attrs)
        self.page.tags.append((tag, attributes))
        if tag not in self.VOID:
            self.open.append((tag, attributes.get("id"), attributes.get("type")))
        self.raw = ""
        if tag in ("td", "th"):
            self.handle_data(" ")

    def handle_endtag(self, tag):
        name, identity, kind = self.open.pop()
        assert name == tag, (name, tag)
        if tag == "script" and kind == "application/json":
            assert identity not in self.page.islands
            self.page.islands[identity] = json.loads(self.raw)
        elif tag == "script":
            self.page.scripts.append(self.raw)
        elif tag == "style":
            self.page.styles.append(self.raw)
        self.raw = ""

    def handle_data(self, data):
        self.raw += data
        if self.open and self.open[-1][0] not in ("script", "style"):
            for _, identity, _ in self.open:
                if identity:
                    self.page.texts[identity] = self.page.texts.get(identity, "") + data


def read(path: Path) -> Page:
    return Reader(path.read_text(encoding="utf-8")).page


def explanation(name="a", words=("a", "dog"), signed=None, prompt="", size=(30, 40), window=None, method="grad_cam"):
    signed = torch.rand(len(words), 3, 4) + 0.1 if signed is None else signed
    scores = -torch.arange(1.0, len(words) + 1) / 2
    window = window or (0.0, 0.0, float(size[0]), float(size[1]))
    return Explanation(name, prompt, tuple(words), scores, signed, size, window, method, "conv2")


def shown(name="a", words=("a", "dog"), colour="red", **more):
    image = None if colour is None else Image.new("RGB", (40, 30), colour)
    known = {key: more.pop(key) for key in ("given", "marks", "missing") if key in more}
    one = explanation(name, words, **more)
    return Shown({one.method: one}, image, **known)
