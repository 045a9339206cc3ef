"""A vision-language model that sees a picture once and is asked about its words as often as one likes.

    prepare     samples → Batch                          processor, windows of the originals
    see         Batch → activations (b, k, h, w)         the tower works, once
    say         activations → tokens                     generation, on what was seen
    logs        activations, tokens → log p (b, t, v)    one teacher-forced pass, differentiable in the activations

Nothing is hooked into `generate`: what was said is scored anew, as a given text is.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import ref

import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor, nn

from mmcam.errors import UserError
from mmcam.huggingface.families import Family, find
from mmcam.huggingface.features import METHOD, Features, fallback
from mmcam.huggingface.grids import Grid, whole_window
from mmcam.huggingface.inputs import alike, continued, joined, left_aligned, taken_apart
from mmcam.huggingface.leaf import NONE, Run, Tower, Wrappers
from mmcam.huggingface.prompts import OPENINGS, tokenizer
from mmcam.huggingface.vilt import patches, seeded
from mmcam.huggingface.windows import NOWHERE, windows
from mmcam.networks.twin import Nest
from mmcam.task import Batch, Sample, Window

__all__ = ["Speaker"]

NAN = (float("nan"),) * 4


class Speaker:
    """A model with its processor.

    Attributes:
        model: The model.
        processor: Its processor; a pair of tokenizer and image processor will do.
        family: What is particular to it.
        tokenizer: The processor's part that reads text.
        layer: Name of the leaf.
    """

    def __init__(
        self,
        model: Any,  # noqa: ANN401
        processor: Any,  # noqa: ANN401
        family: Family | None = None,
        layer: str | None = None,
    ) -> None:
        """Join model and processor.

        Args:
            model: The model, in eval mode.
            processor: Its processor.
            family: What is particular to it, if it is not one of `mmcam.huggingface.families.FAMILIES`.
            layer: Another module than the family's, whose output is explained.

        Raises:
            UserError: There is no such module.
        """
        found = family or find(model.config, type(model).__name__) or fallback(model.config)
        self.model, self.processor, self.family = model, processor, found
        self.tokenizer = tokenizer(processor)
        self._tower = Features(model) if found.leaf == METHOD else _tower(model, found, layer)
        self.layer = self._tower.leaf
        self._eye = _Eye(self)
        self._proven = False

    @property
    def config(self) -> Any:  # noqa: ANN401
        """The model's configuration."""
        return self.model.config

    @property
    def pad(self) -> int:
        """The number that fills up text."""
        number = self.tokenizer.pad_token_id
        return 0 if number is None else number

    @property
    def ends(self) -> set[int]:
        """The tokens that end an answer."""
        told = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
        text = getattr(self.config, "text_config", None)
        found = [told, self.tokenizer.eos_token_id, getattr(text, "sep_token_id", None)]
        return {n for x in found if x is not None for n in (x if isinstance(x, list) else [x])}

    def prepare(self, samples: Sequence[Sample], prompts: Sequence[str]) -> Batch:
        """Make a batch; safe in a worker process.

        Args:
            samples: The samples.
            prompts: What each is asked, without marks.

        Returns:
            The batch. `images` are what the network sees if that is one picture a sample, else empty.
        """
        opening = OPENINGS[self.family.opening]
        each = [
            opening(self.processor, self.config, s.image, prompt) for s, prompt in zip(samples, prompts, strict=True)
        ]
        inputs = joined(each, self.pad, self.family.packed)
        sizes = tuple((s.image.height, s.image.width) for s in samples)
        seen = [self._windows(size) for size in sizes]
        if self.family.shown == "tiles":
            inputs["tile_windows"] = _filled(seen)
        pixels = inputs.get("pixel_values")
        single = pixels is not None and pixels.ndim == 4 and self.family.shown == "one"
        return Batch(
            images=inputs.pop("pixel_values") if single else torch.empty(len(samples), 3, 0, 0),
            ids=tuple(s.id for s in samples),
            sizes=sizes,
            texts=tuple(s.text for s in samples),
            windows=tuple(whole_window(row) for row in seen),
            inputs=inputs,
        )

    def see(self, batch: Batch) -> Float[Tensor, "b k h w"]:
        """Let the tower work; leaves in the memo what belongs to the leaf besides the activations."""
        if self.family.speech == "classes":
            batch.memo.update(patches(self.model, self._inputs(batch)))
        leaf = self._tower.below(self._forward(self._inputs(batch)))
        shape = tuple(leaf[0].shape)
        grid = self._grid(batch, shape)
        canvas, rest = grid.spread(leaf)
        batch.memo.update(shape=shape, rest=rest)
        if grid.places is not None:
            batch.memo["places"] = torch.tensor(grid.places, device=canvas.device)
        if not self._proven:
            self._prove(canvas, batch)
        return canvas

    def _prove(self, canvas: Float[Tensor, "b k h w"], batch: Batch) -> None:
        """Make sure, once, that answers depend on the leaf, and on nothing else of the tower."""
        one = torch.zeros(1, dtype=torch.long, device=canvas.device)
        with torch.inference_mode(False), torch.enable_grad():
            first, chosen = canvas[:1].detach().clone().requires_grad_(), batch.take(one)
            if self.speech == "classes":
                logits = self.choices(first, chosen)
            else:
                logits = self.logits(first, chosen, one[:, None], torch.ones_like(one[:, None], dtype=torch.bool))
            gradient = None
            if logits.requires_grad:
                # Weighted, since softmax and norms may make a plain sum constant.
                weights = torch.linspace(-1, 1, logits.numel(), device=logits.device).view_as(logits).square()
                try:
                    (gradient,) = torch.autograd.grad((logits.float() * weights).sum(), first, allow_unused=True)
                except (NotImplementedError, RuntimeError) as error:
                    raise UserError(
                        f"{type(self.model).__name__} cannot be differentiated: {' '.join(str(error).split())[:200]}; "
                        "load it without quantisation"
                    ) from error
        if not bool(torch.isfinite(logits.detach()).all()):
            raise UserError(
                f"cut at {self.layer!r}, {type(self.model).__name__} reads more of its tower than this layer, or gives "
                "numbers that are not finite; choose another layer, or float32"
            )
        if gradient is None or not bool(gradient.any()):
            raise UserError(
                f"no answer of {type(self.model).__name__} depends on the picture's places in {self.layer!r}; "
                "choose an earlier layer"
            )
        self._proven = True

    def lay(self, maps: Float[Tensor, "b r h w"], batch: Batch) -> list[Float[Tensor, "r y x"]]:
        """Lay maps on the canvas over the pictures."""
        return self._grid(batch, batch.memo["shape"]).lay(maps)

    def say(self, activations: Float[Tensor, "b k h w"], batch: Batch, **options: Any) -> list[list[int]]:  # noqa: ANN401
        """Generate answers.

        Args:
            activations: What was seen.
            batch: The samples.
            options: Of `generate`: `max_new_tokens`, `num_beams`, `do_sample` …

        Returns:
            The tokens of each answer, without the prompt and without the mark that ends it.
        """
        if self.family.alike:
            groups = list(self._alike(batch))
            said = [row for i, some in groups for row in self._say(activations[i], some, **options)]
            order = torch.cat([i for i, _ in groups]).argsort().tolist()
            return [said[place] for place in order]
        return self._say(activations, batch, **options)

    def _say(self, activations: Float[Tensor, "b k h w"], batch: Batch, **options: Any) -> list[list[int]]:  # noqa: ANN401
        said, prompt = self.generate(activations, batch, **options), self._prompt(batch).get("input_ids")
        if self.speech == "encoder-decoder":
            said = said[:, 1:]
        elif prompt is not None and said.shape[1] >= prompt.shape[1]:
            kept = prompt.shape[1] - (self.family.opening == "blip")
            if bool((said[:, :kept] == prompt[:, :kept].to(said.device)).all()):
                said = said[:, kept:]
        return [self._answer(row) for row in said.tolist()]

    @torch.no_grad()
    def generate(self, activations: Float[Tensor, "b k h w"], batch: Batch, **options: Any) -> Any:  # noqa: ANN401
        """Call the model's `generate` on what was seen; gives what that gives."""
        given = taken_apart(self._prompt(batch), self._dtype)
        return self._above(activations, batch, lambda model: model.generate(**given, **options))

    def _prompt(self, batch: Batch) -> dict[str, Tensor]:
        inputs = dict(batch.inputs) | self._pixels(batch)
        if "input_ids" in inputs:
            inputs = left_aligned(inputs)
        # BLIP's generate drops the last token, which it takes for an end mark.
        return _one_more(inputs, next(iter(self.ends))) if self.family.opening == "blip" else inputs

    def logs(
        self,
        activations: Float[Tensor, "b k h w"],
        batch: Batch,
        ids: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"],
        others: Wrappers = NONE,
    ) -> Float[Tensor, "b t v"]:
        """Compute log p(token | picture, prompt, tokens before) for all tokens, in float32 at least.

        Args:
            activations: What is seen.
            batch: The samples.
            ids: The answers, padded on the right.
            mask: Which of them are real.
            others: Calls of modules that shall be other ones, by name; see `mmcam.huggingface.hearing`.

        Returns:
            Log-probabilities of all tokens of the vocabulary at each of the answers'.
        """
        logits = self.logits(activations, batch, ids, mask, others)
        return logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))

    def logits(
        self,
        activations: Float[Tensor, "b k h w"],
        batch: Batch,
        ids: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"],
        others: Wrappers = NONE,
    ) -> Float[Tensor, "b t v"]:
        """Compute the scores before softmax; see `logs`."""
        if self.family.alike:
            groups = list(self._alike(batch))
            found = [self._logits(activations[i], some, ids[i], mask[i]) for i, some in groups]
            return torch.cat(found)[torch.cat([i for i, _ in groups]).argsort()]
        return self._logits(activations, batch, ids, mask, others)

    def _alike(self, batch: Batch) -> Iterator[tuple[Int[Tensor, " n"], Batch]]:
        for index, text in alike(batch.inputs):
            chosen = batch.take(index)
            yield index, replace(chosen, inputs={**chosen.inputs, **text})

    def _logits(
        self,
        activations: Float[Tensor, "b k h w"],
        batch: Batch,
        ids: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"],
        others: Wrappers = NONE,
    ) -> Float[Tensor, "b t v"]:
        inputs = dict(batch.inputs) | self._pixels(batch)
        filler = torch.where(mask, ids, self.pad)
        if self.speech == "encoder-decoder":
            start = filler.new_full((len(filler), 1), self._start)
            inputs["decoder_input_ids"] = torch.cat([start, filler], 1)[:, :-1]
            return self._answered(activations, batch, taken_apart(inputs, self._dtype))
        inputs, places = continued(inputs, filler, mask.sum(1), self.family.filled or {})
        length, options = inputs["input_ids"].shape[1], {}
        if "logits_to_keep" in inspect.signature(self.model.forward).parameters:
            options["logits_to_keep"] = length - int(places.min())
        logits = self._answered(activations, batch, {**taken_apart(inputs, self._dtype), **options}, others)
        places = places.to(logits.device) - (length - logits.shape[1])  # of pictures and of what was not kept
        return logits.gather(1, places.clamp(0, logits.shape[1] - 1)[..., None].expand(-1, -1, logits.shape[2]))

    def choices(self, activations: Float[Tensor, "b k h w"], batch: Batch) -> Float[Tensor, "b a"]:
        """Compute the logits of all answers of a model that chooses one."""
        return self._answered(activations, batch, self._inputs(batch))

    def _answered(
        self, activations: Float[Tensor, "b k h w"], batch: Batch, inputs: Mapping[str, Any], others: Wrappers = NONE
    ) -> Float[Tensor, "b *t v"]:
        output = self._above(activations, batch, self._forward(inputs), self.family.tapped, others)
        return output if isinstance(output, Tensor) else output["logits"]

    def _above(
        self,
        activations: Float[Tensor, "b k h w"],
        batch: Batch,
        run: Run,
        tapped: str = "",
        others: Wrappers = NONE,
    ) -> Nest:
        def leaf(times: int) -> list[Tensor]:
            canvas, chosen = activations, batch
            if times > 1:
                index = torch.arange(len(batch), device=activations.device).repeat_interleave(times)
                canvas, chosen = activations[index], batch.take(index)
            return self._grid(chosen, batch.memo["shape"]).gather(canvas, chosen.memo["rest"])

        return self._tower.above(leaf, run, tapped, others)

    def _forward(self, inputs: Mapping[str, Tensor]) -> Run:
        def forward(model: nn.Module) -> Any:  # noqa: ANN401
            known = inspect.signature(model.forward).parameters
            return model(**{name: x for name, x in inputs.items() if name in known})

        return seeded(forward) if self.speech == "classes" else forward

    def _inputs(self, batch: Batch) -> dict[str, Tensor]:
        inputs = dict(batch.inputs) | self._pixels(batch)
        if self.speech == "encoder-decoder" and "decoder_input_ids" not in inputs:
            inputs["decoder_input_ids"] = torch.full((len(batch), 1), self._start, device=batch.images.device)
        return taken_apart(inputs, self._dtype)

    def _pixels(self, batch: Batch) -> dict[str, Tensor]:
        return {"pixel_values": batch.images} if batch.images.numel() else {}

    def _grid(self, batch: Batch, shape: tuple[int, ...]) -> Grid:
        inputs = {**batch.inputs, **self._pixels(batch)}
        inputs |= {name: x for name, x in batch.memo.items() if name.startswith("patch_")}
        return self.family.grid(self.config, inputs, shape)

    def _windows(self, size: tuple[int, int]) -> tuple[Window, ...]:
        if self.family.shown == "whole":
            return ((0.0, 0.0, float(size[0]), float(size[1])),)
        found = windows(self._eye, size)
        # Of a processor that always makes as many tiles the last ones may be empty.
        while len(found) > 1 and self.family.batched and found[-1] == NOWHERE:
            found = found[:-1]
        return found

    def _answer(self, row: list[int]) -> list[int]:
        ends = self.ends
        stop = next((i for i, number in enumerate(row) if number in ends), len(row))
        return row[:stop]

    @property
    def speech(self) -> str:
        """How the model answers; of families that have both, as its configuration says."""
        if getattr(self.config, "use_decoder_only_language_model", None) is False:
            return "encoder-decoder"
        return self.family.speech

    @property
    def _start(self) -> int:
        """The token with which a decoder of its own begins."""
        text = getattr(self.config, "text_config", None)
        if self.family.opening == "blip-question":
            return int(self.model.decoder_start_token_id)  # pyright: ignore[reportArgumentType]
        for name in ("decoder_start_token_id", "bos_token_id"):
            for holder in (getattr(self.model, "generation_config", None), self.config, text):
                number = getattr(holder, name, None)
                if number is not None:
                    return int(number)
        raise UserError(f"{type(self.model).__name__} does not say with which token answers begin")

    @property
    def _dtype(self) -> torch.dtype:
        return next((p.dtype for p in self.model.parameters() if p.is_floating_point()), torch.float32)


