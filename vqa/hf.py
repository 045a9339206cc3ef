"""Answers of Hugging Face's models to questions: chosen from a list (ViLT), or spoken (all others)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmcam.errors import UserError
from mmcam.huggingface.families import Family
from mmcam.huggingface.targets import spaced, tokens
from mmcam.huggingface.task import Generation, HFTask, Source, others
from mmcam.task import Batch, Sample, Targets
from vqa.answers import named


class HFVQATask(HFTask):
    """Explain answers: one row an answer, the model's own or one that the user gives.

    y of a spoken answer = Σ log p(token | picture, question, tokens before); of a chosen one its logit before softmax.
    The vision tower runs once a picture and is not differentiated. (Word by word: `captioning.hf.HFCaptioningTask`,
    whose prompt is the question.)
    """

    def __init__(
        self,
        model: str | nn.Module,
        processor: Any = None,  # noqa: ANN401
        *,
        asked: str = "{question}",
        top_k: int = 1,
        layer: str | None = None,
        family: Family | None = None,
        source: Source | None = None,
        generation: Generation | None = None,
        grid: tuple[int, int] | None = None,
    ) -> None:
        """Make the task.

        Args:
            model: A hub id ("Salesforce/blip-vqa-base"), a folder, or a model of transformers.
            processor: Of a model that is given; loaded with one that is named.
            asked: How a question is put, such as "answer en {question}" (PaliGemma) or "{question} Answer in one word."
            top_k: How many of the most probable answers are explained, of a model that chooses.
            layer: Name of a module whose output is explained; the family's own if not given.
            family: What is particular to a model without a row of its own in `mmcam.huggingface.families`.
            source: How a model that is named is loaded.
            generation: How the model speaks.
            grid: Height and width of all maps; each picture's own if not given, of which a dump holds one size only.

        Raises:
            UserError: There is no such model or layer, or its kind cannot be explained.
        """
        super().__init__(model, processor, layer=layer, family=family, source=source, generation=generation, grid=grid)
        if "{question}" not in asked:
            raise UserError(f"expected {{question}} somewhere in asked, got {asked!r}")
        self.asked = asked
        known: Mapping[int, str] = (getattr(self.speaker.config, "id2label", None) or {}) if self.chooses else {}
        self.answers = [known[number] for number in sorted(known)]
        if not 1 <= top_k <= max(1, len(self.answers)):
            most = len(self.answers) or "1, as a spoken answer stands in no list"
            raise UserError(f"expected top_k from 1 to {most}; got {top_k}")
        self.top_k = top_k

    @property
    def chooses(self) -> bool:
        """Whether answers are chosen from a list."""
        return self.speaker.speech == "classes"

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Let the model's own processor make its inputs.

        Raises:
            UserError: A question is empty.
        """
        if not all(sample.text.strip() for sample in samples):
            raise UserError("expected a question with every picture, got an empty one; give it with --question")
        prompts = [self.asked.replace("{question}", sample.text) for sample in samples]
        return self.speaker.reader.prepare(samples, prompts)

    def predict(self, activations: Float[Tensor, "b k h w"], batch: Batch) -> Targets:
        """The most probable answers, or the one that the model speaks."""
        if self.chooses:
            best = self.speaker.choices(activations, batch).topk(self.top_k).indices.tolist()
            return self._chosen(best, activations.device)
        return self._spoken(self.spoken(activations, batch), activations.device)

    def scores(self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets) -> Float[Tensor, "b t"]:
        """Logits of chosen answers; log-probabilities of the tokens of spoken ones; less those of the foils."""
        if self.chooses:
            return targets.pick(self.speaker.choices(activations, batch))
        return self.speaker.scores(activations, batch, targets)

    def probabilities(
        self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets
    ) -> Float[Tensor, "b t"]:
        """Of each answer among all that there are; of spoken ones that of each token after those before."""
        plain = replace(targets, foils=None)
        if not self.chooses:
            return self.scores(activations, batch, plain).exp()
        logits = self.speaker.choices(activations, batch)
        return plain.pick(logits.softmax(1, dtype=torch.promote_types(logits.dtype, torch.float32)))

    def runners_up(self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets) -> Targets:
        """The best other answer, or the best other token after the same tokens."""
        if self.chooses:
            return self._chosen(others(targets, self.speaker.choices(activations, batch)), activations.device)
        ids = others(targets, self.log_probabilities(activations, batch, targets))
        return Targets.of(ids, self.token_names(ids), activations.device)

    def given(self, texts: Sequence[str], batch: Batch) -> Targets:
        """Turn answers into targets; of a model that chooses also several: "cat, dog", "cat rather than dog".

        Raises:
            UserError: An answer has no word, or is not in the list of a model that chooses; names the nearest.
        """
        device = batch.images.device
        if not self.chooses:
            if any(" rather than " in text for text in texts):
                raise UserError(
                    "'a rather than b' needs a model that chooses its answer; of a spoken one contrast words "
                    "with captioning.hf.HFCaptioningTask"
                )
            gaps = spaced(self.speaker, batch)
            ids = [tokens(self.speaker, text, gap) for text, gap in zip(texts, gaps, strict=True)]
            return self._spoken(ids, device, [text.strip() for text in texts])
        return named(texts, self.answers, device)

    def _chosen(self, ids: Sequence[Sequence[int]], device: torch.device) -> Targets:
        return Targets.of(ids, [[self.answers[number] for number in row] for row in ids], device)

    def _spoken(
        self, ids: Sequence[Sequence[int]], device: torch.device, names: Sequence[str] | None = None
    ) -> Targets:
        decode = self.speaker.tokenizer.decode
        said = names or [decode(row, skip_special_tokens=True).strip() for row in ids]
        whole = Targets.of(ids, [["" for _ in row] for row in ids], device).sentence()
        return replace(whole, words=tuple((name,) if row else () for name, row in zip(said, ids, strict=True)))
