"""One tab: a picture, what the model says of it, and where it looked; the same page for captions, answers and classes.

Every function here gets all that it needs from the page and the user's own session, and keeps nothing.
"""

import re
from typing import Any

import gradio as gr
from PIL import Image

from mmcam.demo import drawn
from mmcam.demo.fetch import fetch
from mmcam.demo.guard import picture_input, said
from mmcam.demo.looks import Look, again, check_lengths, heard_by, key_of, look, side_by_side
from mmcam.demo.samples import samples
from mmcam.demo.served import Served
from mmcam.errors import UserError
from mmcam.image import read_image
from mmcam.methods.table import names

__all__ = ["tab"]

PROGRESS = gr.Progress()
HOUR = 3600
WORDS = {"Captioning": "Caption", "VQA": "Answers", "Classification": "Classes"}


class Tab:
    """The functions behind one tab; the model is all that it holds."""

    def __init__(self, served: Served, most_bytes: int, most_pixels: int) -> None:
        """Stand behind a tab.

        Args:
            served: Its model.
            most_bytes: Of a file from the web.
            most_pixels: Of a picture from the web.
        """
        self.served = served
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
        if picture is None:
            return (None, gr.update(choices=[], value=[]), "", [], *self._pair(None), "", "", "", "")
        question, text, method, layer = question or "", _one(text), method or "", layer or ""
        check_lengths(question, text)
        if before is not None and before.key == key_of(self.served, picture, question, layer):
            found = again(before, text, method, tell=progress)
        else:
            found = look(self.served, picture, question, text, method, layer, tell=progress)
        if not found.words:
            return found, gr.update(choices=[], value=[]), "<p>The model says nothing.</p>", [], "", "", "", "", "", ""
        figure = drawn.figure(found, [0], colours, opacity, scale)
        words = gr.update(choices=drawn.chips(found), value=[0])
        return (found, words, figure, [0], *self._pair(found), "", "", "", "")

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
    ) -> tuple[list[int], str, list[int], str, str]:
        """Show the word that was clicked, or the phrase of all that are chosen."""
        if not several:  # of many that were shown together, one that is clicked off is the one that is meant
            new = [number for number in chosen if number not in shown]
            gone = [number for number in shown if number not in chosen]
            chosen = (new or gone or chosen)[-1:]
        chosen = chosen or shown
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
    def redraw(self, found: Look | None, shown: list[int], colours: str, opacity: float, scale: str) -> str:
        """Show the same map in other colours."""
        if found is None or not shown:
            return ""
        return drawn.figure(found, shown, colours, opacity, scale)

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
        return chosen.picture, chosen.questions[0]

    @said
    def from_web(self, url: str, progress: gr.Progress = PROGRESS) -> Image.Image:
        """Fetch a picture."""
        import io

        progress(0.2, "fetching the picture")
        stream = io.BytesIO(fetch(url.strip(), most_bytes=self.most_bytes))
        return read_image(stream, max_pixels=self.most_pixels)

    def _pair(self, found: Look | None) -> tuple[str | None, str | None]:
        """The two best answers, to be held against each other."""
        if found is None or self.served.task.separator == " " or len(found.words) < 2:
            return None, None
        return found.words[0], found.words[1]


