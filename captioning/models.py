"""Two CNN+LSTM captioners: Show and Tell, the paper's form, and a captioner with spatial attention.

Both share one shape. `states` turns activations and the words so far into one state a word, and the linear `readout`
turns a state into logits over the vocabulary. The recurrent step is written in plain tensor operations: unlike the
fused kernels, these have batching rules, so all words are differentiated in one vectorised backward, and cuDNN has no
say in it.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear

from mmcam.backbones import PLACES, WAVES, backbone, gist, place_code
from mmcam.checkpoint import load_model
from mmcam.text import Vocabulary

State = tuple[Tensor, ...]
"""What a decoder remembers between words; first axis b."""


class LSTMStep(nn.LSTMCell):
    """One step of an LSTM in plain operations, with the parameters of `nn.LSTMCell` (gates i, f, g, o)."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Float[Tensor, "b d"], state: tuple[Float[Tensor, "b e"], Float[Tensor, "b e"]]
    ) -> tuple[Float[Tensor, "b e"], Float[Tensor, "b e"]]:
        """Go one step: (h, c) → (h, c)."""
        gates = linear(x, self.weight_ih, self.bias_ih) + linear(state[0], self.weight_hh, self.bias_hh)
        i, f, g, o = gates.chunk(4, dim=1)
        c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class Captioner(nn.Module, ABC):
    """What `CaptioningTask` and the decoders need of a captioner.

    Attributes:
        backbone: The CNN, see `mmcam.backbones`.
        vocabulary: The words.
        readout: From a state to logits over the vocabulary.
    """

    def __init__(self, backbone_name: str, vocabulary: list[str]) -> None:
        super().__init__()
        self.backbone = backbone(backbone_name)
        self.vocabulary = Vocabulary(vocabulary)
        self.readout: nn.Linear

    @abstractmethod
    def start(self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any]) -> State:
        """What the decoder knows before the first word."""

    @abstractmethod
    def step(self, state: State, word: Int[Tensor, " b"]) -> tuple[State, Float[Tensor, "b d"]]:
        """Hear a word (at first the start mark) and make the state from which the next one is read."""

    def states(
        self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any], words: Int[Tensor, "bm t"]
    ) -> Float[Tensor, "bm t d"]:
        """Teacher forcing: state t has heard words 0 to t, so `words` begins with the start mark.

        There may be m captions a picture, one picture's after the other's; they share what is costly about it.
        """
        state = self.spread(self.start(activations, memo), len(words) // max(1, len(activations)))
        states = []
        for t in range(words.shape[1]):
            state, out = self.step(state, words[:, t])
            states.append(out)
        return torch.stack(states, dim=1)

    def spread(self, state: State, captions: int) -> State:
        """Let each picture's decoder go on in several copies; what `step` can share between them need not be copied."""
        return state if captions == 1 else tuple(part.repeat_interleave(captions, 0) for part in state)

    def forward(self, images: Float[Tensor, "b 3 x y"], words: Int[Tensor, "b t"]) -> Float[Tensor, "b t v"]:
        """Logits of the next word after each of the given ones."""
        activations, memo = self.backbone.trunk(images)
        return self.readout(self.states(activations, memo, words))


class ShowAndTell(Captioner, PyTorchModelHubMixin, library_name="mmcam", license="apache-2.0"):
    """Show and Tell (Vinyals et al., arXiv 1411.4555): the image vector is the LSTM's first input, then come the words.

    This is the form of neuraltalk2, which the Grad-CAM paper explains.
    """

    def __init__(
        self,
        vocabulary: list[str],
        backbone_name: str = "scenes",
        embedding: int = 512,
        hidden: int = 512,
        dropout: float = 0.5,
    ) -> None:
        """Make the model with random weights.

        Args:
            vocabulary: The words in the order of their numbers.
            backbone_name: A CNN, see `mmcam.backbones.backbone`.
            embedding: Length of word and image vectors.
            hidden: Length of the LSTM's state.
            dropout: On the LSTM's output while training.
        """
        super().__init__(backbone_name, vocabulary)
        self.see = nn.Linear(self.backbone.dim, embedding)
        self.hear = nn.Embedding(len(self.vocabulary), embedding)
        self.lstm = LSTMStep(embedding, hidden)
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(hidden, len(self.vocabulary))

    def start(self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any]) -> State:
        """Step 0: the LSTM sees the picture."""
        seen = self.see(self.backbone.vector(activations, memo))
        zero = seen.new_zeros(len(seen), self.lstm.hidden_size)
        return self.lstm(seen, (zero, zero))

    def step(self, state: State, word: Int[Tensor, " b"]) -> tuple[State, Float[Tensor, "b d"]]:
        """One step of the LSTM."""
        state = self.lstm(self.hear(word).to(state[0].dtype), (state[0], state[1]))
        return state, self.dropout(state[0])


