"""Captions and answers of Hugging Face's vision-language models, word by word."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmcam.errors import UserError
from mmcam.huggingface.load import pretrained
from mmcam.huggingface.speaker import Speaker
from mmcam.huggingface.targets import rather_than, worded
from mmcam.task import Batch, Sample, Targets, Task


class HFCaptioningTask(Task):
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
        length: int = 30,
        beam: int = 1,
        generation: Mapping[str, Any] | None = None,
        seed: int = 0,
        revision: str | None = None,
        dtype: str = "auto",
        device_map: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        """Make the task.

        Args:
            model: A hub id ("Salesforce/blip-image-captioning-base"), a folder, or a model of transformers.
            processor: Of a model that is given; loaded with one that is named.
            prompt: What comes before the caption: the words with which it begins (BLIP), or what a chat model is asked.
            layer: Name of a module whose output is explained; the family's own if not given.
            length: Most tokens of a generated text.
            beam: Hypotheses that generation keeps; 1 is greedy.
            generation: Other options of `generate`, such as {do_sample: true, temperature: 0.7}.
            seed: For sampling; the caller's random state is left alone.
            revision: Commit, branch or tag on the hub.
            dtype: "auto", "float32", "bfloat16" or "float16".
            device_map: As transformers takes it.
            trust_remote_code: Let a repository's own code run; refused unless it is asked for.

        Raises:
            UserError: There is no such model or layer, or its kind cannot be explained.
        """
        super().__init__()
        if isinstance(model, str):
            model, processor = pretrained(model, revision, trust_remote_code, dtype, device_map)
        if processor is None:
            raise UserError("expected a processor with a model that is made already; give processor=")
        self.model = model.eval()
        self.speaker = Speaker(model, processor, layer=layer)
        self.layer = self.speaker.layer
        self.prompt = prompt
        self.options = {"max_new_tokens": length, "num_beams": beam, "do_sample": False, **(generation or {})}
        self.seed = seed

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Let the model's own processor make its inputs; where each picture lies on the original is measured."""
        return self.speaker.prepare(samples, [sample.text or self.prompt for sample in samples])

    def trunk(self, batch: Batch) -> Float[Tensor, "b k h w"]:
        """The vision tower's output, on a canvas."""
        return self.speaker.see(batch)

    def predict(self, activations: Float[Tensor, "b k h w"], batch: Batch) -> Targets:
        """The words that the model generates."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            said = self.speaker.say(activations, batch, **self.options)
        return worded(self.speaker.tokenizer, said, activations.device)

    def scores(self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets) -> Float[Tensor, "b t"]:
        """Log-probabilities of the tokens, whose sums are those of the words; less those of the foils."""
        if targets.ids.shape[1] == 0:
            return activations.new_zeros(targets.ids.shape)
        return targets.pick(self.speaker.logs(activations, batch, targets.ids, targets.mask))

    def probabilities(
        self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets
    ) -> Float[Tensor, "b t"]:
        """Of each token, given the picture, the prompt and the tokens before it."""
        return self.scores(activations, batch, replace(targets, foils=None)).exp()

    def runners_up(self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets) -> Targets:
        """The best other token after the same tokens."""
        others = targets.second(self.speaker.logs(activations, batch, targets.ids, targets.mask)).tolist()
        ids = [row[:count] for row, count in zip(others, targets.mask.sum(1).tolist(), strict=True)]
        names = [[self.speaker.tokenizer.decode([number]).strip() for number in row] for row in ids]
        return Targets.of(ids, names, activations.device)

    def given(self, texts: Sequence[str], batch: Batch) -> Targets:
        """Turn texts into targets: "a dog on a bench", "a dog rather than cat on a bench".

        Raises:
            UserError: A text is empty, or a contrasted word is of several tokens.
        """
        return rather_than(self.speaker, texts, batch.images.device)

    def laid(self, maps: Float[Tensor, "b r h w"], batch: Batch) -> Sequence[Float[Tensor, "r y x"]]:
        """Tiles, packed and padded pictures brought over the originals."""
        return self.speaker.lay(maps, batch)
