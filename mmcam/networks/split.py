"""Cut any network at a named layer: the lower half runs once without a graph, the upper half from the activations.

Each run has its own `mmcam.networks.twin` of the model, in eval mode, which is never touched itself.

- `Split.below` runs the forward up to the layer. Modules that finish before it leave their outputs.
- `Split.above` runs the same forward code again. Those modules answer with what they left, the layer with the
  activations that it is given. Operations between modules are done twice; no module is.

The first picture teaches what must be left: outputs that are merely handed from module to module are not (of a ResNet
nothing stays in memory but the activations), outputs that the forward code itself reads are (a skip connection). It
also proves that both halves together are the model; a forward that draws random numbers is refused.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only, tree_unflatten

from mmcam.errors import UserError, unknown
from mmcam.networks.twin import Call, Nest, Outputs, Reached, aliases, answering, leaving, named, plain, stopping, twin

__all__ = ["Split"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Plan:
    """What a run below leaves for the run above.

    Attributes:
        names: Modules that finish before the layer and do not run inside another such module.
        kept: Those whose outputs the forward code reads; of the others the shapes are enough.
        copied: Those whose outputs are overwritten later; "" is the input, the layer's name its output.
    """

    names: frozenset[str]
    kept: frozenset[str]
    copied: frozenset[str]

    def left(self, name: str, output: Nest, samples: int) -> Nest:
        """What a module leaves of its output."""
        if name not in self.kept:
            return _each(output, lambda x: _Shape(tuple(x.shape), x.stride(), x.dtype, samples))
        return _each(output, Tensor.clone) if name in self.copied else output


@dataclass(frozen=True)
class _Shape:
    """What is left of a tensor that nobody reads."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    samples: int

    def tensor(self, samples: int) -> Tensor:
        """Make a tensor without numbers, for as many samples as there are now; its shape may be asked, no more."""
        if samples == self.samples:
            return torch.empty_strided(self.size, self.stride, dtype=self.dtype, device="meta")
        grown = tuple(side * samples // self.samples for side in self.size[:1])
        return torch.empty(*grown, *self.size[1:], dtype=self.dtype, device="meta")


class Split:
    """A model cut in two at a layer.

    Both halves run in eval mode, whatever mode the model is in, and what `torch.compile` compiled runs as plain Python.

    Attributes:
        model: The model; only read.
        layer: Name of the layer, as in `model.named_modules()`.
    """

    def __init__(self, model: nn.Module, layer: str) -> None:
        """Name the cut.

        Args:
            model: Takes images.
            layer: Name of one of its modules, such as "layer4"; must run exactly once a forward.

        Raises:
            UserError: There is no such layer, or the model is a scripted one.
        """
        if isinstance(model, torch.jit.ScriptModule):
            raise UserError(
                "expected a model written in Python, got a scripted one, which cannot be cut; load its source"
            )
        self.model = plain(model)
        modules = dict(aliases(self.model))
        names = {id(module): name for name, module in named(self.model)}
        given = layer if layer in modules else ".".join(p for p in layer.split(".") if p not in ("_orig_mod", "module"))
        if not given or given not in modules:
            raise unknown("layer", layer, set(names.values()) - {""})
        self.layer = names[id(modules[given])]
        self._plan: _Plan | None = None

    def below(self, images: Float[Tensor, "b ..."]) -> tuple[Float[Tensor, "b ..."], dict[str, Any]]:
        """Run the model up to the layer, without a graph unless the images themselves are differentiated.

        Args:
            images: The model's input.

        Returns:
            The layer's output (of several tensors the first), and for `Batch.memo` what `above` needs besides it.

        Raises:
            UserError: The layer does not run, runs several times, gives no tensor, or the two halves are not the model.
        """
        wanted = images.requires_grad and torch.is_grad_enabled()
        with torch.inference_mode(False), torch.no_grad():
            images = images.clone() if images.is_inference() else images
            plan = self._plan = self._plan or self._learn(images[:1].detach())
            outputs: Outputs = []

            def wrapper(name: str) -> Callable[[Call], Call]:
                return lambda call: leaving(name, call, outputs, lambda x: plan.left(name, x, len(images)))

            wrappers = {name: wrapper(name) for name in plan.names}
            try:
                with torch.set_grad_enabled(wanted):
                    twin(self.model, {**wrappers, self.layer: stopping})(
                        images.clone() if "" in plan.copied else images
                    )
            except Reached as reached:
                output, rest = self._first(reached.output)
                return output, {"split": {"images": images, "outputs": outputs, "rest": rest}}
        raise UserError(
            f"layer {self.layer!r} did not run for these pictures, though it did for the first; choose another one"
        )

    def above(self, output: Float[Tensor, "b ..."], memo: Mapping[str, Any]) -> Nest:
        """Run the rest of the model; with a graph where grad mode is on. May be called any number of times.

        Args:
            output: In place of the layer's output.
            memo: What `below` left; not changed.

        Returns:
            What the model returns.
        """
        assert self._plan is not None
        left = memo["split"]
        shapes = any(isinstance(leaf, _Shape) for leaf in tree_leaves(left["outputs"]))
        try:
            result = self._replay(self._plan, output, left)
            if not (shapes and _numberless(result)):
                return result
        except (RuntimeError, TypeError) as error:
            if not (shapes and "meta" in str(error)):
                raise
        logger.info("%s: these pictures take another way through the model, so its lower half runs again", self.layer)
        names = self._plan.names
        self._plan = _Plan(names, names, names | {"", self.layer})
        return self._replay(self._plan, output, self.below(left["images"])[1]["split"])

    def _replay(self, plan: _Plan, output: Tensor, left: Mapping[str, Any]) -> Nest:
        """Run above on what was left, which may be used again: what the model overwrites is copied."""

        def ready(name: str, tree: Nest) -> Nest:
            tree = _each(tree, lambda x: x.tensor(len(output)), _Shape)
            return _each(tree, Tensor.clone) if name in plan.copied else tree

        outputs = [(name, ready(name, x)) for name, x in left["outputs"]]
        return self._answer(ready("", left["images"]), outputs, _with(ready(self.layer, output), left["rest"]))

    def _answer(self, images: Tensor, outputs: Outputs, output: Nest) -> Nest:
        """Run the model, all of whose modules below have answers."""
        answers: dict[str, list[Nest]] = {}
        for name, x in reversed(outputs):
            answers.setdefault(name, []).append(x)
        waiting = [output]

        def answer(*args: object, **kwargs: object) -> Nest:
            return waiting.pop() if waiting else self._refuse_reuse()

        wrappers = {name: answering(queue) for name, queue in answers.items()}
        wrappers[self.layer] = lambda _: answer
        result = twin(self.model, wrappers, silent=wrappers)(images)
        if waiting:
            raise UserError(
                f"layer {self.layer!r} runs below, but is not reached again from there; choose another layer"
            )
        return result

    def _learn(self, images: Float[Tensor, "1 ..."]) -> _Plan:
        """Run the whole model once and its upper half twice, to see what the upper half reads of the lower one."""
        outputs: Outputs = []
        given: list[tuple[str, Tensor, int]] = []  # what modules gave, itself and not a copy
        reached: list[tuple[Any, set[str]]] = []
        ran: set[str] = set()

        def leave(name: str, output: Nest) -> Nest:
            ran.add(name)
            if name == self.layer:
                reached.append((_each(output, Tensor.clone), {n for n, x, version in given if x._version != version}))
            given.extend(_versions(name, output))
            return _each(output, Tensor.clone)

        def wrapper(name: str) -> Callable[[Call], Call]:
            return lambda call: leaving(name, call, outputs, lambda x: leave(name, x), reached)

        source = images.clone()
        given.extend(_versions("", source))
        result = twin(self.model, {name: wrapper(name) for name, _ in named(self.model) if name})(source)
        if not reached:
            near = ", ".join(map(repr, get_close_matches(self.layer, ran, n=3, cutoff=0.0)))
            raise UserError(
                f"layer {self.layer!r} does not run when the model sees a picture, or not through the module tree; "
                f"choose one that does, such as {near}"
            )
        output, copied = reached[0]
        outputs = [(name, x) for name, x in outputs if name != self.layer]

        # A run above shows what is read and overwritten. Another, with only what is read, shows whether that is enough.
        fresh = _each((images, outputs, output), Tensor.clone)
        handed = [v for name, x in (("", fresh[0]), *fresh[1], (self.layer, fresh[2])) for v in _versions(name, x)]
        with _Watch({id(x): name for name, x, _ in handed}) as watch:
            self._compare(result, self._answer(*fresh))
        copied |= {name for name, x, version in handed if x._version != version}
        names = frozenset(name for name, _ in outputs)
        plan = _Plan(names, names & watch.read, frozenset(copied) & (watch.read | {"", self.layer}))
        first, rest = self._first(output)
        left = {"images": images, "outputs": [(name, plan.left(name, x, 1)) for name, x in outputs], "rest": rest}
        try:
            enough = not _numberless(self._replay(plan, first, left))
        except Exception as error:  # what a forward raises that misses numbers is not known
            logger.info("%s: all outputs below it are kept: %s", self.layer, error)
            enough = False
        return plan if enough else _Plan(names, names, frozenset(copied))

    def _first(self, output: Nest) -> tuple[Tensor, Nest]:
        """The first tensor of a layer's output, and the rest of it."""
        leaves, form = tree_flatten(output)
        place = next((i for i, x in enumerate(leaves) if isinstance(x, Tensor) and x.is_floating_point()), None)
        if place is None:
            raise UserError(
                f"layer {self.layer!r} gives no tensor but {type(output).__name__}; choose a layer inside or after it"
            )
        return leaves[place], ([None if i == place else x for i, x in enumerate(leaves)], form, place)

    def _compare(self, result: Nest, again: Nest) -> None:
        for x, y in zip(_tensors(result), _tensors(again), strict=True):
            # Of a broken model all may be NaN; that is the same, and is flagged in the maps.
            near = 1e-3 * float(x.abs().nan_to_num(0.0).max()) if x.numel() and x.is_floating_point() else 0.0
            if x.shape != y.shape or not torch.allclose(x, y, rtol=0.0, atol=near, equal_nan=True):
                raise UserError(
                    f"cut at {self.layer!r}, the model gives another output: its forward draws random numbers or keeps "
                    "a state between calls; switch that off, or choose a layer after it"
                )

    def _refuse_reuse(self) -> None:
        parent = self.layer.rpartition(".")[0]
        hint = f", such as {parent!r}" if parent else ""
        raise UserError(f"layer {self.layer!r} runs several times in one forward; choose one that runs once{hint}")


class _Watch(TorchDispatchMode):
    """Notes which of some tensors any operation reads."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self.names = names
        self.read: set[str] = set()

    def __torch_dispatch__(self, func: Call, types: object, args: Nest = (), kwargs: Nest = None) -> Nest:
        self.read |= {self.names[id(x)] for x in tree_leaves((args, kwargs)) if id(x) in self.names}
        return func(*args, **(kwargs or {}))


def _each(tree: Nest, change: Callable[[Nest], Nest], kind: type = Tensor) -> Nest:
    return change(tree) if isinstance(tree, kind) else tree_map_only(kind, change, tree)  # most are one tensor


def _tensors(tree: Nest) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _versions(name: str, tree: Nest) -> list[tuple[str, Tensor, int]]:
    return [(name, x, x._version) for x in _tensors(tree)]


def _numberless(tree: Nest) -> bool:
    return any(x.is_meta for x in _tensors(tree))


def _with(first: Tensor, rest: Nest) -> Nest:
    leaves, form, place = rest
    return tree_unflatten([first if i == place else x for i, x in enumerate(leaves)], form)
