"""Reading words off what is seen: words of one stem (dog, dogs) share what places say, and each reads only its own."""

import torch
from jaxtyping import Float
from nltk.stem import PorterStemmer
from torch import Tensor, nn
from torch.nn.functional import linear, one_hot

__all__ = ["EvidenceReadout", "stems"]


def stems(words: list[str]) -> tuple[list[int], int]:
    """Number the stems of words (Porter's), in the order of their first word.

    Returns:
        The number of each word's stem, and how many there are.
    """
    stem = PorterStemmer().stem
    known: dict[str, int] = {}
    return [known.setdefault(stem(word), len(known)) for word in words], len(known)


class EvidenceReadout(nn.Module):
    """Logits that are linear in a state [e, r]: word w gets g_w · e_stem(w) + U_w · r + b_w.

    With a full matrix in g's place words learn to be read off the evidence of others, such as what else the sentence
    may yet name, and their maps point there (noun maps hit the right thing in 76 %, against 98 %).
    """

    index: Tensor

    def __init__(self, words: list[str], rest: int) -> None:
        """Make the layer.

        Args:
            words: The vocabulary.
            rest: Length of r.
        """
        super().__init__()
        index, count = stems(words)
        self.register_buffer("index", torch.tensor(index), persistent=False)
        self.count = count
        self.own = nn.Parameter(torch.ones(len(words)))
        self.rest = nn.Linear(rest, len(words))

    @property
    def weight(self) -> Float[Tensor, "v d"]:
        """The whole matrix [g, U]."""
        return torch.cat([self.own[:, None] * one_hot(self.index, self.count).to(self.own.dtype), self.rest.weight], 1)

    @property
    def bias(self) -> Float[Tensor, " v"]:
        """B."""
        return self.rest.bias

    @property
    def in_features(self) -> int:
        """Length of a state."""
        return self.count + self.rest.in_features

    def forward(self, states: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        """Logits of all words."""
        return linear(states, self.weight, self.bias)
