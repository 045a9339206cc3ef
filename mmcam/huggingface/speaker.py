"""A vision-language model that sees a picture once and is asked about its words as often as one likes.

    reader      samples → Batch                          `mmcam.huggingface.reader`
    see         Batch → activations (b, k, h, w)         the tower works, once
    say         activations → tokens                     generation, on what was seen
    logs        activations, tokens → log p (b, t, v)    one teacher-forced pass, differentiable in the activations

Nothing is hooked into `generate`: what was said is scored anew, as a given text is.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmcam.errors import UserError
from mmcam.huggingface.cutting import tower
from mmcam.huggingface.families import Family, find
from mmcam.huggingface.features import fallback
from mmcam.huggingface.grids import Grid
from mmcam.huggingface.inputs import alike, continued, left_aligned, one_more, taken_apart
from mmcam.huggingface.leaf import NONE, Run, Wrappers
from mmcam.huggingface.proof import plain_readout, prove, unread
from mmcam.huggingface.reader import Reader
from mmcam.huggingface.speech import after, ends, first_token, speech, until
from mmcam.huggingface.vilt import patches, seeded
from mmcam.likelihood import word_log_probability, word_logit_difference
from mmcam.networks.twin import Nest, named
from mmcam.task import Batch, Targets

__all__ = ["Speaker"]


class Speaker:
    """A model with its processor.

    Attributes:
        model: The model.
        config: Its configuration.
        family: What is particular to it.
        reader: Its processor.
        tokenizer: The processor's part that reads text.
        layer: Name of the leaf.
        speech: How the model answers; of families that have both, as its configuration says.
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
        self.model, self.config, self.family = model, model.config, found
        self.reader = Reader(processor, model.config, found)
        self.tokenizer = self.reader.tokenizer
        self._tower = tower(model, found, layer)
        self.layer = self._tower.leaf
        self.speech = speech(model.config, found)
        self._proven, self._readout = False, ""

    @property
    def ends(self) -> set[int]:
        """The tokens that end an answer."""
        return ends(self.model, self.tokenizer)

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
            self._look_closer(canvas, batch)
        return canvas

    def _look_closer(self, canvas: Float[Tensor, "b k h w"], batch: Batch) -> None:
        """Once: make sure of the cut, and find the readout."""
        one = torch.zeros(1, 1, dtype=torch.long, device=canvas.device)
        first, real = batch.take(one[0]), torch.ones_like(one, dtype=torch.bool)

        def ask(activations: Float[Tensor, "1 k h w"], others: Wrappers) -> Float[Tensor, "1 *t v"]:
            if self.speech == "classes":
                return self.choices(activations, first)
            return self.logits(activations, first, one, real, others)

        with torch.inference_mode(False), torch.enable_grad():
            logits = prove(self.model, self.layer, ask, canvas[:1])
            if self.speech != "classes":
                self._readout = plain_readout(self.model, ask, canvas[:1], logits)
        self._proven = True

    def lay(self, maps: Float[Tensor, "b r h w"], batch: Batch) -> list[Float[Tensor, "r _ _"]]:
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
        if self.family.alike or self.family.apart:
            groups = alike(batch)
            said = [row for i, some in groups for row in self._say(activations[i], some, **options)]
            order = torch.cat([i for i, _ in groups]).argsort().tolist()
            return [said[place] for place in order]
        return self._say(activations, batch, **options)

    def _say(self, activations: Float[Tensor, "b k h w"], batch: Batch, **options: Any) -> list[list[int]]:  # noqa: ANN401
        said, prompt = self.generate(activations, batch, **options), self._prompt(batch).get("input_ids")
        said = getattr(said, "sequences", said)  # the user may ask for more than tokens
        if self.speech == "encoder-decoder":
            said = said[:, 1:]
        elif prompt is not None:
            said = after(said, prompt[:, : prompt.shape[1] - (self.family.opening == "blip")])
        return [until(row, self.ends) for row in said.tolist()]

    @torch.no_grad()
    def generate(self, activations: Float[Tensor, "b k h w"], batch: Batch, **options: Any) -> Any:  # noqa: ANN401
        """Call the model's `generate` on what was seen; gives what that gives."""
        given = taken_apart(self._prompt(batch), self._dtype)
        try:
            return self._above(activations, batch, lambda model: model.generate(**given, **options))
        except (ValueError, ZeroDivisionError) as error:  # by transformers, which checks what users ask for
            raise UserError(
                f"{type(self.model).__name__} cannot generate with {options}: {' '.join(str(error).split())[:200]}"
            ) from error

    def _prompt(self, batch: Batch) -> dict[str, Tensor]:
        inputs = self._whole(batch)
        # Encoders see prompts as they are scored; only what goes on after them has to end in one place.
        if "input_ids" in inputs and self.speech != "encoder-decoder":
            inputs = left_aligned(inputs)
        # BLIP's generate drops the last token, which it takes for an end mark.
        return one_more(inputs, next(iter(self.ends))) if self.family.opening == "blip" else inputs

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
            groups = alike(batch)
            found = [self._logits(activations[i], some, ids[i], mask[i], others) for i, some in groups]
            return torch.cat(found)[torch.cat([i for i, _ in groups]).argsort()]
        return self._logits(activations, batch, ids, mask, others)

    def _logits(
        self,
        activations: Float[Tensor, "b k h w"],
        batch: Batch,
        ids: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"],
        others: Wrappers = NONE,
    ) -> Float[Tensor, "b t v"]:
        inputs = self._whole(batch)
        filler = torch.where(mask, ids, self.reader.pad)
        if self.speech == "encoder-decoder":
            start = filler.new_full((len(filler), 1), first_token(self.model, self.family))
            inputs["decoder_input_ids"] = torch.cat([start, filler], 1)[:, :-1]
            return self._answered(activations, batch, taken_apart(inputs, self._dtype), others)
        inputs, places = continued(inputs, filler, mask.sum(1), self.family.filled or {})
        length, options = inputs["input_ids"].shape[1], {}
        if "logits_to_keep" in inspect.signature(self.model.forward).parameters:
            options["logits_to_keep"] = length - int(places.min())
        logits = self._answered(activations, batch, {**taken_apart(inputs, self._dtype), **options}, others)
        places = places.to(logits.device) - (length - logits.shape[1])  # of pictures and of what was not kept
        return logits.gather(1, places.clamp(0, logits.shape[1] - 1)[..., None].expand(-1, -1, logits.shape[2]))

    def scores(
        self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets, others: Wrappers = NONE
    ) -> Float[Tensor, "b t"]:
        """Compute log p of the targets' tokens, less that of their foils.

        Where the model's last step is a plain product with its vocabulary, the hidden states before it are asked for,
        and that step is differentiated in closed form (`mmcam.likelihood`).

        Args:
            activations: What is seen.
            batch: The samples.
            targets: The tokens.
            others: See `logs`.
        """
        if targets.ids.shape[1] == 0:
            return activations.new_zeros(targets.ids.shape)
        if not self._readout:
            return targets.pick(self.logs(activations, batch, targets.ids, targets.mask, others))
        readout: Any = dict(named(self.model))[self._readout]
        states = self.logits(activations, batch, targets.ids, targets.mask, {**others, **unread(self._readout)})
        bias = readout.weight.new_zeros(len(readout.weight)) if readout.bias is None else readout.bias
        if targets.foils is None:
            return word_log_probability(states, readout.weight, bias, targets.ids)
        return word_logit_difference(states, readout.weight, bias, targets.ids, targets.foils)

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
        inputs = self._whole(batch)
        if self.speech == "encoder-decoder" and "decoder_input_ids" not in inputs:
            first = first_token(self.model, self.family)
            inputs["decoder_input_ids"] = torch.full((len(batch), 1), first, device=batch.images.device)
        return taken_apart(inputs, self._dtype)

    def _whole(self, batch: Batch) -> dict[str, Tensor]:
        pixels = {"pixel_values": batch.images} if batch.images.numel() else {}
        return {**batch.inputs, **pixels}

    def _grid(self, batch: Batch, shape: tuple[int, ...]) -> Grid:
        inputs = self._whole(batch)
        inputs |= {name: x for name, x in batch.memo.items() if name.startswith("patch_")}
        return self.family.grid(self.config, inputs, shape)

    @property
    def _dtype(self) -> torch.dtype:
        return next((p.dtype for p in self.model.parameters() if p.is_floating_point()), torch.float32)
