"""The models of hengyuan-hu/bottom-up-attention-vqa (after Teney et al., arXiv 1708.02711), and their task."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from mmcam.checkpoint import load_model
from mmcam.errors import UserError, unknown
from mmcam.task import Batch, Sample, Targets
from mmcam.text import pad
from vqa.models import VQAModel
from vqa.peers.boxes import Boxes, BoxFeatures, paint
from vqa.peers.words import PeerVocabulary, check_asked
from vqa.task import VQATask

__all__ = ["BottomUp", "BoxTask"]


class ProductAttention(nn.Module):
    """Votes linear in the product of box and question, each behind a layer of its own: baseline0_newatt."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.v_proj, self.q_proj = nn.Linear(channels, hidden), nn.Linear(hidden, hidden)
        self.linear = nn.Linear(hidden, 1)

    def forward(self, values: Float[Tensor, "b n k"], question: Float[Tensor, "b m q"]) -> Float[Tensor, "b m n"]:
        """One vote a box and question."""
        seen, asked = self.v_proj(values).relu(), self.q_proj(question).relu()
        return self.linear(seen[:, None] * asked[:, :, None]).squeeze(3)


class JoinedAttention(nn.Module):
    """Votes by a layer that sees box and question side by side: baseline0."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.nonlinear, self.linear = nn.Linear(channels + hidden, hidden), nn.Linear(hidden, 1)

    def forward(self, values: Float[Tensor, "b n k"], question: Float[Tensor, "b m q"]) -> Float[Tensor, "b m n"]:
        """One vote a box and question."""
        count, boxes = question.shape[1], values.shape[1]
        both = torch.cat([values[:, None].expand(-1, count, -1, -1), question[:, :, None].expand(-1, -1, boxes, -1)], 3)
        return self.linear(self.nonlinear(both).relu()).squeeze(3)


ATTENTION = {"product": ProductAttention, "joined": JoinedAttention}


class BottomUp(VQAModel, PyTorchModelHubMixin, library_name="mmcam"):
    """A GRU, attention over boxes, and the product of what is seen and what is asked.

    Weight normalisation is written out, and dropout left out: the model is here to be explained.
    """

    def __init__(
        self,
        vocabulary: list[str],
        answers: list[str],
        attention: str = "product",
        channels: int = 2048,
        embedding: int = 300,
        hidden: int = 1024,
        length: int = 14,
    ) -> None:
        """Make the model with random weights.

        Args:
            vocabulary: The words of questions in the order of their numbers, without padding.
            answers: The answers in the order of the logits.
            attention: "product" (baseline0_newatt) or "joined" (baseline0).
            channels: Length of a box's features.
            embedding: Length of word vectors.
            hidden: Length of the GRU's state, and of the product.
            length: Of all questions, with padding in front.

        Raises:
            UserError: There is no such attention.
        """
        if attention not in ATTENTION:
            raise unknown("attention", attention, ATTENTION)
        words = PeerVocabulary([*vocabulary, "<pad>"], unknown=len(vocabulary))
        super().__init__(Boxes(channels), words, answers)
        self.length = length
        self.hear = nn.Embedding(len(words), embedding, padding_idx=len(vocabulary))
        self.gru = nn.GRU(embedding, hidden, batch_first=True)
        self.attention = ATTENTION[attention](channels, hidden)
        self.question, self.image = nn.Linear(hidden, hidden), nn.Linear(channels, hidden)
        self.readout = nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, len(answers)))

    def number(self, questions: Sequence[str]) -> tuple[Int[Tensor, "b t"], Int[Tensor, " b"]]:
        """Lower case, without commas and question marks, 's apart, split at white space, the first 14 words.

        Raises:
            UserError: A question has no words, or one that the model does not know; it has none for such.
        """
        check_asked(questions)
        rows = [re.sub("[,?]", "", question.lower()).replace("'s", " 's").split() for question in questions]
        if not all(rows):
            raise UserError("expected a question with words, got one of question marks and commas alone")
        numbers = [self.vocabulary.encode_known(row, "word of a question")[: self.length] for row in rows]
        return pad(numbers, self.length)

    def take_in(self, vectors: Float[Tensor, "b t e"], lengths: Int[Tensor, " b"]) -> Float[Tensor, "b q"]:
        """The GRU's last output, the padding brought to the front."""
        place = torch.arange(self.length, device=vectors.device) - self.length + lengths.to(vectors.device)[:, None]
        moved = vectors.gather(1, place.clamp(min=0)[..., None].expand(-1, -1, vectors.shape[2]))
        padding = self.hear.weight[len(self.vocabulary) - 1].to(vectors.dtype)
        return self.gru(torch.where(place[..., None] < 0, padding, moved))[0][:, -1]

    def answer(
        self, activations: Float[Tensor, "b k n 1"], memo: dict[str, Any], question: Float[Tensor, "bm q"]
    ) -> Float[Tensor, "bm a"]:
        """Look, multiply, classify."""
        values = activations.flatten(2).mT
        asked = question.unflatten(0, (len(values), -1))
        seen = self.attention(values, asked).softmax(2) @ values  # (b, m, k)
        return self.readout(self.question(asked).relu() * self.image(seen).relu()).flatten(0, 1)


