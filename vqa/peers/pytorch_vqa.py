"""The model of Cyanogenoid/pytorch-vqa, "Show, Ask, Attend, and Answer" (Kazemi and Elqursh, arXiv 1704.03162)."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from mmcam.errors import UserError
from mmcam.image import Window, crop_to_tensor
from mmcam.importing.resnet import ResNet
from mmcam.text import pad
from vqa.models import VQAModel
from vqa.peers.words import PeerVocabulary, check_asked

__all__ = ["ShowAskAttendAnswer"]

logger = logging.getLogger(__name__)


class ShowAskAttendAnswer(VQAModel, PyTorchModelHubMixin, library_name="mmcam"):
    """A Caffe-style ResNet, an LSTM, two attention maps, two layers; the model of Captum's tutorial on VQA.

    What is looked at is the features of each place scaled to length 1, through which the gradient goes. The question
    is the LSTM's cell state. Dropout is left out: the model is here to be explained.
    """

    def __init__(
        self,
        vocabulary: list[str],
        answers: list[str],
        trunk: dict[str, Any],
        embedding: int = 300,
        hidden: int = 1024,
        attention: int = 512,
        glimpses: int = 2,
        common: int = 1024,
        resize: int = 512,
    ) -> None:
        """Make the model with random weights.

        Args:
            vocabulary: The words of questions; the first stands for all that are unknown.
            answers: The answers in the order of the logits.
            trunk: Arguments of `mmcam.importing.resnet.ResNet`; its size is that of a square cut from the centre.
            embedding: Length of word vectors.
            hidden: Length of the LSTM's state.
            attention: Length of the hidden layer of attention.
            glimpses: How many attention maps there are.
            common: Length of the hidden layer of the classifier.
            resize: The picture's short side, in pixels.

        Raises:
            UserError: The CNN has no size, or no square one.
        """
        super().__init__(ResNet(**trunk), PeerVocabulary(vocabulary, unknown=0), answers)
        channels, size = self.backbone.channels, self.backbone.size
        if size is None or size[0] != size[1]:
            raise UserError(f"expected a square size of the CNN, such as (448, 448), got {size}")
        self.resize = resize
        self.hear = nn.Sequential(nn.Embedding(len(vocabulary), embedding, padding_idx=0), nn.Tanh())
        self.lstm = nn.LSTM(embedding, hidden, batch_first=True)
        self.show = nn.Conv1d(channels, attention, 1, bias=False)
        self.ask = nn.Linear(hidden, attention)
        self.attend = nn.Conv1d(attention, glimpses, 1)
        self.readout = nn.Sequential(
            nn.Linear(glimpses * channels + hidden, common), nn.ReLU(), nn.Linear(common, len(answers))
        )

    def see(self, image: Image.Image) -> tuple[Float[Tensor, "3 x y"], Window]:
        """The centre square, as torchvision's Resize and CenterCrop give it."""
        return crop_to_tensor(image, self.resize, self.backbone.size[0], self.backbone.mean, self.backbone.std)

    def number(self, questions: Sequence[str]) -> tuple[Int[Tensor, "b t"], Int[Tensor, " b"]]:
        """Lower case, without the last character, whatever it is, split at single spaces.

        Raises:
            UserError: A question is empty.
        """
        check_asked(questions)
        for question in questions:
            if question[-1].isalnum():
                heard = question.lower()[:-1]
                logger.warning("a question loses its last character here: %r is heard; end it with '?'", heard)
        return pad([self.vocabulary.encode(question.lower()[:-1].split(" ")) for question in questions])

    def take_in(self, vectors: Float[Tensor, "b t e"], lengths: Int[Tensor, " b"]) -> Float[Tensor, "b q"]:
        """The cell state after the last word."""
        packed = pack_padded_sequence(vectors, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return self.lstm(packed)[1][1][0]

    def answer(
        self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any], question: Float[Tensor, "bm q"]
    ) -> Float[Tensor, "bm a"]:
        """Look twice, classify."""
        values = activations.flatten(2)  # (b, k, n)
        values = values / (values.norm(dim=1, keepdim=True) + 1e-8)
        count = len(question) // len(values)
        look = self.look(values.repeat_interleave(count, 0), question).unflatten(0, (len(values), count))
        seen = torch.einsum("bkn,bmgn->bmgk", values, look)
        return self.readout(torch.cat([seen.flatten(2).flatten(0, 1), question], 1))

    def look(self, values: Float[Tensor, "b k n"], question: Float[Tensor, "b q"]) -> Float[Tensor, "b g n"]:
        """The attention maps, each of sum 1.

        Args:
            values: The features of places, each of length 1.
            question: What is asked.
        """
        return self.attend((self.show(values) + self.ask(question)[..., None]).relu()).softmax(2)
