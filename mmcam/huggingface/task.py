"""What tasks over Hugging Face's models share: the model with its processor, its tower, its canvas."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmcam.draw import upsample
from mmcam.errors import UserError
from mmcam.huggingface.draws import drawing
from mmcam.huggingface.families import Family
from mmcam.huggingface.hearing import heard, hearing
from mmcam.huggingface.load import pretrained
from mmcam.huggingface.placement import check_present, placed
from mmcam.huggingface.speaker import Speaker
from mmcam.task import Batch, Heard, Targets, Task

NEARLY = 1e-6

__all__ = ["Generation", "HFTask", "Source"]


@dataclass(frozen=True)
class Source:
    """How a model that is named is loaded.

    Attributes:
        revision: Commit, branch or tag on the hub.
        dtype: "auto" (as saved), "float32", "bfloat16" or "float16".
        device_map: As transformers takes it ("auto"); the model then stays where it was put.
        trust_remote_code: Let a repository's own code run on this machine; refused unless it is asked for.
    """

    revision: str | None = None
    dtype: str = "auto"
    device_map: str | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Generation:
    """How a model speaks.

    Attributes:
        length: Most tokens.
        beam: Hypotheses that are kept; 1 is greedy.
        sample: Draw tokens instead of taking the best.
        seed: Of the draws; the caller's random state is left alone.
        options: Others of transformers' `generate`, such as {temperature: 0.7, repetition_penalty: 1.2}.
    """

    length: int = 30
    beam: int = 1
    sample: bool = False
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


class HFTask(Task):
    """A model that sees and speaks."""

    def __init__(
        self,
        model: str | nn.Module,
        processor: Any = None,  # noqa: ANN401
        *,
        layer: str | None = None,
        family: Family | None = None,
        source: Source | None = None,
        generation: Generation | None = None,
        grid: tuple[int, int] | None = None,
    ) -> None:
        """Make the task.

        Args:
            model: A hub id, a folder, or a model of transformers.
            processor: Of a model that is given; loaded with one that is named.
            layer: Name of a module whose output is explained; the family's own if not given.
            family: What is particular to a model without a row of its own in `mmcam.huggingface.families`.
            source: How a model that is named is loaded.
            generation: How the model speaks.
            grid: Height and width of all maps, bilinearly; each picture's own if not given. A dump holds maps of one
                size, which tiles and packed pictures do not have.

        Raises:
            UserError: There is no such model or layer, or its kind cannot be explained.
        """
        super().__init__()
        if grid is not None and min(grid) < 1:
            raise UserError(f"expected a grid of 1 x 1 at least, got {grid[0]} x {grid[1]}")
        self.grid = grid
        self._generation = generation or Generation()
        if isinstance(model, str):
            s = source or Source()
            model, processor = pretrained(model, s.revision, s.trust_remote_code, s.dtype, s.device_map)
        if processor is None:
            raise UserError("expected a processor with a model that is made already; give processor=")
        check_present(model)
        self.model = model.eval()
        self.speaker = Speaker(model, processor, family, layer)
        self.layer = self.speaker.layer

    def trunk(self, batch: Batch) -> Float[Tensor, "b k h w"]:
        """The vision tower's output, on a canvas; of ViLT, which has no tower, a layer's image tokens."""
        return self.speaker.see(batch)

    def laid(self, maps: Float[Tensor, "b r h w"], batch: Batch) -> Sequence[Float[Tensor, "r _ _"]]:
        """Tiles, packed and padded pictures brought over the originals."""
        laid = self.speaker.lay(maps, batch)
        return laid if self.grid is None else [upsample(one, self.grid) for one in laid]

    def spoken(self, activations: Float[Tensor, "b k h w"], batch: Batch) -> list[list[int]]:
        """The tokens that the model generates for each sample."""
        how = self._generation
        options = {"max_new_tokens": how.length, "num_beams": how.beam, "do_sample": how.sample, **how.options}
        with drawing(self.model, how.seed):
            return self.speaker.say(activations, batch, **options)

    def log_probabilities(
        self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets
    ) -> Float[Tensor, "b t v"]:
        """Of all tokens of the vocabulary, at the place of each token of the targets."""
        if targets.ids.shape[1] == 0:
            return activations.new_zeros(len(targets), 0, 2)  # of no token, so of any vocabulary
        return self.speaker.logs(activations, batch, targets.ids, targets.mask)

    def blank(self, batch: Batch) -> Batch:
        """The same samples before a picture of the mean colour; not quite zero, as models drop tiles that are."""
        inputs = {name: x * 0 + NEARLY if name == "pixel_values" else x for name, x in batch.inputs.items()}
        if "flattened_patches" in inputs:
            patches = inputs["flattened_patches"]
            inputs["flattened_patches"] = torch.cat([patches[..., :2], patches[..., 2:] * 0], -1)  # where, and what
        return replace(batch, images=batch.images * 0 + NEARLY, inputs=inputs, memo={})

    def heard(self, batch: Batch, targets: Targets) -> Heard:
        """The tokens of the prompt, and those of the answer before its last; marks and pictures are not heard."""
        return heard(self.speaker, batch, targets)

    def scores_heard(
        self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets, vectors: Float[Tensor, "bm l d"]
    ) -> Float[Tensor, "bm t"]:
        """The same scores, from vectors in the place of the tokens' own."""
        if targets.ids.shape[1] == 0:
            return activations.new_zeros(len(vectors), 0)
        index = torch.arange(len(batch), device=vectors.device).repeat_interleave(len(vectors) // max(1, len(batch)))
        activations, batch, targets = activations[index], batch.take(index), targets.take(index)
        return self.speaker.scores(activations, batch, targets, hearing(self.speaker, batch, targets, vectors))

    def token_names(self, ids: Sequence[Sequence[int]]) -> list[list[str]]:
        """Each token as a text."""
        return [[self.speaker.tokenizer.decode([number]).strip() for number in row] for row in ids]

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Any:  # noqa: ANN401
        """Move the model, unless it was put where it is by a device map."""
        return self if placed(self.model) else super()._apply(fn, recurse)


def others(targets: Targets, scores: Float[Tensor, "b *t v"]) -> list[list[int]]:
    """The best ids besides those of the targets; ragged."""
    counts = targets.mask.sum(1).tolist()
    return [row[:count] for row, count in zip(targets.second(scores).tolist(), counts, strict=True)]
