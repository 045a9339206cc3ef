"""What to explain: which ids, and which sums of their scores get a map each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmcam.errors import UserError


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
        foils = None if self.foils is None else move(self.foils, device)
        ids, mask, rows = (move(tensor, device) for tensor in (self.ids, self.mask, self.rows))
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


def move(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Move a tensor, and make one out of `inference_mode` fit for autograd, which would refuse to save it."""
    # A copy to the CPU that does not block may be read before it has arrived.
    moved = tensor.to(device, non_blocking=torch.device(device).type != "cpu")
    return moved.clone() if moved.is_inference() else moved