def tab(served: Served, slug: str, *, allow_urls: bool, most_bytes: int, most_pixels: int) -> None:
    """Lay out a tab inside the page that is being built.

    Args:
        served: The model.
        slug: Begins the names of its parts and of its functions in the HTTP interface.
        allow_urls: Whether pictures may come from the web.
        most_bytes: Of such a picture.
        most_pixels: Of any picture.
    """
    own = Tab(served, most_bytes, most_pixels)
    kind, sentences = served.kind, served.task.separator == " "
    found, shown = gr.State(None, time_to_live=HOUR), gr.State([], time_to_live=HOUR)
    offered = samples()
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            picture = picture_input(
                most_pixels,
                label="Picture",
                sources=["upload", "clipboard", "webcam"],
                height=300,
                buttons=[],
                elem_id=f"{slug}-picture",
                alt_text="The picture to explain",
            )
            if allow_urls:
                url = gr.Textbox(label="or its address on the web", placeholder="https://", max_lines=1)
                fetched = gr.Button("Fetch", size="sm")
            if offered:
                gr.Markdown("or one of these", elem_classes="mm-label")
                gallery = gr.Gallery(
                    [(one.picture, one.text) for one in offered],
                    label="Sample pictures",
                    show_label=False,
                    columns=4,
                    allow_preview=False,
                    interactive=False,
                    format="png",
                    buttons=[],
                    elem_id=f"{slug}-samples",
                    elem_classes="mm-samples",
                )
            asked = tuple(dict.fromkeys(text for one in offered for text in one.questions))
            question = gr.Dropdown(
                list(asked),
                value=asked[0] if asked else "",
                allow_custom_value=True,
                label="Question",
                info="write your own, or choose one",
                visible=served.asks,
                elem_id=f"{slug}-question",
            )
            text = _text_input(served, slug)
            go = gr.Button("Explain", variant="primary", elem_id=f"{slug}-explain")
            with gr.Accordion("Method, layer and colours", open=False):
                method = gr.Dropdown(list(names()), value=served.task.method, label="Method")
                layer = gr.Dropdown(list(served.layers), value=served.task.layer, label="Layer")
                colours = gr.Dropdown(list(drawn.COLOURS), value=drawn.COLOURS[0], label="Colours")
                opacity = gr.Slider(0, 1, value=0.5, step=0.05, label="Opacity of the map")
                scale = gr.Radio(
                    [("each map by its own maximum", "own"), ("all by their common maximum", "joint")],
                    value="own",
                    label="Scale",
                )
        with gr.Column(scale=6, min_width=300):
            words = gr.CheckboxGroup(
                [],
                label=WORDS[kind],
                info="choose one to see where the model looked for it",
                elem_id=f"{slug}-words",
                elem_classes="mm-chips",
            )
            with gr.Row(elem_classes="mm-tight"):
                several = gr.Checkbox(False, label="join several into one", elem_id=f"{slug}-several", min_width=160)
                whole = gr.Button("Whole sentence", size="sm", visible=sentences, min_width=120)
            figure = gr.HTML(elem_id=f"{slug}-figure", min_height=120)
            with gr.Row(elem_classes="mm-tight"):
                three = gr.Button("Guided Backprop | Grad-CAM | Guided Grad-CAM", size="sm", elem_id=f"{slug}-three")
                hear = gr.Button("Words heard", size="sm", visible=kind != "Classification", elem_id=f"{slug}-hear")
                keep = gr.Button("Files to keep", size="sm", elem_id=f"{slug}-keep")
            beside, heard, files = (gr.HTML(elem_classes="mm-out") for _ in range(3))
            with gr.Accordion("Why one rather than another?", open=False, visible=not sentences):
                with gr.Row():
                    this = _name_input(served, "Why", f"{slug}-this")
                    that = _name_input(served, "rather than", f"{slug}-that")
                versus = gr.Button("Compare", size="sm", elem_id=f"{slug}-versus")
                why = gr.HTML(elem_id=f"{slug}-why", elem_classes="mm-out")

    looks = [colours, opacity, scale]
    model: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 2, "api_visibility": "undocumented"}
    quick: dict[str, Any] = {
        "api_visibility": "undocumented",
        "show_progress": "hidden",
        "trigger_mode": "always_last",
        "queue": False,
    }
    triggers = [picture.change, go.click, question.input, method.input, layer.input]
    triggers += [text.submit if isinstance(text, gr.Textbox) else text.input]
    gr.on(
        triggers,
        own.show,
        [found, picture, question, text, method, layer, *looks],
        [found, words, figure, shown, this, that, beside, heard, files, why],
        api_name=f"{slug}_show",
        trigger_mode="always_last",
        show_progress_on=[figure],
        **model,
    )
    words.input(
        own.choose,
        [found, words, shown, several, *looks],
        [words, figure, shown, beside, heard],
        api_name=f"{slug}_word",
        **quick,
    )
    whole.click(
        own.sentence, [found, *looks], [words, figure, shown, beside, heard], api_name=f"{slug}_sentence", **model
    )
    gr.on(
        [colours.input, opacity.release, scale.input],
        own.redraw,
        [found, shown, *looks],
        [figure],
        api_name=f"{slug}_redraw",
        **quick,
    )
    versus.click(
        own.contrast, [found, this, that, method, colours, opacity], [why], api_name=f"{slug}_contrast", **model
    )
    three.click(own.three, [found, shown, colours, opacity], [beside], api_name=f"{slug}_three", **model)
    hear.click(own.hear, [found, shown], [heard], api_name=f"{slug}_heard", **model)
    keep.click(own.keep, [found, *looks], [files], api_name=f"{slug}_files", **model)
    if offered:
        gallery.select(own.offer, None, [picture, question], api_visibility="private", show_progress="hidden")
    if allow_urls:
        gr.on([fetched.click, url.submit], own.from_web, [url], [picture], api_name=f"{slug}_url", **model)


def _text_input(served: Served, slug: str) -> gr.Textbox | gr.Dropdown:
    """Where the user says what to explain."""
    if served.known:
        what = WORDS[served.kind].lower()
        return gr.Dropdown(
            list(served.known),
            value=[],
            multiselect=True,
            label=f"Search all {what}",
            info=f"empty: the {len(served.known) if len(served.known) < 5 else 'five'} likeliest",
            elem_id=f"{slug}-text",
        )
    label, note = {
        "Captioning": ("Your own caption", "empty: the model's; “a dog rather than cat” contrasts two words"),
        "VQA": ("Your own answer", "empty: the model's"),
        "Classification": ("Your own classes", "with commas between; empty: the likeliest"),
    }[served.kind]
    return gr.Textbox("", label=label, info=note, max_lines=3, elem_id=f"{slug}-text")


def _name_input(served: Served, label: str, identity: str) -> gr.Dropdown | gr.Textbox:
    if served.known:
        return gr.Dropdown(list(served.known), value=None, label=label, elem_id=identity, min_width=120)
    return gr.Textbox("", label=label, elem_id=identity, min_width=120)


def _one(text: str | list[str] | None) -> str:
    """Several names as one text."""
    joined = ", ".join(text) if isinstance(text, list) else text or ""
    return re.sub(r"\s+", " ", joined).strip()


def _here(found: Look | None) -> Look:
    if found is None:
        raise UserError("expected a picture that was explained, got none; press Explain first")
    return found
