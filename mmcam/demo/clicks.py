"""What a click does: from what is on the page and in the user's own session to what the page shows next."""

import io
import re
from typing import Any

import gradio as gr
from PIL import Image

from mmcam.demo import drawn
from mmcam.demo.fetch import fetch
from mmcam.demo.guard import said
from mmcam.demo.looks import Look, again, check_lengths, heard_by, key_of, look, side_by_side
from mmcam.demo.samples import samples
from mmcam.demo.served import Served
from mmcam.errors import UserError
from mmcam.image import read_image

__all__ = ["Clicks"]

PROGRESS = gr.Progress()


class Clicks:
    """The functions behind one tab. They keep nothing: what a user sees is in the user's session."""

    def __init__(self, served: Served, slug: str, most_bytes: int, most_pixels: int) -> None:
        """Stand behind a tab.

        Args:
            served: Its model.
            slug: Begins the names of the tab's parts.
            most_bytes: Of a file from the web.
            most_pixels: Of a picture from the web.
        """
        self.served, self.slug = served, slug
        self.most_bytes, self.most_pixels = most_bytes, most_pixels

    @said
    def show(
        self,
        before: Look | None,
        picture: Image.Image | None,
        question: str | None,
        text: str | list[str] | None,
        method: str | None,
        layer: str | None,
        colours: str,
        opacity: float,
        scale: str,
        progress: gr.Progress = PROGRESS,
    ) -> tuple[Any, ...]:
        """Explain the picture; without one, clear the tab."""
        nothing = gr.update(choices=[], value=[])
        if picture is None:
            return (None, nothing, "", [], *self._pair(None), "", "", "", "", "")
        question, text, method, layer = question or "", _one(text), method or "", layer or ""
        check_lengths(question, text)
        if before is not None and before.key == key_of(self.served, picture, question, layer):
            found = again(before, text, method, tell=progress)
        else:
            found = look(self.served, picture, question, text, method, layer, tell=progress)
        if not found.words:
            return (found, nothing, "<p>The model says nothing.</p>", [], *self._pair(None), "", "", "", "", "")
        first = [self._first(found)]
        figure = drawn.figure(found, first, colours, opacity, scale)
        words = gr.update(choices=drawn.chips(found), value=first)
        everything = drawn.everything(found, colours, opacity, scale, self.slug)
        return (found, words, figure, first, *self._pair(found), "", "", "", "", everything)

    @said
    def choose(
        self,
        found: Look | None,
        chosen: list[int],
        shown: list[int],
        several: bool,
        colours: str,
        opacity: float,
        scale: str,
    ) -> tuple[Any, ...]:
        """Show the word that was clicked; of several hand on which, for `join` to show."""
        if not several:  # of many that were shown together, one that is clicked off is the one that is meant
            new = [number for number in chosen if number not in shown]
            gone = [number for number in shown if number not in chosen]
            chosen = (new or gone or chosen)[-1:]
        chosen = chosen or shown
        if len(chosen) > 1:
            return (*(gr.skip() for _ in range(5)), " ".join(map(str, chosen)))
        figure = drawn.figure(_here(found), chosen, colours, opacity, scale)
        return chosen, figure, chosen, "", "", ""

    @said
    def join(self, found: Look | None, chosen: list[int], colours: str, opacity: float, scale: str) -> tuple[Any, ...]:
        """Show the phrase of all that are chosen: a backward pass of its own."""
        if len(chosen) < 2:  # it was clicked away meanwhile
            return tuple(gr.skip() for _ in range(5))
        figure = drawn.figure(_here(found), chosen, colours, opacity, scale)
        return chosen, figure, chosen, "", ""

    @said
    def sentence(
        self, found: Look | None, colours: str, opacity: float, scale: str
    ) -> tuple[list[int], str, list[int], str, str]:
        """Show the map of all words as one."""
        everything = list(range(len(_here(found).words)))
        figure = drawn.figure(_here(found), everything, colours, opacity, scale)
        return everything, figure, everything, "", ""

    @said
    def redraw(self, found: Look | None, shown: list[int], colours: str, opacity: float, scale: str) -> tuple[str, str]:
        """Show the same maps in other colours."""
        if found is None or not shown:
            return "", ""
        everything = drawn.everything(found, colours, opacity, scale, self.slug)
        return drawn.figure(found, shown, colours, opacity, scale), everything

    @said
    def recolour(self, found: Look | None, shown: list[int], colours: str, scale: str) -> tuple[float, str, str]:
        """Show the same maps in a colour map that was not chosen before, as it is best seen."""
        opacity = drawn.opacity_of(colours)
        return (opacity, *self.redraw(found, shown, colours, opacity, scale))

    @said
    def contrast(
        self, found: Look | None, this: str | None, that: str | None, method: str | None, colours: str, opacity: float
    ) -> str:
        """Explain one answer or class rather than another."""
        if not this or not that:
            raise UserError("expected two answers or classes, got one; choose both")
        other = again(_here(found), f"{this} rather than {that}", method or "")
        return drawn.figure(other, [0], colours, opacity, "own")

    @said
    def three(
        self, found: Look | None, shown: list[int], colours: str, opacity: float, progress: gr.Progress = PROGRESS
    ) -> str:
        """Guided Backprop, Grad-CAM and Guided Grad-CAM."""
        progress(0.2, "going back to the pixels")
        return drawn.beside(side_by_side(_here(found), shown), _here(found), colours, opacity)

    @said
    def hear(self, found: Look | None, shown: list[int], progress: gr.Progress = PROGRESS) -> str:
        """Which words heard drive the chosen one."""
        progress(0.2, "asking without the picture, and without the words")
        return drawn.words_heard(heard_by(_here(found), shown))

    @said
    def keep(self, found: Look | None, colours: str, opacity: float, scale: str) -> str:
        """Links to files."""
        return drawn.files(_here(found), self.served.config, colours, opacity, "joint" if scale == "joint" else "own")

    @said
    def offer(self, event: gr.SelectData) -> tuple[Image.Image, str]:
        """Take a sample picture, and the first of its questions."""
        chosen = samples()[int(event.index)]
        return chosen.picture, chosen.questions[0] if self.served.needs else ""

    @said
    def from_web(self, url: str, progress: gr.Progress = PROGRESS) -> Image.Image:
        """Fetch a picture."""
        progress(0.2, "fetching the picture")
        stream = io.BytesIO(fetch(url.strip(), most_bytes=self.most_bytes))
        return read_image(stream, max_pixels=self.most_pixels)

    def _first(self, found: Look) -> int:
        """The word that is shown first: the likeliest answer; of a caption its longest word, which rarely is an "a"."""
        if self.served.task.separator != " ":
            return 0
        return max(range(len(found.words)), key=lambda number: len(found.words[number]))

    def _pair(self, found: Look | None) -> tuple[str | None, str | None]:
        """The two best answers, to be held against each other."""
        if found is None or self.served.task.separator == " " or len(found.words) < 2:
            return None, None
        return found.words[0], found.words[1]


def _one(text: str | list[str] | None) -> str:
    """Several names as one text."""
    joined = ", ".join(text) if isinstance(text, list) else text or ""
    return re.sub(r"\s+", " ", joined).strip()


def _here(found: Look | None) -> Look:
    if found is None:
        raise UserError("expected a picture that was explained, got none; press Explain first")
    return found
