"""What a captioner is: a CNN, a step from word to word, and a linear readout.

`states` turns activations and the words so far into one state a word, and the linear `readout` turns a state into
logits over the vocabulary. The recurrent step is written in plain tensor operations: unlike the fused kernels, these
have batching rules, so all words are differentiated in one vectorised backward, and cuDNN has no say in it.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear

from captioning.decode import State, decode
from captioning.readout import EvidenceReadout
from mmcam.errors import UserError
from mmcam.networks.backbones import backbone
from mmcam.text import Vocabulary

__all__ = ["Captioner", "LSTMStep", "State"]


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

    def into_gates(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b g"]:
        """What an input and the biases add to the gates."""
        return linear(x, self.weight_ih, self.bias_ih + self.bias_hh)


class Captioner(nn.Module, ABC):
    """What `CaptioningTask` and the decoders need of a captioner.

    Attributes:
        backbone: The CNN, see `mmcam.networks.backbones`.
        vocabulary: The words.
        hear: From words' numbers to vectors.
        readout: From a state to logits over the vocabulary.
    """

    hear: nn.Embedding

    def __init__(self, cnn: str | nn.Module, vocabulary: list[str]) -> None:
        """Make the part that all share.

        Args:
            cnn: The backbone, or its name.
            vocabulary: The words in the order of their numbers.
        """
        super().__init__()
        self.backbone: Any = backbone(cnn) if isinstance(cnn, str) else cnn
        self.vocabulary = Vocabulary(vocabulary)
        self.readout: nn.Linear | EvidenceReadout

    @abstractmethod
    def start(self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any]) -> State:
        """What the decoder knows before the first word."""

    @abstractmethod
    def step(self, state: State, word: Int[Tensor, " b"]) -> tuple[State, Float[Tensor, "b d"]]:
        """Hear a word (at first the start mark) and make the state from which the next one is read."""

    def take_in(self, state: State, vector: Float[Tensor, "b e"]) -> tuple[State, Float[Tensor, "b d"]]:
        """The same step for a word's vector; differentiable in it, which `Task.scores_heard` asks for."""
        raise UserError(
            f"{type(self).__name__} does not say how it hears vectors of words; write take_in(state, vector)"
        )

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

    def states_of(
        self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any], vectors: Float[Tensor, "bm t e"]
    ) -> Float[Tensor, "bm t d"]:
        """The same states, from the words' vectors and differentiable in them."""
        state = self.spread(self.start(activations, memo), len(vectors) // max(1, len(activations)))
        states = []
        for vector in vectors.unbind(1):
            state, out = self.take_in(state, vector)
            states.append(out)
        return torch.stack(states, dim=1)

    def explainable_states(
        self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any], words: Int[Tensor, "bm t"]
    ) -> Float[Tensor, "bm t d"]:
        """The same states, without dropout; a captioner may make them differentiable in the activations alone."""
        return self.states(activations, memo, words)

    def decode(
        self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any], beam: int, length: int
    ) -> list[list[int]]:
        """Say what is in the pictures: `captioning.decode`, unless a captioner has a way of its own."""
        return decode(self, activations, memo, beam, length)

    def spread(self, state: State, captions: int) -> State:
        """Let each picture's decoder go on in several copies; what `step` can share between them need not be copied."""
        return state if captions == 1 else tuple(part.repeat_interleave(captions, 0) for part in state)

    def forward(self, images: Float[Tensor, "b 3 x y"], words: Int[Tensor, "bm t"]) -> Float[Tensor, "bm t v"]:
        """Logits of the next word after each of the given ones."""
        activations, memo = self.backbone.trunk(images)
        return self.readout(self.states(activations, memo, words))
