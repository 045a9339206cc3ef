"""What the author of a new task needs: Sample, Batch, Targets and the four methods of Task.

A task says *what is differentiated*; it knows nothing of CAM:

    collate   samples → Batch
    trunk     Batch → activations A (b, k, h, w), the explained layer's output; called without a graph, but for
              `mmcam.pixels`, whose batch.images want one
    predict   activations → Targets, what the model itself says
    scores    activations, targets → y (b, t), one number per word, answer or class; called with a graph

Metrics that change the picture and ask the model again want one more, `probabilities`; `mmcam.heard`, which asks for
words as well as pixels, wants `heard` and `scores_heard`; and `mmcam.analysis` wants `runners_up`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmcam.batch import Batch, Sample, Window
from mmcam.errors import UserError
from mmcam.gradients import Vjp, batched
from mmcam.targets import Targets

__all__ = ["Batch", "Heard", "Sample", "Targets", "Task", "Window", "evaluating", "vjp_of"]


@dataclass(frozen=True, eq=False)
class Heard:
    """Words that scores hear besides the picture, as vectors: a question, or the words before each word of a caption.

    Attributes:
        words: Of each sample; ragged.
        vectors: Their embeddings, padded.
    """

    words: tuple[tuple[str, ...], ...]
    vectors: Float[Tensor, "b l d"]


class Task(nn.Module, ABC):
    """The adapter between a model and the engine; four methods make one.

    Attributes:
        layer: Name of the explained layer, for the record.
        method: By which it is explained if the caller names none; a configuration's `explain: {method: …}` sets it.
        separator: Between the words where they are shown as one: ", " for answers and classes, " " for a sentence.
        vjp: How several rows are differentiated at once: `mmcam.gradients.batched` (default), `replicated` for heads
            with fused recurrent kernels (`nn.LSTM`, `nn.GRU`), or `looped`. A task may also have one of its own:
            `task.vjp = looped`.
        seeing: Names of the modules of the head that still belong to the CNN: `mmcam.methods.guided` rules there too.
    """

    layer: str = ""
    method: str = "grad_cam"
    separator: str = ", "
    vjp: Vjp = staticmethod(batched)
    seeing: Sequence[str] = ()

    @abstractmethod
    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Turn samples into tensors on the CPU; safe to be called in a `DataLoader` worker."""

    @abstractmethod
    def trunk(self, batch: Batch) -> Float[Tensor, "b k h w"]:
        """Compute the activations A of the explained layer; without a graph, unless the images want one."""

    @abstractmethod
    def predict(self, activations: Float[Tensor, "b k h w"], batch: Batch) -> Targets:
        """Let the model say what there is to explain; called without a graph."""

    @abstractmethod
    def scores(self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets) -> Float[Tensor, "b t"]:
        """Compute one score an id, differentiably in the activations: log-probabilities of words, logits of classes."""

    def given(self, texts: Sequence[str], batch: Batch) -> Targets:
        """Turn what the user wants explained (a caption, answers, classes) into targets.

        Args:
            texts: One text a sample; several answers or classes are separated by commas, "a rather than b" contrasts.
            batch: The samples.

        Returns:
            The targets.

        Raises:
            UserError: A word, answer or class is not known; names the nearest ones.
        """
        raise UserError(f"{type(self).__name__} explains its own predictions only; it does not take a text to explain")

    def probabilities(
        self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets
    ) -> Float[Tensor, "b t"]:
        """Compute how probable each id is, whatever its foil; only metrics ask for it, such as deletion and insertion.

        Args:
            activations: What `trunk` gave.
            batch: The samples.
            targets: Whose ids are meant.

        Returns:
            Of a word, given those before it; of an answer or a class, among all that there are.

        Raises:
            UserError: The task does not say.
        """
        raise UserError(
            f"{type(self).__name__} does not say how probable its targets are; write probabilities(activations, batch, "
            "targets) -> (b, t), such as the exponential of log-probabilities or a softmax over all classes"
        )

    def laid(self, maps: Float[Tensor, "b r h w"], batch: Batch) -> Sequence[Float[Tensor, "r _ _"]]:
        """Lay maps as they came from the activations over the pictures.

        Only a trunk whose places do not lie like the picture needs one of its own: tiles beside one another, grids of
        several sizes that were padded to one (which says so by `memo["places"]`, the real ones of each sample).

        Args:
            maps: Before ReLU, on the places of the activations.
            batch: The samples, with the memo that `trunk` left.

        Returns:
            The maps of each sample over its window, each sample's at its own resolution.
        """
        return list(maps)

    def blank(self, batch: Batch) -> Batch:
        """The same samples before a blank picture of the mean colour, which networks get as zeros."""
        return replace(batch, images=torch.zeros_like(batch.images), memo={})

    def heard(self, batch: Batch, targets: Targets) -> Heard:
        """Say which words the scores hear, and embed them; called without a graph.

        Args:
            batch: The samples.
            targets: What is explained: a word of a caption hears those before it.

        Returns:
            The words, with one vector each.

        Raises:
            UserError: The task hears no words, or does not say which.
        """
        raise UserError(
            f"{type(self).__name__} hears no words: expected a task for questions or captions; one of your own says "
            "what it hears by heard(batch, targets) and scores_heard(activations, batch, targets, vectors)"
        )

    def scores_heard(
        self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets, vectors: Float[Tensor, "bm l d"]
    ) -> Float[Tensor, "bm t"]:
        """Compute `scores` from the vectors that `heard` gave, or others in their place; differentiably in them.

        Args:
            activations: What `trunk` gave.
            batch: The samples.
            targets: What is explained.
            vectors: m a sample, one sample's after the other's.

        Returns:
            The scores of the samples' targets for each of them.
        """
        raise UserError(f"{type(self).__name__} does not score words by their vectors; write scores_heard")

    def log_probabilities_heard(
        self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets, vectors: Float[Tensor, "bm l d"]
    ) -> Float[Tensor, "bm t"]:
        """Compute `scores_heard` as log-probabilities, less those of the foils; the scores themselves if they are such.

        Logits may rise all together, which makes nothing more probable; `mmcam.heard.shares` must not count that.
        """
        return self.scores_heard(activations, batch, targets, vectors)

    def runners_up(self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets) -> Targets:
        """Find what the model would have said in each id's place, were it not the id; called without a graph.

        Args:
            activations: What `trunk` gave.
            batch: The samples.
            targets: Whose ids are meant; their foils are not looked at.

        Returns:
            Ids like those of the targets, by `Targets.second`, with one row and the name of each.

        Raises:
            UserError: The task does not say.
        """
        raise UserError(
            f"{type(self).__name__} does not say what comes second; write runners_up(activations, batch, targets)"
        )

    @property
    def device(self) -> torch.device:
        """Where the parameters and buffers lie; the CPU if there are none."""
        return next(chain(self.parameters(), self.buffers()), torch.empty(0)).device


def vjp_of(task: Task) -> Vjp:
    """How a task differentiates: its own way, else its class's, where `vjp = looped` must not become a method."""
    return vars(task).get("vjp", type(task).vjp)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode for the length of a call; afterwards every module is in the mode it was in."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True
