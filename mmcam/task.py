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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from mmcam.errors import UserError
from mmcam.gradients import Vjp, batched

Window = tuple[float, float, float, float]
"""Part of the original picture that the network sees: top, left, bottom, right in pixels."""


@dataclass(frozen=True)
class Sample:
    """One thing to explain, before it is a tensor.

    Attributes:
        image: RGB and upright, see `mmcam.image.read_image`.
        id: Names the picture (for questions: the question) in every output.
        text: The question; empty where the task has none.
    """

    image: Image.Image
    id: str
    text: str = ""


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples as tensors.

    Attributes:
        images: The network's input.
        ids: One name a sample.
        sizes: Height and width of each original picture.
        texts: The questions; "" where there is none.
        windows: Which part of the original the input shows; the whole of it unless cropped.
        inputs: What else the task needs, first axis b (question tokens, lengths …).
        memo: What `trunk` leaves for `scores` besides the activations (prefix tokens, skip connections), first axis b.
    """

    images: Float[Tensor, "b c h w"]
    ids: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    texts: tuple[str, ...] = ()
    windows: tuple[Window, ...] = ()
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    memo: dict[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not self.texts:
            object.__setattr__(self, "texts", ("",) * len(self))
        if not self.windows:
            object.__setattr__(self, "windows", tuple((0.0, 0.0, float(h), float(w)) for h, w in self.sizes))
        counts = [len(self.images), len(self.sizes), len(self.texts), len(self.windows)]
        if set(counts) != {len(self)}:
            raise ValueError(f"a Batch of {len(self)} ids needs as many images, sizes, texts and windows; got {counts}")

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> "Batch":
        """Move every tensor; asynchronously where the memory is pinned."""
        return replace(
            self,
            images=_move(self.images, device),
            inputs={name: _move(value, device) for name, value in self.inputs.items()},
            memo=_each_tensor(self.memo, lambda value: _move(value, device)),
        )

    def pin_memory(self) -> "Batch":
        """Let a GPU fetch the tensors while it computes; `DataLoader` calls this."""
        inputs = {name: value.pin_memory() for name, value in self.inputs.items()}
        return replace(self, images=self.images.pin_memory(), inputs=inputs)

    def take(self, index: Int[Tensor, " n"]) -> "Batch":
        """Choose samples by number, in that order, also several times."""
        chosen = index.tolist()
        return Batch(
            images=self.images[index],
            ids=tuple(self.ids[i] for i in chosen),
            sizes=tuple(self.sizes[i] for i in chosen),
            texts=tuple(self.texts[i] for i in chosen),
            windows=tuple(self.windows[i] for i in chosen),
            inputs={name: value[index] for name, value in self.inputs.items()},
            memo=_each_tensor(self.memo, lambda x: x[index] if x.ndim and len(x) == len(self) else x),
        )


def _move(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Move a tensor, and make one out of `inference_mode` fit for autograd, which would refuse to save it."""
    # A copy to the CPU that does not block may be read before it has arrived.
    moved = tensor.to(device, non_blocking=torch.device(device).type != "cpu")
    return moved.clone() if moved.is_inference() else moved


