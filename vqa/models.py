"""Two VQA models: LSTM-Q + norm-I, the paper's form, and stacked attention.

Both give one logit an answer from the activations, differentiably; the question never touches the activations, so its
encoder may be the fused `nn.LSTM`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mmcam.errors import UserError
from mmcam.image import Window, to_tensor
from mmcam.networks.backbones import backbone
from mmcam.networks.looking import lay_out, soft_maximum
from mmcam.networks.places import PLACES, place_code
from mmcam.networks.scene_cnn import SPARSE
from mmcam.text import Vocabulary, pad, tokenise


class VQAModel(nn.Module, ABC):
    """What `VQATask` needs of a VQA model.

    Attributes:
        backbone: The CNN, see `mmcam.networks.backbones`.
        vocabulary: The words of questions.
        answers: The answers, in the order of the logits.
        hear: From words' numbers to vectors, an embedding or what begins with one.
    """

    hear: Any

    def __init__(self, cnn: str | nn.Module, vocabulary: list[str] | Vocabulary, answers: list[str]) -> None:
        super().__init__()
        self.backbone: Any = backbone(cnn) if isinstance(cnn, str) else cnn
        self.vocabulary = vocabulary if isinstance(vocabulary, Vocabulary) else Vocabulary(vocabulary)
        self.answers = tuple(answers)

    def see(self, image: Image.Image) -> tuple[Float[Tensor, "3 x y"], Window]:
        """The network's input, and which part of the picture it shows: all of it, squashed to the network's size."""
        cnn = self.backbone
        return to_tensor(image, cnn.size, cnn.mean, cnn.std), (0.0, 0.0, float(image.height), float(image.width))

    def number(self, questions: Sequence[str]) -> tuple[Int[Tensor, "b t"], Int[Tensor, " b"]]:
        """Questions as numbers of words, padded, and how many words each has.

        Raises:
            UserError: A question is empty or holds a word that the model does not know.
        """
        words = [tokenise(question) for question in questions]
        if not all(words):
            raise UserError("expected a question with every picture, got an empty one; give it with --question")
        return pad([self.vocabulary.encode_known(row, "word of a question") for row in words])

    def listen(self, words: Int[Tensor, "b t"], lengths: Int[Tensor, " b"]) -> Float[Tensor, "b q"]:
        """The question as a vector."""
        return self.take_in(self.hear(words), lengths)

    @abstractmethod
    def take_in(self, vectors: Float[Tensor, "b t e"], lengths: Int[Tensor, " b"]) -> Float[Tensor, "b q"]:
        """The question as a vector, from its words' vectors and differentiable in them."""

    @abstractmethod
    def answer(
        self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any], question: Float[Tensor, "bm q"]
    ) -> Float[Tensor, "bm a"]:
        """One logit an answer; there may be m questions a picture, one picture's after the other's."""

    def forward(
        self, images: Float[Tensor, "b 3 x y"], words: Int[Tensor, "bm t"], lengths: Int[Tensor, " bm"]
    ) -> Float[Tensor, "bm a"]:
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
            backbone_name: A CNN, see `mmcam.networks.backbones.backbone`.
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

    def take_in(self, vectors: Float[Tensor, "b t e"], lengths: Int[Tensor, " b"]) -> Float[Tensor, "b q"]:
        """Cell and hidden states of both layers after the last word."""
        _, (h, c) = self.lstm(pack_padded_sequence(vectors, lengths.cpu(), batch_first=True, enforce_sorted=False))
        return torch.cat([c[0], h[0], c[1], h[1]], 1)

    def answer(
        self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any], question: Float[Tensor, "bm q"]
    ) -> Float[Tensor, "bm a"]:
        """Normalise, multiply, classify."""
        image = normalize(self.backbone.vector(activations, memo), dim=1)
        image = image.repeat_interleave(len(question) // len(image), 0)
        return self.readout(self.question(question) * self.image(image))


class StackedAttention(VQAModel, PyTorchModelHubMixin, library_name="mmcam", license="apache-2.0"):
    """Stacked co-attention (after Yang et al., arXiv 1511.02274, and Lu et al., arXiv 1606.00061), to be explained.

    1. Two look-ups. Each attends to words of the question ("the dog") and looks where the picture answers to them:
       words and places share one space, a(x) = softmax(q·A(x)) with q the words' vector.
    2. One search, a(x) = softmax(q·A(x) + r·P(x)), with (q, r) made of the question and of where the look-ups went.
       What speaks for answer v there is a soft maximum over places with a floor far below it,
       e_v = 1/s · log (e^(s·c) + Σ_x a(x) exp(s · W_v·A(x))); as in `captioning.AttendAndTell` the spatial mean of
       ∂e_v/∂A is W_v / Z. Answers are read linearly off the evidence (an animal is a dog or a cat or …).
    3. Densities that the question asks for are summed over places (how many?), through a gate that is nearly shut
       until a question needs it; they alone add to the spatial mean of an answer's gradient. A small network joins
       question, places and sums (where, whether, how many).

    Differs from the papers: dot-product attention instead of tanh layers, places, soft maxima, densities.
    """

    def __init__(
        self,
        vocabulary: list[str],
        answers: list[str],
        backbone_name: str = "scenes",
        hidden: int = 256,
        densities: int = 4,
        dropout: float = 0.1,
    ) -> None:
        """Make the model with random weights.

        Args:
            vocabulary: The words of questions in the order of their numbers.
            answers: The answers in the order of the logits.
            backbone_name: A CNN, see `mmcam.networks.backbones.backbone`.
            hidden: Length of the question vector and of hidden layers.
            densities: How many sums over places it can ask for.
            dropout: While training.
        """
        super().__init__(backbone_name, vocabulary, answers)
        channels = self.backbone.channels
        self.densities = densities
        self.hear = nn.Embedding(len(self.vocabulary), channels)
        nn.init.normal_(self.hear.weight, std=0.1)  # words that the picture answers to shall stand out
        self.lstm = nn.LSTM(channels, hidden, batch_first=True)
        self.notice = nn.Linear(channels + hidden + 1, LOOKUPS)
        with torch.no_grad():  # the first look-up prefers early words, the second late ones
            self.notice.weight[:, -1] = torch.tensor([-6.0, 6.0])
        self.search = _network(hidden + LOOKUPS * PLACES, hidden, channels + PLACES, dropout)
        self.compare = nn.Linear(hidden, PLACES)
        self.count = nn.Linear(hidden, densities * (channels + 1))
        self.gate = nn.Linear(hidden, 1)
        nn.init.constant_(self.gate.bias, -2.0)
        self.join = _network(hidden + (LOOKUPS + 2) * PLACES + 2 * densities, 2 * hidden, len(answers), dropout)
        self.evidence = nn.Conv2d(channels, len(answers), 1)
        self.readout = nn.Linear(len(answers), len(answers), bias=False)
        with torch.no_grad():
            self.readout.weight.copy_(torch.eye(len(answers)))

    def take_in(self, vectors: Float[Tensor, "b t e"], lengths: Int[Tensor, " b"]) -> Float[Tensor, "b q"]:
        """The LSTM's state after the last word, then for each look-up the words that it attends to."""
        packed = pack_padded_sequence(vectors, lengths.cpu(), batch_first=True, enforce_sorted=False)
        outputs, (h, _) = self.lstm(packed)
        outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=vectors.shape[1])
        place = torch.arange(vectors.shape[1], device=vectors.device)
        order = (place / lengths[:, None].to(vectors.device)).to(vectors.dtype)  # 0 to 1
        notice = self.notice(torch.cat([vectors, outputs, order[..., None]], 2))  # (b, t, 2)
        notice = notice.masked_fill((order >= 1)[..., None], -torch.inf).softmax(1)
        return torch.cat([h[0], (notice.mT @ vectors).flatten(1)], 1)

    def answer(
        self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any], question: Float[Tensor, "bm q"]
    ) -> Float[Tensor, "bm a"]:
        """Look up, search, count, answer."""
        values = activations.flatten(2)  # (b, k, n)
        places = place_code(activations)  # (p, n)
        known, words = question.unflatten(0, (len(values), -1)).split(
            [self.lstm.hidden_size, LOOKUPS * len(values[0])], 2
        )
        lookups = [(query @ values).softmax(2) @ places.T for query in words.chunk(LOOKUPS, 2)]  # (b, m, p) each
        ask, at = self.search(torch.cat([known, *lookups], 2)).split([len(values[0]), PLACES], 2)
        look = (ask @ values + at @ places).softmax(2)  # (b, m, n)
        seen = soft_maximum(look, lay_out(self.evidence(activations).flatten(2)))  # (b, m, a)
        asked = self.count(known).unflatten(2, (self.densities, -1)).flatten(1, 2)  # (b, m·densities, k + 1)
        density = (
            softplus(asked[..., :-1] @ values + asked[..., -1:] - SPARSE).sum(2).unflatten(1, (-1, self.densities))
        )
        counted = torch.cat([density, (density + 0.1).log()], 2) * self.gate(known).sigmoid()
        # The way from thing to thing, weighed by the question.
        between = self.compare(known) * (lookups[-1] - lookups[0])
        joined = self.join(torch.cat([known, *lookups, look @ places.T, between, counted], 2))
        return (joined + self.readout(seen)).flatten(0, 1)


LOOKUPS = 2
"""How often `StackedAttention` looks up words of the question before it searches."""


def _network(inputs: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, outputs))