class BoxTask(VQATask):
    """Explain answers that were found by looking at boxes: maps are scores of boxes, painted on the picture.

    What is explained is the features of the boxes (b, k, n, 1), so the α of Grad-CAM is the mean over boxes. A pixel
    shows the highest score of the boxes over it. The features are computed beforehand: methods and metrics that change
    the picture change features of boxes instead, or nothing.
    """

    def __init__(self, model: str | BottomUp, features: str, pictures: str, top_k: int = 1) -> None:
        """Make the task.

        Args:
            model: The model, or a folder of one.
            features: The HDF5 file with the boxes' features, see `vqa.peers.boxes.BoxFeatures`.
            pictures: The pickle from pictures' numbers to its rows.
            top_k: How many of the most probable answers are explained.

        Raises:
            UserError: There is no such model or file, the features have another length, or `top_k` is out of range.
        """
        found = load_model(model, (BottomUp,)) if isinstance(model, str) else model
        super().__init__(found, top_k)
        self.features = BoxFeatures(features, pictures)
        if self.features.shape[2] != found.backbone.channels:
            raise UserError(
                f"{features}: expected features of length {found.backbone.channels}, got {self.features.shape[2]}"
            )

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Look up the boxes of pictures, and bring questions into numbers.

        Raises:
            UserError: There are no features of a picture, or a question is empty or holds a word that is not known.
        """
        numbers, lengths = self.model.number([sample.text for sample in samples])
        found = [self.features.of(sample.id, (sample.image.height, sample.image.width)) for sample in samples]
        return Batch(
            images=torch.stack([features.T[..., None] for features, _ in found]),
            ids=tuple(sample.id for sample in samples),
            sizes=tuple((sample.image.height, sample.image.width) for sample in samples),
            texts=tuple(sample.text for sample in samples),
            inputs={"words": numbers, "lengths": lengths, "boxes": torch.stack([boxes for _, boxes in found])},
        )

    def laid(self, maps: Float[Tensor, "b r n 1"], batch: Batch) -> Sequence[Float[Tensor, "r y x"]]:
        """The boxes' scores, painted."""
        boxes = batch.inputs["boxes"].to(maps.device)
        return [paint(m.squeeze(2), b, size) for m, b, size in zip(maps, boxes, batch.sizes, strict=True)]

    def probabilities(
        self, activations: Float[Tensor, "b k n 1"], batch: Batch, targets: Targets
    ) -> Float[Tensor, "b t"]:
        """Of each answer, whatever the others': the model learnt them one by one, with a sigmoid."""
        return self.scores(
            activations, batch, Targets(targets.ids, targets.mask, targets.words, targets.rows)
        ).sigmoid()

    def log_probabilities_heard(
        self, activations: Float[Tensor, "b k n 1"], batch: Batch, targets: Targets, vectors: Float[Tensor, "bm l d"]
    ) -> Float[Tensor, "bm t"]:
        """Of each answer, less those of the foils."""
        index, logits = self._logits_heard(activations, batch, vectors)
        return targets.take(index).pick(logsigmoid(logits))
