"""A vision-language model that sees a picture once and is asked about its words as often as one likes.

    reader      samples → Batch                          `mmcam.huggingface.reader`
    see         Batch → activations (b, k, h, w)         the tower works, once
    say         activations → tokens                     generation, on what was seen
    logs        activations, tokens → log p (b, t, v)    one teacher-forced pass, differentiable in the activations

Nothing is hooked into `generate`: what was said is scored anew, as a given text is.
"""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import replace
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
from mmcam.huggingface.reader import Reader
from mmcam.huggingface.vilt import patches, seeded
from mmcam.likelihood import word_log_probability, word_logit_difference
from mmcam.networks.twin import Nest, named
from mmcam.task import Batch, Targets

__all__ = ["Speaker"]


class Speaker:
    """A model with its processor.

    Attributes:
        model: The model.
        family: What is particular to it.
        reader: Its processor.
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
        self.model, self.family = model, found
        self.reader = Reader(processor, model.config, found)
        self.tokenizer = self.reader.tokenizer
        self._tower = tower(model, found, layer)
        self.layer = self._tower.leaf
        self._proven = self._plain_readout = False

    @property
    def config(self) -> Any:  # noqa: ANN401
        """The model's configuration."""
        return self.model.config

    @property
    def ends(self) -> set[int]:
        """The tokens that end an answer."""
        told = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
        text = getattr(self.config, "text_config", None)
        found = [told, self.tokenizer.eos_token_id, getattr(text, "sep_token_id", None)]
        return {n for x in found if x is not None for n in (x if isinstance(x, list) else [x])}

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
            try:
                if self.speech == "classes":
                    logits = self.choices(first, chosen)
                else:
                    logits = self.logits(first, chosen, one[:, None], torch.ones_like(one[:, None], dtype=torch.bool))
            except (TypeError, AttributeError, LookupError) as error:  # it reads what the tower kept on its way
                raise UserError(
                    f"cut at {self.layer!r}, {type(self.model).__name__} cannot go on: {type(error).__name__}: "
                    f"{' '.join(str(error).split())[:200]}; choose another layer"
                ) from error
            if self.speech != "classes":
                self._plain_readout = self._reads_plainly(first.detach(), chosen, logits.detach())
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
            groups = list(self._alike(batch))
            said = [row for i, some in groups for row in self._say(activations[i], some, **options)]
            order = torch.cat([i for i, _ in groups]).argsort().tolist()
            return [said[place] for place in order]
        return self._say(activations, batch, **options)

    def _say(self, activations: Float[Tensor, "b k h w"], batch: Batch, **options: Any) -> list[list[int]]:  # noqa: ANN401
        said, prompt = self.generate(activations, batch, **options), self._prompt(batch).get("input_ids")
        said = getattr(said, "sequences", said)  # the user may ask for more than tokens
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
        try:
            return self._above(activations, batch, lambda model: model.generate(**given, **options))
        except (ValueError, ZeroDivisionError) as error:  # by transformers, which checks what users ask for
            raise UserError(
                f"{type(self.model).__name__} cannot generate with {options}: {' '.join(str(error).split())[:200]}"
            ) from error

    def _prompt(self, batch: Batch) -> dict[str, Tensor]:
        inputs = dict(batch.inputs) | self._pixels(batch)
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
            groups = list(self._alike(batch))
            found = [self._logits(activations[i], some, ids[i], mask[i], others) for i, some in groups]
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
        filler = torch.where(mask, ids, self.reader.pad)
        if self.speech == "encoder-decoder":
            start = filler.new_full((len(filler), 1), self._start)
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
        if not self._plain_readout:
            return targets.pick(self.logs(activations, batch, targets.ids, targets.mask, others))
        name, readout = self._readout
        asked = {**others, name: lambda call: lambda states: states}
        states = self.logits(activations, batch, targets.ids, targets.mask, asked)
        bias = readout.weight.new_zeros(len(readout.weight)) if readout.bias is None else readout.bias
        if targets.foils is None:
            return word_log_probability(states, readout.weight, bias, targets.ids)
        return word_logit_difference(states, readout.weight, bias, targets.ids, targets.foils)

    @property
    def _readout(self) -> tuple[str, Any]:
        holders = (module for module in self.model.modules() if hasattr(module, "get_output_embeddings"))
        found = next((x for holder in holders if (x := holder.get_output_embeddings()) is not None), None)
        return next(((name, x) for name, x in named(self.model) if x is found), ("", None))

    @torch.no_grad()
    def _reads_plainly(
        self, activations: Float[Tensor, "1 k h w"], batch: Batch, logits: Float[Tensor, "1 1 v"]
    ) -> bool:
        """Whether logits are the readout's product with the states before it, and nothing else is done to them."""
        name, readout = self._readout
        if type(readout) is not nn.Linear:
            return False
        one = torch.zeros(1, 1, dtype=torch.long, device=logits.device)
        asked = {name: lambda call: lambda states: states}
        states = self.logits(activations, batch, one, torch.ones_like(one, dtype=torch.bool), asked)
        if states.shape[-1] != readout.in_features:
            return False
        return torch.allclose(readout(states).float(), logits.float(), atol=1e-3, rtol=1e-3)

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
