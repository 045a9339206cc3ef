"""The VQA task: the score of an answer is its logit before softmax, given picture and question."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmcam.errors import UserError
from mmcam.networks.cut import Trunk
from mmcam.task import Batch, Heard, Sample, Targets, Task
from vqa.answers import named
from vqa.load import load
from vqa.models import VQAModel


class VQATask(Task):
    """Explain the answers to questions: the model's best ones, or those that the user gives.

    Differs from the paper's code: an answer that the model does not know is an error, never silently another answer;
    and a question's word that it does not know is one too.
    """

    seeing = ("model.backbone",)  # its fully connected layers; what joins picture and question is not

    def __init__(self, model: str | VQAModel, top_k: int = 1, layer: str | None = None) -> None:
        """Make the task.

        Args:
            model: A VQA model, or the name of shipped weights, a folder or a hub id of one.
            top_k: How many of the most probable answers are explained.
            layer: Name of the explained layer of the CNN ("features.10"); its last map if not given.

        Raises:
            UserError: There is no such model or layer, or `top_k` is out of range.
        """
        super().__init__()
        self.model = load(model) if isinstance(model, str) else model
        self.model.eval()
        if not 1 <= top_k <= len(self.model.answers):
            raise UserError(f"expected top_k from 1 to {len(self.model.answers)}, the number of answers; got {top_k}")
        self.top_k = top_k
        self._trunk = Trunk(self.model.backbone, layer)
        self.layer = self._trunk.layer

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Bring pictures to the network's size and questions into numbers, as the model wants them.

        Raises:
            UserError: A question is empty or holds a word that the model does not know.
        """
        numbers, lengths = self.model.number([sample.text for sample in samples])
        seen = [self.model.see(sample.image) for sample in samples]
        return Batch(
            images=torch.stack([image for image, _ in seen]),
            ids=tuple(sample.id for sample in samples),
            sizes=tuple((sample.image.height, sample.image.width) for sample in samples),
            texts=tuple(sample.text for sample in samples),
            windows=tuple(window for _, window in seen),
            inputs={"words": numbers, "lengths": lengths},
        )

    def trunk(self, batch: Batch) -> Float[Tensor, "b k h w"]:
        """The CNN's last feature map, or that of the layer."""
        activations, memo = self._trunk.below(batch.images)
        batch.memo.update(memo)
        return activations

    def predict(self, activations: Float[Tensor, "b k h w"], batch: Batch) -> Targets:
        """The most probable answers, the best first."""
        best = self._logits(activations, batch).topk(self.top_k, 1).indices.tolist()
        return self._targets(best, activations.device)

    def scores(self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets) -> Float[Tensor, "b t"]:
        """Logits of the answers, less those of the foils."""
        return targets.pick(self._logits(activations, batch))

    def probabilities(
        self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets
    ) -> Float[Tensor, "b t"]:
        """Of each answer, among all that the model knows."""
        logits = self._logits(activations, batch)
        probabilities = logits.softmax(1, dtype=torch.promote_types(logits.dtype, torch.float32))
        return replace(targets, foils=None).pick(probabilities)

    def heard(self, batch: Batch, targets: Targets) -> Heard:
        """The words of the question; every answer hears all of them."""
        numbers, known = batch.inputs["words"], self.model.vocabulary.words
        questions = zip(numbers.tolist(), batch.inputs["lengths"].tolist(), strict=True)
        words = tuple(tuple(known[number] for number in row[:length]) for row, length in questions)
        return Heard(words, self.model.hear(numbers))

    def scores_heard(
        self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets, vectors: Float[Tensor, "bm l d"]
    ) -> Float[Tensor, "bm t"]:
        """The same logits, from the vectors of the question's words."""
        index, logits = self._logits_heard(activations, batch, vectors)
        return targets.take(index).pick(logits)

    def log_probabilities_heard(
        self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets, vectors: Float[Tensor, "bm l d"]
    ) -> Float[Tensor, "bm t"]:
        """Of each answer, among all that the model knows, less those of the foils."""
        index, logits = self._logits_heard(activations, batch, vectors)
        logs = logits.log_softmax(1, dtype=torch.promote_types(logits.dtype, torch.float32))
        return targets.take(index).pick(logs)

    def runners_up(self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets) -> Targets:
        """The best other answer to the same question."""
        others = targets.second(self._logits(activations, batch)).tolist()
        counts = targets.mask.sum(1).tolist()
        return self._targets([row[:count] for row, count in zip(others, counts, strict=True)], activations.device)

    def given(self, texts: Sequence[str], batch: Batch) -> Targets:
        """Turn "cat", "cat, dog" or "cat rather than dog" into targets.

        Raises:
            UserError: An answer is not among those of the model; names the nearest ones.
        """
        return named([text.lower() for text in texts], self.model.answers, batch.images.device)

    @torch.no_grad()
    def answers(self, batch: Batch) -> list[str]:
        """The most probable answer of each sample, without explaining it."""
        best = self._logits(self.trunk(batch), batch).argmax(1).tolist()
        return [self.model.answers[number] for number in best]

    def _logits(self, activations: Float[Tensor, "b k h w"], batch: Batch) -> Float[Tensor, "b a"]:
        with torch.no_grad():  # the question does not depend on the picture
            question = self.model.listen(batch.inputs["words"], batch.inputs["lengths"])
        return self._answer(activations, batch, question)

    def _logits_heard(
        self, activations: Float[Tensor, "b k h w"], batch: Batch, vectors: Float[Tensor, "bm l d"]
    ) -> tuple[Int[Tensor, " bm"], Float[Tensor, "bm a"]]:
        """To which sample each question belongs, and its logits."""
        index = torch.arange(len(batch), device=vectors.device).repeat_interleave(len(vectors) // max(1, len(batch)))
        question = self.model.take_in(vectors, batch.inputs["lengths"].to(index.device)[index])
        return index, self._answer(activations, batch, question)

    def _answer(
        self, activations: Float[Tensor, "b k h w"], batch: Batch, question: Float[Tensor, "bm q"]
    ) -> Float[Tensor, "bm a"]:
        activations, memo = self._trunk.above(activations, batch.memo)
        return self.model.answer(activations, memo, question.to(activations.dtype))

    def _targets(self, ids: Sequence[Sequence[int]], device: torch.device) -> Targets:
        return Targets.of(ids, [[self.model.answers[number] for number in row] for row in ids], device)
