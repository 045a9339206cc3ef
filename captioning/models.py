"""Two CNN+LSTM captioners: Show and Tell, the paper's form, and a captioner with spatial attention."""

from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import softplus

from captioning.captioner import Captioner, LSTMStep, State
from captioning.readout import EvidenceReadout
from captioning.unrolled import unroll
from mmcam.networks.looking import lay_out, soft_maximum, whole
from mmcam.networks.places import PLACES, WAVES, gist, place_code
from mmcam.networks.scene_cnn import SPARSE


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
