"""The model of tbmoon/basic_vqa: VGG-19 and a two-layer LSTM, multiplied (after Antol et al., arXiv 1505.00468)."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from mmcam.errors import UserError
from mmcam.image import Window, to_tensor
from mmcam.text import pad
from vqa.models import VQAModel
from vqa.peers.vgg import PlainVGG
from vqa.peers.words import PeerVocabulary, check_asked

__all__ = ["BasicVQA"]


class BasicVQA(VQAModel, PyTorchModelHubMixin, library_name="mmcam"):
    """VGG's last vector but one, scaled to length 1, times the LSTM's states; then two small layers.

    As in the original the image vector's length counts as a constant in the gradient, and the LSTM hears the padding.
    The original computes VGG without a graph; here there is one. Dropout is left out: the model is here to be
    explained. One of the answers is "<unk>", for all that are not among them.
    """

    def __init__(
        self,
        vocabulary: list[str],
        answers: list[str],
        stages: list[list[int]],
        dim: int = 4096,
        embedding: int = 300,
        hidden: int = 512,
        layers: int = 2,
        common: int = 1024,
        length: int = 30,
    ) -> None:
        """Make the model with random weights.

        Args:
            vocabulary: The words of questions in the order of their numbers; the first pads, "<unk>" is among them.
            answers: The answers in the order of the logits.
            stages: The channels of VGG's convolutions, between poolings.
            dim: Length of VGG's vectors.
            embedding: Length of word vectors.
            hidden: Length of each LSTM layer's state.
            layers: Of the LSTM.
            common: Length of the product.
            length: Of all questions, with their padding.

        Raises:
            UserError: There is no unknown word.
        """
        if "<unk>" not in vocabulary:
            raise UserError("expected '<unk>' among the words of questions, got none; give vocab_questions.txt")
        super().__init__(PlainVGG(stages, dim), PeerVocabulary(vocabulary, vocabulary.index("<unk>")), answers)
        self.length = length
        self.hear = nn.Sequential(nn.Embedding(len(vocabulary), embedding), nn.Tanh())
        self.lstm = nn.LSTM(embedding, hidden, num_layers=layers, batch_first=True)
        self.question = nn.Linear(2 * layers * hidden, common)
        self.image = nn.Linear(dim, common)
        self.readout = nn.Sequential(nn.Linear(common, len(answers)), nn.Tanh(), nn.Linear(len(answers), len(answers)))

    def see(self, image: Image.Image) -> tuple[Float[Tensor, "3 x y"], Window]:
        """The whole picture, squashed to a square by Lanczos' filter."""
        cnn = self.backbone
        window = (0.0, 0.0, float(image.height), float(image.width))
        return to_tensor(image, cnn.size, cnn.mean, cnn.std, "lanczos"), window

    def number(self, questions: Sequence[str]) -> tuple[Int[Tensor, "b t"], Int[Tensor, " b"]]:
        """Lower case, words and what stands between them, padded at the end.

        Raises:
            UserError: A question is empty or too long.
        """
        check_asked(questions)
        rows = [
            [part.strip() for part in re.split(r"(\W+)", question.lower()) if part.strip()] for question in questions
        ]
        for question, row in zip(questions, rows, strict=True):
            if len(row) > self.length:
                raise UserError(f"expected a question of at most {self.length} words, got {len(row)}: {question!r}")
        return pad([self.vocabulary.encode(row) for row in rows], self.length)

    def take_in(self, vectors: Float[Tensor, "b t e"], lengths: Int[Tensor, " b"]) -> Float[Tensor, "b q"]:
        """Hidden and cell states of all layers after the last word, real or not."""
        states = torch.stack(self.lstm(vectors)[1], 2)  # (layer, b, 2, hidden)
        return self.question(states.transpose(0, 1).flatten(1).tanh())

    def answer(
        self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any], question: Float[Tensor, "bm q"]
    ) -> Float[Tensor, "bm a"]:
        """VGG's fully connected layers, then the product."""
        return self.join(self.backbone.vector(activations, memo), question)

    def join(self, vector: Float[Tensor, "b d"], question: Float[Tensor, "bm q"]) -> Float[Tensor, "bm a"]:
        """Normalise, multiply, classify.

        Args:
            vector: What VGG's last layer would see.
            question: m a picture.
        """
        image = self.image(vector)
        image = image / image.norm(dim=1, keepdim=True).detach()
        return self.readout((image.repeat_interleave(len(question) // len(image), 0) * question).tanh())
