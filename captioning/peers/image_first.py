"""Captioners whose LSTM hears a vector of the picture first and then the words: Show and Tell's form, of three peers.

yunjey                     ResNet → mean → linear, batch norm → LSTM of one or more layers
ruotianluo show_tell       ResNet → mean → linear → LSTM without biases
ruotianluo fc and newfc    ResNet → mean → linear → LSTM with maxout candidates
"""

from typing import Any

from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, Int
from torch import Tensor, nn

from captioning.captioner import Captioner, State
from captioning.peers.cells import CELLS
from captioning.peers.places import pictures_mean
from captioning.peers.search import search
from mmcam.errors import unknown
from mmcam.importing.resnet import ResNet

__all__ = ["ImageFirst"]


class ImageFirst(Captioner, PyTorchModelHubMixin, library_name="mmcam", license="apache-2.0"):
    """A captioner that hears the picture's vector, then the start mark, then the words.

    What the picture's step itself would say is dropped: ruotianluo does so, and yunjey's model has learnt to say the
    start mark there.
    """

    def __init__(
        self,
        vocabulary: list[str],
        trunk: dict[str, Any],
        embedding: int = 256,
        hidden: int = 512,
        layers: int = 1,
        cell: str = "lstm",
    ) -> None:
        """Make the model with random weights.

        Args:
            vocabulary: The words in the order of their numbers.
            trunk: Arguments of `mmcam.importing.resnet.ResNet`.
            embedding: Length of word and image vectors.
            hidden: Length of the cell's state.
            layers: Cells one above the other.
            cell: "lstm" or "maxout".
        """
        super().__init__(ResNet(**trunk), vocabulary)
        if cell not in CELLS:
            raise unknown("cell", cell, CELLS)
        self.see = nn.Linear(self.backbone.dim, embedding)
        self.hear = nn.Embedding(len(self.vocabulary), embedding)
        self.cells = nn.ModuleList(CELLS[cell](hidden if i else embedding, hidden) for i in range(layers))
        self.readout = nn.Linear(hidden, len(self.vocabulary))

    def start(self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any]) -> State:
        """The first step: the picture's vector."""
        seen = self.see(pictures_mean(activations, memo))
        zero = seen.new_zeros(len(seen), self.readout.in_features)
        state, _ = self.take_in((zero, zero) * len(self.cells), seen)
        return state

    def step(self, state: State, word: Int[Tensor, " b"]) -> tuple[State, Float[Tensor, "b d"]]:
        """One step of all cells."""
        return self.take_in(state, self.hear(word))

    def take_in(self, state: State, vector: Float[Tensor, "b e"]) -> tuple[State, Float[Tensor, "b d"]]:
        """One step of all cells."""
        after: list[Tensor] = []
        out = vector.to(state[0].dtype)
        for number, cell in enumerate(self.cells):
            out, c = cell(out, (state[2 * number], state[2 * number + 1]))
            after += [out, c]
        return tuple(after), out

    def decode(
        self, activations: Float[Tensor, "b k h w"], memo: dict[str, Any], beam: int, length: int
    ) -> list[list[int]]:
        """As ruotianluo's models are decoded; yunjey's is only ever decoded greedily."""
        return search(self, activations, memo, beam, length)
