"""Captioners with soft attention over places: sgrvinod's Show, Attend and Tell, ruotianluo's att2in2 and updown."""

from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, Int
from torch import Tensor, nn

from captioning.captioner import Captioner, LSTMStep, State
from captioning.peers.cells import maxout_step
from captioning.peers.places import adaptive_mean, pictures_mean
from captioning.peers.search import search
from mmcam.importing.resnet import ResNet

__all__ = ["Att2in2", "Attention", "ShowAttendTell", "UpDown"]


class Attention(nn.Module):
    """Additive attention (Bahdanau et al., arXiv 1409.0473): softmax over places of v · f(place + W h)."""

    def __init__(self, hidden: int, attention: int, bend: nn.Module) -> None:
        super().__init__()
        self.ask = nn.Linear(hidden, attention)
        self.score = nn.Linear(attention, 1)
        self.bend = bend

    def forward(
        self, h: Float[Tensor, "b e"], places: Float[Tensor, "b n k"], keys: Float[Tensor, "b n a"]
    ) -> Float[Tensor, "b k"]:
        """The mean of the places by their weights."""
        weights = self.score(self.bend(keys + self.ask(h)[:, None])).squeeze(2).softmax(1)
        return (weights[:, None] @ places).squeeze(1)


class ShowAttendTell(Captioner, PyTorchModelHubMixin, library_name="mmcam", license="apache-2.0"):
    """Show, Attend and Tell (arXiv 1502.03044) as in sgrvinod's tutorial.

    The maps are pooled to a grid, also upwards; the gradient is taken at the maps themselves.
    """

    def __init__(
        self,
        vocabulary: list[str],
        trunk: dict[str, Any],
        embedding: int = 512,
        hidden: int = 512,
        attention: int = 512,
        grid: int = 14,
    ) -> None:
        """Make the model with random weights.

        Args:
            vocabulary: The words in the order of their numbers.
            trunk: Arguments of `mmcam.importing.resnet.ResNet`.
            embedding: Length of word vectors.
            hidden: Length of the LSTM's state.
            attention: Length of what is compared.
            grid: Side of the grid that attention looks at.
        """
        super().__init__(ResNet(**trunk), vocabulary)
        channels = self.backbone.channels
        self.grid = grid
        self.hear = nn.Embedding(len(self.vocabulary), embedding)
        self.key = nn.Linear(channels, attention)
        self.attention = Attention(hidden, attention, nn.ReLU())
        self.first_h, self.first_c = nn.Linear(channels, hidden), nn.Linear(channels, hidden)
        self.gate = nn.Linear(hidden, channels)
        self.lstm = LSTMStep(embedding + channels, hidden)
        self.readout = nn.Linear(hidden, len(self.vocabulary))

    def start(self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any]) -> State:
        """The first state and cell are linear in the places' mean."""
        places = adaptive_mean(activations, memo, self.grid)
        mean = places.mean(1)
        return self.first_h(mean), self.first_c(mean), places, self.key(places)

    def step(self, state: State, word: Int[Tensor, " b"]) -> tuple[State, Float[Tensor, "b d"]]:
        """Look, and hear."""
        return self.take_in(state, self.hear(word))

    def take_in(self, state: State, vector: Float[Tensor, "b e"]) -> tuple[State, Float[Tensor, "b d"]]:
        """Look with the state before the word; what is seen is gated and goes into the LSTM beside the word."""
        h, c, places, keys = state
        seen = self.gate(h).sigmoid() * self.attention(h, places, keys)
        h, c = self.lstm(torch.cat([vector.to(h.dtype), seen], 1), (h, c))
        return (h, c, places, keys), h

    def decode(
        self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any], beam: int, length: int
    ) -> list[list[int]]:
        """As the tutorial's `caption.py`."""
        return search(self, activations, memo, beam, length, narrowing=True)