def _each_tensor(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:  # noqa: ANN401
    return tree_map_only(Tensor, change, tree)


@dataclass(frozen=True, eq=False)
class Targets:
    """What to explain: token, answer or class ids, and the rows of scores that get a map each.

    A row is a linear combination of the ids' scores, `rows[r] @ y`. By linearity words of several sub-tokens, phrases,
    sentences and counterfactuals are rows too and need no code of their own.

    Attributes:
        ids: Padded with any valid id.
        mask: Which ids are real.
        words: Name of each row; ragged, one tuple a sample.
        rows: Coefficients; zero for padding.
        foils: If given, y is the score of the id minus that of the foil ("a rather than b").
    """

    ids: Int[Tensor, "b t"]
    mask: Bool[Tensor, "b t"]
    words: tuple[tuple[str, ...], ...]
    rows: Float[Tensor, "b r t"]
    foils: Int[Tensor, "b t"] | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.ids.shape)
        alike = [tuple(x.shape) for x in (self.mask, self.foils) if x is not None]
        named = len(self.words), max((len(names) for names in self.words), default=0)
        rows = tuple(self.rows.shape)
        if {*alike, rows[::2]} != {shape} or named[0] != shape[0] or named[1] > rows[1]:
            raise UserError(
                "expected targets with ids, mask and foils of shape (b, t), rows (b, r, t) and up to r words for each "
                f"of b samples; got {[shape, *alike]}, {rows} and up to {named[1]} words for each of {named[0]}; "
                "Targets.of makes them so"
            )

    @classmethod
    def of(
        cls, ids: Sequence[Sequence[int]], words: Sequence[Sequence[str]], device: torch.device | str = "cpu"
    ) -> "Targets":
        """Make targets with one row an id.

        Args:
            ids: For each sample the ids to explain; as many as there are words.
            words: Their names.
            device: Where the tensors shall lie.

        Returns:
            The padded targets.
        """
        if [len(row) for row in ids] != [len(row) for row in words]:
            counts = [len(row) for row in ids], [len(row) for row in words]
            raise UserError(f"expected one word an id, got {counts[0]} ids and {counts[1]} words")
        length = max((len(row) for row in ids), default=0)
        padded = torch.tensor([[*row, *([0] * (length - len(row)))] for row in ids], dtype=torch.long, device=device)
        lengths = torch.tensor([len(row) for row in ids], dtype=torch.long, device=device)
        mask = torch.arange(length, device=device) < lengths[:, None]  # boolean also where there is nothing
        names = tuple(tuple(row) for row in words)
        return cls(padded.view(len(ids), length), mask, names, torch.diag_embed(mask.to(torch.float32)))

    def __len__(self) -> int:
        return len(self.words)

    def to(self, device: torch.device | str) -> "Targets":
        """Move every tensor."""
        foils = None if self.foils is None else _move(self.foils, device)
        ids, mask, rows = (_move(tensor, device) for tensor in (self.ids, self.mask, self.rows))
        return replace(self, ids=ids, mask=mask, rows=rows, foils=foils)

    def take(self, index: Int[Tensor, " n"]) -> "Targets":
        """Choose samples by number, in that order, also several times."""
        foils = None if self.foils is None else self.foils[index]
        words = tuple(self.words[i] for i in index.tolist())
        return Targets(self.ids[index], self.mask[index], words, self.rows[index], foils)

    def negative(self) -> "Targets":
        """Explain what speaks against each row: the counterfactual maps of the paper (section 3.3), y ← -y."""
        return replace(self, rows=-self.rows)

    def rather_than(self, foils: Int[Tensor, "b t"]) -> "Targets":
        """Explain each id rather than another one at the same place: y ← y(id) - y(foil)."""
        if foils.shape != self.ids.shape:
            raise UserError(f"foils must be {tuple(self.ids.shape)} like the ids; got {tuple(foils.shape)}")
        return replace(self, foils=foils)

    def merged(self, spans: Sequence[Sequence[tuple[int, int]]], separator: str = " ") -> "Targets":
        """Sum neighbouring rows into one, named by their words joined: phrases, or words out of sub-words.

        Args:
            spans: For each sample half-open ranges of its rows; a range becomes one row.
            separator: Between the words; "" for sub-words.

        Returns:
            Targets with one row a span. Their maps before ReLU are the sums of the rows' maps.

        Raises:
            UserError: A span is empty or lies outside its sample's words, or samples are missing.
        """
        if len(spans) != len(self):
            raise UserError(f"expected spans for {len(self)} samples, got them for {len(spans)}")
        count = max((len(ranges) for ranges in spans), default=0)
        rows = self.rows.new_zeros(len(self), count, self.rows.shape[-1])
        words = []
        for i, ranges in enumerate(spans):
            for r, (start, end) in enumerate(ranges):
                if not 0 <= start < end <= len(self.words[i]):
                    raise UserError(f"span {start}:{end} lies outside the {len(self.words[i])} words of sample {i}")
                rows[i, r] = self.rows[i, start:end].sum(0)
            words.append(tuple(separator.join(self.words[i][start:end]) for start, end in ranges))
        return replace(self, rows=rows, words=tuple(words))

    def sentence(self) -> "Targets":
        """One row a sample: the sum of all its rows, such as the log-probability of all words of a caption."""
        return self.merged([[(0, len(words))] if words else [] for words in self.words])

    def only(self, keep: Sequence[Sequence[int]]) -> "Targets":
        """Keep some rows, by number, in that order."""
        return replace(
            self.merged([[(r, r + 1) for r in numbers] for numbers in keep]),
            words=tuple(tuple(words[r] for r in numbers) for words, numbers in zip(self.words, keep, strict=True)),
        )

    def row_ids(self) -> list[list[int]]:
        """The vocabulary, answer or class id of each row; -1 for a row made of several."""
        if not self.rows.numel():
            return [[-1] * len(words) for words in self.words]
        single = (self.rows != 0).sum(-1) == 1  # (b, r)
        place = (self.rows != 0).int().argmax(-1)  # (b, r)
        ids = self.ids.gather(1, place).where(single, -1).tolist()
        return [row[: len(words)] for row, words in zip(ids, self.words, strict=True)]

    def pick(self, scores: Float[Tensor, "b *t v"]) -> Float[Tensor, "b t"]:
        """Read y out of the scores of all v words, answers or classes, less those of the foils.

        Args:
            scores: (b, v) where all targets share one distribution, (b, t, v) where each has its own.

        Returns:
            One score a target.
        """

        def read(ids: Tensor) -> Tensor:
            return scores.gather(1, ids) if scores.ndim == 2 else scores.gather(2, ids[..., None]).squeeze(2)

        y = read(self.ids.long())
        return y if self.foils is None else y - read(self.foils.long())

    def second(self, scores: Float[Tensor, "b *t v"]) -> Int[Tensor, "b t"]:
        """Read out of the scores of all v words, answers or classes which is the best besides each id itself.

        Args:
            scores: As for `pick`; minus infinity for what must not be chosen.

        Returns:
            The runner-up where the id is the best of all, else the best.

        Raises:
            UserError: There is nothing else.
        """
        if scores.shape[-1] < 2:
            raise UserError(f"expected at least 2 answers or classes, to have a runner-up; got {scores.shape[-1]}")
        first, second = scores.topk(2).indices.unbind(-1)  # (b, *t)
        if scores.ndim == 2:
            first, second = first[:, None], second[:, None]
        return torch.where(first == self.ids, second, first)


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
        seeing: Names of the modules of the head that still belong to the CNN: `mmcam.guided` rules there too.
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
