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
from torch.nn.functional import linear, softplus

from captioning.readout import EvidenceReadout
from captioning.unrolled import unroll
from mmcam.checkpoint import load_model
from mmcam.errors import UserError
from mmcam.networks.backbones import backbone
from mmcam.networks.looking import lay_out, soft_maximum, whole
from mmcam.networks.places import PLACES, WAVES, gist, place_code
from mmcam.networks.scene_cnn import SPARSE
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
        from captioning.decode import decode

        return decode(self, activations, memo, beam, length)

    def spread(self, state: State, captions: int) -> State:
        """Let each picture's decoder go on in several copies; what `step` can share between them need not be copied."""
        return state if captions == 1 else tuple(part.repeat_interleave(captions, 0) for part in state)

    def forward(self, images: Float[Tensor, "b 3 x y"], words: Int[Tensor, "bm t"]) -> Float[Tensor, "bm t v"]:
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
            backbone_name: A CNN, see `mmcam.networks.backbones.backbone`.
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
        return self.take_in(state, self.hear(word))

    def take_in(self, state: State, vector: Float[Tensor, "b e"]) -> tuple[State, Float[Tensor, "b d"]]:
        """One step of the LSTM."""
        state = self.lstm(vector.to(state[0].dtype), (state[0], state[1]))
        return state, self.dropout(state[0])

    def explainable_states(
        self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any], words: Int[Tensor, "bm t"]
    ) -> Float[Tensor, "bm t d"]:
        """All steps as one operation, with a cheaper backward; not differentiable in the LSTM's parameters."""
        lstm, captions = self.lstm, len(words) // max(1, len(activations))
        first = lstm.into_gates(self.see(self.backbone.vector(activations, memo)))
        with torch.no_grad():
            heard = lstm.into_gates(self.hear(words).to(first.dtype))
        return unroll(first.repeat_interleave(captions, 0), heard, lstm.weight_hh)


class AttendAndTell(Captioner, PyTorchModelHubMixin, library_name="mmcam", license="apache-2.0"):
    """A captioner with soft attention over places (after Xu et al., arXiv 1502.03044), made to be explained.

    At each word the LSTM's state asks with a query (q, r); place x is looked at with weight a(x) = softmax(q·A(x) +
    r·P(x)), where P names the place (`mmcam.networks.places.place_code`). What speaks for words of stem v there is
    a soft maximum over the places looked at (`mmcam.networks.looking`),

        e_v = 1/s · log (e^(s·c) + Σ_x a(x) exp(s · W_v·A(x))),

    and the next word is read linearly off its own stem's evidence (`captioning.readout`), off where the look went, off
    how many such things there are, and off the state.

    Differs from Xu et al. so that the gradient can be read. The weights of the places in ∂e_v/∂A sum to one (but for
    the floor c, below what is ever looked at), and what the attention adds sums to zero, since it is a dot product: so
    the spatial mean of ∂e_v/∂A is W_v / Z, as in CAM. All else adds nothing to the spatial mean: the LSTM is fed
    *where* it looked, not what it saw there, so a noun is read off a place and not remembered; it is fed the gist of
    the picture (`mmcam.networks.places.gist`); and counts are whole numbers, with no gradient. Without the last,
    maps were drawn to what had been counted a word before.
    """

    def __init__(
        self,
        vocabulary: list[str],
        backbone_name: str = "scenes",
        embedding: int = 128,
        hidden: int = 256,
        prototypes: int = 48,
        dropout: float = 0.1,
    ) -> None:
        """Make the model with random weights.

        Args:
            vocabulary: The words in the order of their numbers.
            backbone_name: A CNN, see `mmcam.networks.backbones.backbone`.
            embedding: Length of word vectors and of the image vector.
            hidden: Length of the LSTM's state.
            prototypes: Kinds of things that it can count.
            dropout: On the LSTM's output while training.
        """
        super().__init__(backbone_name, vocabulary)
        channels = self.backbone.channels
        self.readout = EvidenceReadout(list(self.vocabulary.words), FOUND + hidden)
        self.hear = nn.Embedding(len(self.vocabulary), embedding)
        self.see = nn.Sequential(nn.Linear(WAVES * channels, hidden), nn.ReLU(), nn.Linear(hidden, embedding))
        self.lstm = LSTMStep(embedding + FOUND, hidden)
        self.query = nn.Linear(hidden, channels + PLACES)
        self.evidence = nn.Conv2d(channels, self.readout.count, 1)
        self.name = nn.Linear(self.readout.count, prototypes)
        self.density = nn.Linear(prototypes, channels + 1, bias=False)
        self.dropout = nn.Dropout(dropout)

    def start(self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any]) -> State:
        """The LSTM gets the gist of the picture; what each place says for each word is laid out."""
        seen = self.see(gist(activations))
        found, zero = seen.new_zeros(len(seen), FOUND), seen.new_zeros(len(seen), self.lstm.hidden_size)
        h, c = self.lstm(torch.cat([seen, found], 1), (zero, zero))
        places = place_code(activations).expand(len(seen), -1, -1)
        ground = torch.cat([activations.flatten(2), places], 1)  # what and where, (b, k + p, n)
        return h, c, found, ground, *lay_out(self.evidence(activations).flatten(2))

    def step(self, state: State, word: Int[Tensor, " b"]) -> tuple[State, Float[Tensor, "b d"]]:
        """Hear, look, and weigh what is there."""
        return self.take_in(state, self.hear(word))

    def take_in(self, state: State, vector: Float[Tensor, "b e"]) -> tuple[State, Float[Tensor, "b d"]]:
        """Look, and weigh what is there, with the word's vector in the LSTM."""
        h, c, found, ground, *said = state
        h, c = self.lstm(torch.cat([vector.to(h.dtype), found], 1), (h, c))
        dropped = self.dropout(h)
        ask = self.query(dropped).unflatten(0, (len(ground), -1))  # (b, m, k + p)
        look = (ask @ ground).softmax(2)  # (b, m, n)
        evidence = soft_maximum(look, (said[0], said[1]))  # (b, m, v)
        values, places = ground.split([self.backbone.channels, PLACES], 1)
        row = self.density(self.name(evidence).softmax(2))  # (b, m, k + 1): the density of what is seen
        alike = softplus(row[..., :-1] @ values + row[..., -1:] - SPARSE).sum(2, keepdim=True)
        many = whole(alike, self.training)
        found = torch.cat([look @ places.mT, many, (many + 0.1).log()], 2).flatten(0, 1)  # where it is and how many
        return (h, c, found, ground, *said), torch.cat([evidence.flatten(0, 1), found, dropped], 1)

    def spread(self, state: State, captions: int) -> State:
        """The picture is the same for all of its captions."""
        return (*super().spread(state[:3], captions), *state[3:])


FOUND = PLACES + 2
"""Length of what a look reports: where, how many, and the logarithm of that."""


def load(name: str) -> Captioner:
    """Load a captioner.

    Args:
        name: Shipped weights, a folder, or a hub id.

    Returns:
        The captioner, in eval mode.
    """
    from captioning.peers import CLASSES

    return load_model(name, (ShowAndTell, AttendAndTell, *CLASSES))
