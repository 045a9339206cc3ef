"""The HTTP interface, by Gradio's own protocol: one function, `/explain`, that keeps nothing. See docs/demo.md."""

from collections.abc import Sequence

import gradio as gr
from PIL import Image

from mmcam.demo import drawn
from mmcam.demo.guard import picture_input, said
from mmcam.demo.looks import look
from mmcam.demo.served import Served
from mmcam.errors import UserError, unknown

__all__ = ["endpoint"]


def endpoint(served: Sequence[Served], most_pixels: int) -> None:
    """Add `/explain` to the page that is being built.

    Args:
        served: The models.
        most_pixels: Of a picture.
    """
    by_name = {one.config: one for one in served}

    @said
    def explain(
        picture: Image.Image | None, model: str, question: str, text: str, method: str, layer: str
    ) -> tuple[dict[str, object], Image.Image]:
        """Explain a picture.

        Args:
            picture: The picture.
            model: The configuration of one of the models served; the first if empty.
            question: For models that want one.
            text: A caption, answers or classes; the model's own if empty.
            method: Name of a method; the model's own if empty.
            layer: Name of a layer; the model's own if empty.

        Returns:
            Words, scores, probabilities, raw maps (words x height x width) …, and the strip as a picture.
        """
        if picture is None:
            raise UserError("expected a picture, got none; upload one first")
        if model and model not in by_name:
            raise unknown("model", model, by_name)
        one = by_name[model] if model else served[0]
        found = look(one, picture, question or "", (text or "").strip(), method or "", layer or "")
        maps = found.explanation.maps.nan_to_num(0.0, 0.0, 0.0).tolist()
        return {**drawn.record(found, one.config), "maps": maps}, drawn.strip(found)

    inputs = [
        picture_input(most_pixels, label="picture", visible=False),
        *(
            gr.Textbox(served[0].config if name == "model" else "", label=name, visible=False)
            for name in ("model", "question", "text", "method", "layer")
        ),
    ]
    outputs = [gr.JSON(label="record", visible=False), gr.Image(label="strip", format="png", visible=False)]
    gr.Button(visible=False).click(
        explain,
        inputs,
        outputs,
        api_name="explain",
        api_description="Explain a picture: words, scores and maps as JSON, and the strip.",
        concurrency_id="model",
        concurrency_limit=2,
    )
