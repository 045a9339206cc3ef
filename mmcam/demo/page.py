"""One tab: a picture, what the model says of it, and where it looked; the same for captions, answers and classes."""

from typing import Any

import gradio as gr

from mmcam.demo import drawn
from mmcam.demo.clicks import Clicks
from mmcam.demo.guard import picture_input
from mmcam.demo.samples import samples
from mmcam.demo.served import Served
from mmcam.methods.table import names

__all__ = ["tab"]

HOUR = 3600
WORDS = {"Captioning": "Caption", "VQA": "Answers", "Classification": "Classes"}
TO_WORDS = (
    "() => {{ if (innerWidth < 700) document.getElementById('{}-words').scrollIntoView({{behavior: 'smooth'}}) }}"
)
"""Where the page is one column, what is found lies below what was asked."""


def tab(served: Served, slug: str, *, allow_urls: bool, most_bytes: int, most_pixels: int) -> None:
    """Lay out a tab inside the page that is being built.

    Args:
        served: The model.
        slug: Begins the names of its parts and of its functions in the HTTP interface.
        allow_urls: Whether pictures may come from the web.
        most_bytes: Of such a picture.
        most_pixels: Of any picture.
    """
    own = Clicks(served, slug, most_bytes, most_pixels)
    kind, sentences = served.kind, served.task.separator == " "
    found, shown = gr.State(None, time_to_live=HOUR), gr.State([], time_to_live=HOUR)
    offered = samples()
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            picture = picture_input(
                most_pixels,
                label="Picture",
                sources=["upload", "clipboard", "webcam"],
                height=260,
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
                value=asked[0] if asked and served.needs else "",
                allow_custom_value=True,
                label="Question",
                info="write your own, or choose one" if served.needs else "empty: the model's own words to begin with",
                visible=served.asks,
                elem_id=f"{slug}-question",
            )
            text = _text_input(served, slug)
            go = gr.Button("Explain", variant="primary", elem_id=f"{slug}-explain")
            with gr.Accordion("Method, layer and colours", open=False):
                method = gr.Dropdown(list(names()), value=served.task.method, label="Method")
                layer = gr.Dropdown(list(served.layers), value=served.task.layer, label="Layer")
                named = [(label, name) for name, label in drawn.COLOURS.items()]
                colours = gr.Dropdown(named, value=named[0][1], label="Colours", elem_id=f"{slug}-colours")
                opacity = gr.Slider(
                    0,
                    1,
                    value=drawn.opacity_of(named[0][1]),
                    step=0.05,
                    label="Opacity of the map",
                    elem_id=f"{slug}-opacity",
                )
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
                several = gr.Checkbox(
                    False, label="join several", container=False, elem_id=f"{slug}-several", min_width=120
                )
                whole = gr.Button("Whole sentence", size="sm", visible=sentences, min_width=120)
            figure = gr.HTML(elem_id=f"{slug}-figure", min_height=120)
            everything = gr.HTML(elem_id=f"{slug}-all", elem_classes="mm-out")
            with gr.Row(elem_classes="mm-tight"):
                three = gr.Button("Down to the pixels", size="sm", elem_id=f"{slug}-three", min_width=100)
                hear = gr.Button(
                    "Words heard", size="sm", visible=kind != "Classification", elem_id=f"{slug}-hear", min_width=100
                )
                keep = gr.Button("Files to keep", size="sm", elem_id=f"{slug}-keep", min_width=100)
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
    triggers = [picture.change, go.click, question.input, method.select, layer.select]
    triggers += [text.submit if isinstance(text, gr.Textbox) else text.input]
    shows = gr.on(
        triggers,
        own.show,
        [found, picture, question, text, method, layer, *looks],
        [found, words, figure, shown, this, that, beside, heard, files, why, everything],
        api_name=f"{slug}_show",
        trigger_mode="always_last",
        show_progress_on=[figure],
        **model,
    )
    shows.success(None, js=TO_WORDS.format(slug), api_visibility="private")
    joined = gr.Textbox(visible="hidden", show_label=False)  # a state's change is not told by events out of the queue
    words.input(
        own.choose,
        [found, words, shown, several, *looks],
        [words, figure, shown, beside, heard, joined],
        api_name=f"{slug}_word",
        **quick,
    )
    joined.change(
        own.join,
        [found, words, *looks],
        [words, figure, shown, beside, heard],
        api_name=f"{slug}_phrase",
        trigger_mode="always_last",
        show_progress_on=[figure],
        **model,
    )
    whole.click(
        own.sentence, [found, *looks], [words, figure, shown, beside, heard], api_name=f"{slug}_sentence", **model
    )
    gr.on(
        [opacity.release, scale.input],
        own.redraw,
        [found, shown, *looks],
        [figure, everything],
        api_name=f"{slug}_redraw",
        **quick,
    )
    colours.input(
        own.recolour,
        [found, shown, colours, scale],
        [opacity, figure, everything],
        api_name=f"{slug}_recolour",
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