class Att2in2(Captioner, PyTorchModelHubMixin, library_name="mmcam", license="apache-2.0"):
    """Att2in2 (Rennie et al., arXiv 1612.00563) as in ruotianluo's ImageCaptioning.pytorch.

    An LSTM with maxout candidates, to which alone what is seen is added.
    """

    def __init__(
        self,
        vocabulary: list[str],
        trunk: dict[str, Any],
        embedding: int = 512,
        hidden: int = 512,
        attention: int = 512,
        grid: int = 14,
    ) -> None:
        """Make the model with random weights; the arguments are those of `ShowAttendTell`."""
        super().__init__(ResNet(**trunk), vocabulary)
        self.grid = grid
        self.hidden = hidden
        self.hear = nn.Embedding(len(self.vocabulary), embedding)
        self.place = nn.Linear(self.backbone.channels, hidden)
        self.key = nn.Linear(hidden, attention)
        self.attention = Attention(hidden, attention, nn.Tanh())
        self.i2h, self.h2h = nn.Linear(embedding, 5 * hidden), nn.Linear(hidden, 5 * hidden)
        self.a2c = nn.Linear(hidden, 2 * hidden)
        self.readout = nn.Linear(hidden, len(self.vocabulary))

    def start(self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any]) -> State:
        """The LSTM begins with zeros; places are made ready to be looked at."""
        places = self.place(adaptive_mean(activations, memo, self.grid)).relu()
        zero = places.new_zeros(len(places), self.hidden)
        return zero, zero, places, self.key(places)

    def step(self, state: State, word: Int[Tensor, " b"]) -> tuple[State, Float[Tensor, "b d"]]:
        """Look, and hear."""
        return self.take_in(state, self.hear(word))

    def take_in(self, state: State, vector: Float[Tensor, "b e"]) -> tuple[State, Float[Tensor, "b d"]]:
        """Look with the state before the word."""
        h, c, places, keys = state
        sums = self.i2h(vector.to(h.dtype)) + self.h2h(h)
        gates, candidates = sums.split([3 * self.hidden, 2 * self.hidden], 1)
        h, c = maxout_step(gates, candidates + self.a2c(self.attention(h, places, keys)), c)
        return (h, c, places, keys), h

    def decode(
        self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any], beam: int, length: int
    ) -> list[list[int]]:
        """As the peer's `eval.py`."""
        return search(self, activations, memo, beam, length)


class UpDown(Captioner, PyTorchModelHubMixin, library_name="mmcam", license="apache-2.0"):
    """The two LSTMs of bottom-up and top-down attention (Anderson et al., arXiv 1707.07998), on a grid.

    The first hears the word, the picture's mean and the second's state, and asks; the second hears what is seen.
    """

    def __init__(
        self,
        vocabulary: list[str],
        trunk: dict[str, Any],
        embedding: int = 512,
        hidden: int = 512,
        attention: int = 512,
        grid: int = 14,
    ) -> None:
        """Make the model with random weights; the arguments are those of `ShowAttendTell`."""
        super().__init__(ResNet(**trunk), vocabulary)
        self.grid = grid
        self.hidden = hidden
        self.hear = nn.Embedding(len(self.vocabulary), embedding)
        self.see = nn.Linear(self.backbone.channels, hidden)
        self.place = nn.Linear(self.backbone.channels, hidden)
        self.key = nn.Linear(hidden, attention)
        self.attention = Attention(hidden, attention, nn.Tanh())
        self.asking = LSTMStep(embedding + 2 * hidden, hidden)
        self.speaking = LSTMStep(2 * hidden, hidden)
        self.readout = nn.Linear(hidden, len(self.vocabulary))

    def start(self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any]) -> State:
        """Both LSTMs begin with zeros; the picture and its places are made ready."""
        places = self.place(adaptive_mean(activations, memo, self.grid)).relu()
        seen = self.see(pictures_mean(activations, memo)).relu()
        zero = seen.new_zeros(len(seen), self.hidden)
        return zero, zero, zero, zero, seen, places, self.key(places)

    def step(self, state: State, word: Int[Tensor, " b"]) -> tuple[State, Float[Tensor, "b d"]]:
        """Hear, look, and speak."""
        return self.take_in(state, self.hear(word))

    def take_in(self, state: State, vector: Float[Tensor, "b e"]) -> tuple[State, Float[Tensor, "b d"]]:
        """Look with the first LSTM's new state."""
        h, c, said, cell, seen, places, keys = state
        h, c = self.asking(torch.cat([said, seen, vector.to(h.dtype)], 1), (h, c))
        looked = self.attention(h, places, keys)
        said, cell = self.speaking(torch.cat([looked, h], 1), (said, cell))
        return (h, c, said, cell, seen, places, keys), said

    def decode(
        self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any], beam: int, length: int
    ) -> list[list[int]]:
        """As the peer's `eval.py`."""
        return search(self, activations, memo, beam, length)