class _Eye:
    """What a speaker makes of a picture, called like an image processor; so windows are those of the very inputs."""

    def __init__(self, speaker: Speaker) -> None:
        self._speaker = ref(speaker)

    def __call__(self, images: Any, **options: Any) -> dict[str, Any]:  # noqa: ANN401
        speaker = self._speaker()
        assert speaker is not None
        image: Image.Image = images[0] if isinstance(images, list) else images
        asked = "" if speaker.family.opening == "none" else "what?"  # no prompt changes a picture that is measured
        return OPENINGS[speaker.family.opening](speaker.processor, speaker.config, image, asked)


def _filled(rows: Sequence[Sequence[Window]]) -> Float[Tensor, "b t 4"]:
    """Windows of tiles as a tensor; NaN where a sample has fewer."""
    most = max(len(row) for row in rows)
    return torch.tensor([[*row, *[NAN] * (most - len(row))] for row in rows], dtype=torch.float64)


def _tower(model: nn.Module, family: Family, layer: str | None) -> Tower:
    """The family's cut, or one at another layer of the user's."""
    own = _named(model, family.leaf)
    if layer in (None, own):
        return Tower(model, [*family.towers, *_siblings(model, own)], own, family.side, family.fields)
    return Tower(model, _siblings(model, layer), layer)


def _named(model: nn.Module, name: str) -> str:
    """A module's name whose negative numbers count from the end, as in "encoder.layer.-2"."""
    parts: list[str] = []
    for part in name.split("."):
        if part.startswith("-"):
            part = str(len(list(model.get_submodule(".".join(parts)).children())) + int(part))
        parts.append(part)
    return ".".join(parts)


def _siblings(model: nn.Module, leaf: str) -> list[str]:
    """The modules before the leaf in its list, whose work is done when the leaf is reached."""
    parent, _, own = leaf.rpartition(".")
    if not own.isdecimal():
        return []
    return [f"{parent}.{i}" for i in range(int(own))]


def _one_more(inputs: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    """Put one more token at the end of the text."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    return {
        **inputs,
        "input_ids": torch.cat([ids, torch.full_like(ids[:, :1], number)], 1),
        "attention_mask": torch.cat([mask, torch.ones_like(mask[:, :1])], 1),
    }
