"""A model behind a tab: what it explains, its layers, and the answers or classes that it knows. All users share it."""

import threading
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from mmcam.errors import UserError, unknown
from mmcam.load import load_task
from mmcam.networks.cut import at_layer
from mmcam.networks.survey import survey_task
from mmcam.task import Sample, Task

__all__ = ["Served", "serve"]

BEST = 5
"""How many answers or classes are shown."""
LONGEST_SEARCHED = 20_000
"""Names of answers or classes that a browser can search."""


@dataclass(frozen=True, eq=False)
class Served:
    """A task that people look at; only read, so that threads may share it.

    Attributes:
        config: Name or path of its configuration.
        task: The task at its own layer.
        asks: Whether it takes a question.
        needs: Whether it says nothing without one.
        known: All answers or classes that can be searched; empty for captions.
        layers: Names of those that can be explained, the task's own first.
    """

    config: str
    task: Task
    asks: bool
    needs: bool
    known: tuple[str, ...]
    layers: tuple[str, ...]
    _others: dict[str, Task] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def kind(self) -> str:
        """What the tab is called: by what the task wants and says, not by its class."""
        if self.needs or (self.asks and self.task.separator != " "):
            return "VQA"
        return "Captioning" if self.task.separator == " " else "Classification"

    @property
    def name(self) -> str:
        """The last part of the configuration's name."""
        return Path(self.config).stem

    def at(self, layer: str = "") -> Task:
        """The task at a layer, of the same model.

        Args:
            layer: One of `layers`; the task's own if not given.

        Raises:
            UserError: There is no such layer among them.
        """
        if layer in ("", self.task.layer):
            return self.task
        if layer not in self.layers:
            raise unknown("layer", layer, self.layers)
        with self._lock:
            if layer not in self._others:
                other = at_layer(self.task, layer)
                if other is None:
                    raise UserError(f"{type(self.task).__name__} can be explained at {self.task.layer!r} only")
                self._others[layer] = other
            return self._others[layer]


def serve(config: str, device: str = "auto", **overrides: object) -> Served:
    """Load a configuration's model and find out what it wants.

    Args:
        config: Name of a shipped configuration, or a YAML file.
        device: Where it runs.
        overrides: YAML keys, as for `mmcam.load_task`.

    Raises:
        UserError: As for `mmcam.load_task`.
    """
    task = load_task(config, device=device, **overrides)
    known = _known(task)
    if isinstance(getattr(task, "top_k", None), int):
        task.top_k = min(BEST, len(known) or BEST)  # pyright: ignore[reportArgumentType]
    asks, needs = _asks(task)
    return Served(config, task, asks, needs, known if len(known) <= LONGEST_SEARCHED else (), _layers(task, needs))


def _known(task: Task) -> tuple[str, ...]:
    """Answers or classes, by the names that the tasks of this package have for them."""
    if task.separator == " ":
        return ()
    for owner, name in ((task, "labels"), (task, "answers"), (getattr(task, "model", None), "answers")):
        found = getattr(owner, name, None)
        if isinstance(found, list | tuple):
            return tuple(map(str, found))
    return ()


def _asks(task: Task) -> tuple[bool, bool]:
    """Whether a task takes a question, and whether it refuses to go without."""
    grey = Image.new("RGB", (64, 64), "grey")
    try:
        task.collate([Sample(grey, "probe")])
    except UserError:
        return True, True
    try:
        return any(task.collate([Sample(grey, "probe", "what is this ?")]).texts), False
    except UserError:
        return False, False


def _layers(task: Task, needs: bool) -> tuple[str, ...]:
    if not task.layer or at_layer(task, task.layer) is None:
        return (task.layer,)
    noise = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(0))
    picture = Image.fromarray((noise * 255).to(torch.uint8).numpy())
    try:
        found, _ = survey_task(task, Sample(picture, "noise", "what is this ?" if needs else ""))
    except UserError:  # a question that the model has no words for
        return (task.layer,)
    fit = [layer.name for layer in found if not (layer.refused or layer.passed) and layer.name != task.layer]
    return (task.layer, *reversed(fit))
