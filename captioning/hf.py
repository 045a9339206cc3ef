"""Captions and answers of Hugging Face's vision-language models, word by word."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from mmcam.huggingface.families import Family
from mmcam.huggingface.targets import rather_than, worded
from mmcam.huggingface.task import Generation, HFTask, Source, others
from mmcam.task import Batch, Sample, Targets


class HFCaptioningTask(HFTask):
    """Explain the words that a model generates about a picture, or those of a text that the user gives.

    y of a word = Σ log p(token | picture, prompt, tokens before) over its tokens. The vision tower runs once a picture;
    the finished text is scored in one teacher-forced pass, and only what is above the tower is differentiated.

    A sample's own text (`--question`) is the prompt where it has one; so chat models answer questions word by word.
    """

    separator = " "

    def __init__(
        self,
        model: str | nn.Module,
        processor: Any = None,  # noqa: ANN401
        *,
        prompt: str = "",
        layer: str | None = None,
        family: Family | None = None,
        source: Source | None = None,
        generation: Generation | None = None,
        grid: tuple[int, int] | None = None,
    ) -> None:
        """Make the task.

        Args:
            model: A hub id ("Salesforce/blip-image-captioning-base"), a folder, or a model of transformers.
            processor: Of a model that is given; loaded with one that is named.
            prompt: What comes before the caption: the words with which it begins (BLIP), or what a chat model is asked.
            layer: Name of a module whose output is explained; the family's own if not given.
            family: What is particular to a model without a row of its own in `mmcam.huggingface.families`.
            source: How a model that is named is loaded.
            generation: How the model speaks.
            grid: Height and width of all maps; each picture's own if not given, of which a dump holds one size only.

        Raises:
            UserError: There is no such model or layer, or its kind cannot be explained.
        """
        super().__init__(model, processor, layer=layer, family=family, source=source, generation=generation, grid=grid)
        self.prompt = prompt

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Let the model's own processor make its inputs; where each picture lies on the original is measured."""
        return self.speaker.reader.prepare(samples, [sample.text or self.prompt for sample in samples])

    def predict(self, activations: Float[Tensor, "b k h w"], batch: Batch) -> Targets:
        """The words that the model generates."""
        return worded(self.speaker.tokenizer, self.spoken(activations, batch), activations.device)

    def scores(self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets) -> Float[Tensor, "b t"]:
        """Log-probabilities of the tokens, whose sums are those of the words; less those of the foils."""
        return self.speaker.scores(activations, batch, targets)

    def probabilities(
        self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets
    ) -> Float[Tensor, "b t"]:
        """Of each token, given the picture, the prompt and the tokens before it."""
        return self.scores(activations, batch, replace(targets, foils=None)).exp()

    def runners_up(self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets) -> Targets:
        """The best other token after the same tokens."""
        ids = others(targets, self.log_probabilities(activations, batch, targets))
        return Targets.of(ids, self.token_names(ids), activations.device)

    def given(self, texts: Sequence[str], batch: Batch) -> Targets:
        """Turn texts into targets: "a dog on a bench", "a dog rather than cat on a bench".

        A text goes on after the prompt as the model's own would, with a space or without (`targets.spaced`); a space at
        its beginning is kept.

        Raises:
            UserError: A text has no word, or a contrasted word is of several tokens.
        """
        return rather_than(self.speaker, texts, batch)
