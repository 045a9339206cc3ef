"""What all metrics of captions share: the values they keep, one a caption, and the figure that comes out."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from captioning.metrics.words import words_of
from mmcam.errors import UserError
from mmcam.metrics.base import Figure, summarise

Words = Sequence[str]


class PerCaption(Metric):
    """A metric that gives every caption a value; keeps what it takes, over batches and processes.

    A subclass says in `measure` what is kept of a caption: its value, or what `values` makes one of.
    """

    full_state_update = False
    facts: list[Tensor]
    units: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        for name in ("facts", "units"):
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self._keep([], [])

    @abstractmethod
    def measure(self, said: Words, references: Sequence[Words]) -> Tensor:
        """What is kept of one caption; joined along the first axis."""

    @abstractmethod
    def nothing(self) -> Tensor:
        """What is kept of no caption."""

    def values(self, facts: Tensor) -> Float[Tensor, " n"]:
        """One value a caption, from what was kept."""
        return facts

    def figure(self, facts: Tensor, units: Int[Tensor, " n"]) -> Figure:
        """The figure of the corpus: the mean."""
        return summarise(self.values(facts), units)

    def update(self, said: Sequence[str], references: Sequence[Sequence[str]], units: Sequence[int]) -> None:
        """Judge some captions.

        Args:
            said: The captions.
            references: Of each caption, what people said: one sentence at least.
            units: The number of each caption's picture. Captions of one picture are no independent samples, and two
                runs are compared picture by picture.

        Raises:
            UserError: The numbers of captions differ, or a caption has no reference.
        """
        if not len(said) == len(references) == len(units):
            raise UserError(
                f"expected references and the picture's number of every caption; got {len(said)} captions, references "
                f"of {len(references)} and {len(units)} numbers"
            )
        for caption, sentences in zip(said, references, strict=True):
            check(caption, sentences)
        self._keep(
            [
                self.measure(words_of(caption), [words_of(sentence) for sentence in sentences])
                for caption, sentences in zip(said, references, strict=True)
            ],
            units,
        )

    def compute(self) -> Figure:
        """The figure over all that was judged."""
        return self.figure(*self._kept())

    def kept(self) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
        """All values, of all processes, and the picture of each; for comparing two runs pair by pair."""
        with self.sync_context(self.dist_sync_fn, distributed_available=self.distributed_available_fn):
            facts, units = self._kept()
        return self.values(facts), units

    def reset(self) -> None:
        """Forget all captions."""
        super().reset()
        self._keep([], [])

    def _keep(self, facts: Sequence[Tensor], units: Sequence[int]) -> None:
        # Also of no caption: a process that never gets one must send the same kind of tensor as the others.
        self.facts.append(torch.cat([self.nothing(), *facts]).to(self.device))
        self.units.append(torch.tensor(units, dtype=torch.long, device=self.device))

    def _kept(self) -> tuple[Tensor, Int[Tensor, " n"]]:
        return dim_zero_cat(self.facts).cpu(), dim_zero_cat(self.units).cpu()


def check(name: str, references: Sequence[str]) -> None:
    """Find out whether a caption can be judged.

    Raises:
        UserError: There is no reference, or it is a text where a list of texts is due.
    """
    if isinstance(references, str):
        raise UserError(f"expected a list of references, got the text {references!r}; write [{references!r}]")
    if not references:
        raise UserError(f"expected a reference at least, got none for {name!r}; leave out what nobody described")
