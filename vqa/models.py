"""Two VQA models: LSTM-Q + norm-I, the paper's form, and stacked attention.

Both give one logit an answer from the activations, differentiably; the question never touches the activations, so its
encoder may be the fused `nn.LSTM`.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize, pad, softplus
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mmcam.backbones import PLACES, backbone, place_code
from mmcam.checkpoint import load_model
from mmcam.text import Vocabulary


class VQAModel(nn.Module, ABC):
    """What `VQATask` needs of a VQA model.

    Attributes:
        backbone: The CNN, see `mmcam.backbones`.
        vocabulary: The words of questions.
        answers: The answers, in the order of the logits.
    """

    def __init__(self, backbone_name: str, vocabulary: list[str], answers: list[str]) -> None:
        super().__init__()
        self.backbone = backbone(backbone_name)
        self.vocabulary = Vocabulary(vocabulary)
        self.answers = tuple(answers)

    @abstractmethod
    def listen(self, words: Int[Tensor, "b t"], lengths: Int[Tensor, " b"]) -> Float[Tensor, "b q"]:
        """The question as a vector."""

    @abstractmethod
    def answer(
        self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any], question: Float[Tensor, "bm q"]
    ) -> Float[Tensor, "bm a"]:
        """One logit an answer; there may be m questions a picture, one picture's after the other's."""

    def forward(
        self, images: Float[Tensor, "b 3 x y"], words: Int[Tensor, "b t"], lengths: Int[Tensor, " b"]
    ) -> Float[Tensor, "b a"]:
        """One logit an answer."""
        activations, memo = self.backbone.trunk(images)
        return self.answer(activations, memo, self.listen(words, lengths))


class NormProduct(VQAModel, PyTorchModelHubMixin, library_name="mmcam", license="apache-2.0"):
    """Deeper LSTM-Q + norm-I (Antol et al., arXiv 1505.00468; the model that the Grad-CAM paper explains).

    The image vector, scaled to length 1, and the question vector (cell and hidden states of both LSTM layers) go
    through a tanh layer each; their product is the input of a linear classifier over answers.
    """

    def __init__(
        self,
        vocabulary: list[str],
        answers: list[str],
        backbone_name: str = "scenes",
        embedding: int = 200,
        hidden: int = 512,
        common: int = 1024,
        dropout: float = 0.5,
    ) -> None:
        """Make the model with random weights.

        Args:
            vocabulary: The words of questions in the order of their numbers.
            answers: The answers in the order of the logits.
            backbone_name: A CNN, see `mmcam.backbones.backbone`.
            embedding: Length of word vectors.
            hidden: Length of each LSTM layer's state.
            common: Length of the product.
            dropout: While training.
        """
        super().__init__(backbone_name, vocabulary, answers)
        self.hear = nn.Sequential(nn.Embedding(len(self.vocabulary), embedding), nn.Dropout(dropout), nn.Tanh())
        self.lstm = nn.LSTM(embedding, hidden, num_layers=2, batch_first=True)
        self.question = nn.Sequential(nn.Dropout(dropout), nn.Linear(4 * hidden, common), nn.Tanh())
        self.image = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.backbone.dim, common), nn.Tanh())
        self.readout = nn.Sequential(nn.Dropout(dropout), nn.Linear(common, len(answers)))

    def listen(self, words: Int[Tensor, "b t"], lengths: Int[Tensor, " b"]) -> Float[Tensor, "b q"]:
        """Cell and hidden states of both layers after the last word."""
        _, (h, c) = self.lstm(
            pack_padded_sequence(self.hear(words), lengths.cpu(), batch_first=True, enforce_sorted=False)
        )
        return torch.cat([c[0], h[0], c[1], h[1]], 1)

    def answer(
        self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any], question: Float[Tensor, "bm q"]
    ) -> Float[Tensor, "bm a"]:
        """Normalise, multiply, classify."""
        image = normalize(self.backbone.vector(activations, memo), dim=1)
        image = image.repeat_interleave(len(question) // len(image), 0)
        return self.readout(self.question(question) * self.image(image))


class StackedAttention(VQAModel, PyTorchModelHubMixin, library_name="mmcam", license="apache-2.0"):
    """Stacked co-attention (after Yang et al., arXiv 1511.02274, and Lu et al., arXiv 1606.00061), made to be explained.

    Look j first attends to the words of the question ("the dog"), then asks the picture with (q, r): a(x) = softmax(q·A(x) +
    r·P(x)). Words and places share one space: q is the words' own vector, as far as a gate lets it through, plus what a small
    network makes of it, of the whole question and of where the earlier looks went. What the last look saw is read off
    *linearly*, so the part of an answer's α that comes from it is that answer's row, as in CAM. Beside that, densities asked
    for by the question are summed over places, through a gate that is nearly shut until a question needs it (how many?), and a
    small network joins question, places and sums (where, whether, how many).

    Differs from the papers: dot-product attention instead of tanh layers, places, densities.
    """

    def __init__(
        self,
        vocabulary: list[str],
        answers: list[str],
        backbone_name: str = "scenes",
        hidden: int = 256,
        looks: int = 2,
        densities: int = 4,
        dropout: float = 0.1,
    ) -> None:
        """Make the model with random weights.

        Args:
            vocabulary: The words of questions in the order of their numbers.
            answers: The answers in the order of the logits.
            backbone_name: A CNN, see `mmcam.backbones.backbone`.
            hidden: Length of the question vector and of hidden layers.
            looks: How many times the model looks, one after another.
            densities: How many sums over places it can ask for.
            dropout: While training.
        """
        super().__init__(backbone_name, vocabulary, answers)
        channels = self.backbone.channels
        self.densities = densities
        self.hear = nn.Embedding(len(self.vocabulary), channels)
        self.lstm = nn.LSTM(channels, hidden, batch_first=True)
        self.notice = nn.Linear(channels + hidden + 1, looks)
        self.repeat = nn.Linear(hidden, looks)
        self.compare = nn.Linear(hidden, PLACES)
        self.ask = nn.ModuleList(
            _network(channels + hidden + j * PLACES, hidden, channels + PLACES, dropout) for j in range(looks)
        )
        self.count = nn.Linear(hidden, densities * (channels + 1))
        self.gate = nn.Linear(hidden, 1)
        nn.init.constant_(self.gate.bias, -2.0)
        self.join = _network(hidden + (looks + 1) * PLACES + 2 * densities, 2 * hidden, len(answers), dropout)
        self.readout = nn.Linear(channels, len(answers), bias=False)

    def listen(self, words: Int[Tensor, "b t"], lengths: Int[Tensor, " b"]) -> Float[Tensor, "b q"]:
        """The LSTM's state after the last word, then for each look the words that it attends to."""
        heard = self.hear(words)  # (b, t, e)
        packed = pack_padded_sequence(heard, lengths.cpu(), batch_first=True, enforce_sorted=False)
        outputs, (h, _) = self.lstm(packed)
        outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=words.shape[1])
        padding = torch.arange(words.shape[1], device=words.device) >= lengths[:, None].to(words.device)
        order = torch.arange(words.shape[1], device=words.device) / lengths[:, None].to(words.device)  # 0 to 1
        notice = self.notice(torch.cat([heard, outputs, order[..., None].to(heard.dtype)], 2)).masked_fill(padding[..., None], -torch.inf)  # (b, t, looks)
        noticed = notice.softmax(1).mT @ heard  # (b, looks, e)
        return torch.cat([h[0], noticed.flatten(1)], 1)

    def answer(
        self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any], question: Float[Tensor, "bm q"]
    ) -> Float[Tensor, "bm a"]:
        """Look, look again, count, answer."""
        values = activations.flatten(2)  # (b, k, n)
        ground = torch.cat([values, place_code(activations).expand(len(values), -1, -1)], 1)  # (b, k + p, n)
        looks, width = len(self.ask), self.hear.embedding_dim
        known, noticed = question.unflatten(0, (len(values), -1)).split([self.lstm.hidden_size, looks * width], 2)
        asked = self.count(known).unflatten(2, (self.densities, -1))  # (b, m, densities, k + 1)
        density = softplus(asked[..., :-1].flatten(1, 2) @ values + asked[..., -1:].flatten(1, 2) - 5).sum(2)
        density = density.unflatten(1, asked.shape[1:3])  # (b, m, densities)
        counted = torch.cat([density, (density + 0.1).log()], 2) * self.gate(known).sigmoid()
        repeat, compare = self.repeat(known).sigmoid(), self.compare(known)
        seen, found = known, []
        for j, (ask, words) in enumerate(zip(self.ask, noticed.split(width, 2), strict=True)):
            query = ask(torch.cat([words, known], 2)) + repeat[..., j, None] * pad(words, (0, PLACES))  # (b, m, k + p)
            look = (query @ ground).softmax(2)  # (b, m, n)
            seen, where = (look @ ground.mT).split([values.shape[1], PLACES], 2)
            known, found = torch.cat([known, where], 2), [*found, where]
        between = compare * (found[-1] - found[0])  # the way from the first thing to the last, weighed by the question
        return (self.join(torch.cat([known, between, counted], 2)) + self.readout(seen)).flatten(0, 1)


def _network(inputs: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, outputs))


def load(name: str) -> VQAModel:
    """Load a VQA model.

    Args:
        name: Shipped weights, a folder, or a hub id.

    Returns:
        The model, in eval mode.
    """
    return load_model(name, (NormProduct, StackedAttention))
