"""What a tiny model is, and how its weights are drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from PIL import Image

if TYPE_CHECKING:  # transformers takes seconds to import, and pytest collects this module for every run
    from transformers import BatchFeature, PreTrainedModel, PreTrainedTokenizerFast
    from transformers.image_processing_base import ImageProcessingMixin

QUESTION = "what is left of the dog?"

CHAT = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}{{ ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}answer:{% endif %}"
)


@dataclass(frozen=True)
class Tiny:
    """A family's model in miniature.

    Attributes:
        model: In eval mode, float32, with seeded random weights.
        processor: Turns `images` and `text` into the model's inputs; has `tokenizer` and `image_processor`.
        kind: "caption" (a text goes on from `prompt`), "vqa" (`prompt` is the question as asked), "chat" (`prompt` is
            what the processor's chat template makes of a picture and `QUESTION`) or "classes" (no text at all).
        prompt: What to hand to the processor as `text`; empty where the family takes none.
        size: Height and width of a picture to test with; not square.
        auto: Name of the auto class in transformers that opens the saved model.
    """

    model: "PreTrainedModel"
    processor: Any
    kind: Literal["caption", "vqa", "chat", "classes"]
    prompt: str
    size: tuple[int, int]
    auto: str


@dataclass(frozen=True)
class Pair:
    """Stands for a processor where transformers has none: checkpoints hold an image processor beside a tokenizer."""

    image_processor: "ImageProcessingMixin"
    tokenizer: Any = None

    def __call__(
        self,
        images: Image.Image | Sequence[Image.Image],
        text: str | Sequence[str] | None = None,
        return_tensors: str = "pt",
        **options: object,
    ) -> "BatchFeature":
        """Pixel values, and the ids of the text where one is given."""
        inputs = self.image_processor(images, return_tensors=return_tensors)
        if text and self.tokenizer is not None:
            inputs.update(self.tokenizer(text, return_tensors=return_tensors, **options))
        return inputs

    def save_pretrained(self, folder: str | Path) -> None:
        """Write both into one folder, as published checkpoints do."""
        self.image_processor.save_pretrained(folder)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)


def chat(image: str) -> tuple[str, str]:
    """A chat template with `image` for each picture, and what it makes of one picture and `QUESTION`."""
    return CHAT.replace("IMAGE", image + " "), f"user: {image} {QUESTION} answer:"


def drawn(
    model: "PreTrainedModel", words: "PreTrainedTokenizerFast | None" = None, spread: float = 0.15, seed: int = 0
) -> "PreTrainedModel":
    """The model in eval mode, with all weights drawn anew from a normal distribution of standard deviation `spread`.

    What transformers starts from another constant than zero (norms, scales of layers) stays; what it starts from zero
    (biases, gates, position embeddings) is drawn too, since a gate of zero would hide the picture. Overlapping
    convolutions (of odd width) weigh their middle most, as trained ones do, so that places stay where they are. With a
    tokenizer, the rows of the output layer for special tokens are zero: so the model says words, and as many as it may.
    """
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            first = weight.flatten()[0]
            if first == 0 or (weight != first).any():
                weight.copy_(torch.randn(weight.shape, generator=random) * spread)
            if weight.ndim == 4 and weight.shape[-1] % 2 and weight.shape[-1] > 1:
                hat = 1 - torch.linspace(-0.8, 0.8, weight.shape[-1]).abs()
                weight.mul_(3 * torch.outer(hat, hat) ** 2)
        head = model.get_output_embeddings() if words is not None else None
        if head is not None:
            for weight in head.parameters():
                weight[[*range(6), *words.added_tokens_decoder]] = 0
    return model.eval()