class AttendAndTell(Captioner, PyTorchModelHubMixin, library_name="mmcam", license="apache-2.0"):
    """A captioner with soft attention over places (after Xu et al., arXiv 1502.03044), made to be explained.

    At each word the LSTM's state asks with a query (q, r); place x is looked at with weight a(x) = softmax(q·A(x) +
    r·P(x)), where P names the place (`mmcam.backbones.place_code`). The word is read linearly off what was seen, c = Σ
    a(x) A(x), and off the state.

    Two differences from Xu et al. make the gradient readable. The attention is a *dot product*, linear in A: its part
    of the gradient, Σ_x a(x) (g·A(x) - g·c) q, is zero after the spatial mean, so a word's α is its row of the readout
    less the expected row, as in CAM. And the LSTM is fed *where* it looked, not what it saw there, so a noun is read
    off the place and not remembered.
    """

    def __init__(
        self,
        vocabulary: list[str],
        backbone_name: str = "scenes",
        embedding: int = 128,
        hidden: int = 256,
        dropout: float = 0.1,
    ) -> None:
        """Make the model with random weights.

        Args:
            vocabulary: The words in the order of their numbers.
            backbone_name: A CNN, see `mmcam.backbones.backbone`.
            embedding: Length of word vectors and of the image vector.
            hidden: Length of the LSTM's state.
            dropout: On the LSTM's output while training.
        """
        super().__init__(backbone_name, vocabulary)
        channels = self.backbone.channels
        self.hear = nn.Embedding(len(self.vocabulary), embedding)
        self.see = nn.Sequential(nn.Linear(WAVES * channels, hidden), nn.ReLU(), nn.Linear(hidden, embedding))
        self.lstm = LSTMStep(embedding + PLACES, hidden)
        self.query = nn.Linear(hidden, channels + PLACES)
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(channels + PLACES + hidden, len(self.vocabulary))

    def start(self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any]) -> State:
        """The LSTM gets the gist of the picture."""
        seen = self.see(gist(activations))
        where, zero = seen.new_zeros(len(seen), PLACES), seen.new_zeros(len(seen), self.lstm.hidden_size)
        h, c = self.lstm(torch.cat([seen, where], 1), (zero, zero))
        places = place_code(activations).expand(len(seen), -1, -1)
        return h, c, where, torch.cat([activations.flatten(2), places], 1)  # what and where, (b, k + p, n)

    def step(self, state: State, word: Int[Tensor, " b"]) -> tuple[State, Float[Tensor, "b d"]]:
        """Hear, look, and say what is there."""
        h, c, where, ground = state
        h, c = self.lstm(torch.cat([self.hear(word).to(h.dtype), where], 1), (h, c))
        dropped = self.dropout(h)
        ask = self.query(dropped).unflatten(0, (len(ground), -1))  # (b, m, k + p)
        look = (ask @ ground).softmax(2)  # (b, m, n)
        found = (look @ ground.mT).flatten(0, 1)
        seen, where = found.split([self.backbone.channels, PLACES], 1)
        return (h, c, where, ground), torch.cat([seen, where, dropped], 1)

    def spread(self, state: State, captions: int) -> State:
        """The ground is the same for all captions of a picture."""
        return (*super().spread(state[:3], captions), state[3])


def load(name: str) -> Captioner:
    """Load a captioner.

    Args:
        name: Shipped weights, a folder, or a hub id.

    Returns:
        The captioner, in eval mode.
    """
    return load_model(name, (ShowAndTell, AttendAndTell))
