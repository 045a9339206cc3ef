"""Where a model that sees and speaks is cut: its vision tower works once, the rest as often as there are questions.

The leaf is the output (or input) of one module, such as the tower's or the projector's. `Tower.below` runs the forward
up to it; `Tower.above` runs the same forward code on a twin (`mmcam.networks.twin`) whose tower answers at once, and
whose leaf is the tensors that it is given. The user's model is never touched.

All else that the tower gives is NaN in the runs above, so that a forward which reads it is found out and refused.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from mmcam.errors import UserError, unknown
from mmcam.networks.twin import Call, Nest, Reached, named, stopping, twin

__all__ = ["NONE", "Repeated", "Run", "Tower", "Wrappers", "hollow", "shallow"]

Run = Callable[[Any], Any]
"""What is asked of a model: `lambda model: model(**inputs)`, `lambda model: model.generate(**inputs)`."""
Wrappers = Mapping[str, Callable[[Call], Call]]
NONE: Wrappers = MappingProxyType({})
Repeated = Callable[[int], Sequence[Tensor]]
"""The leaf's tensors with every sample n times in a row."""


class Tower:
    """A model cut at a leaf.

    Attributes:
        model: The model; only read.
        leaf: Name of the module.
    """

    def __init__(
        self,
        model: nn.Module,
        towers: Sequence[str],
        leaf: str,
        side: Literal["in", "out"] = "out",
        fields: Sequence[str] = (),
    ) -> None:
        """Name the cut.

        Args:
            model: The model.
            towers: Modules whose work is done once; those that are not there are passed over.
            leaf: The module whose input or output is the leaf.
            side: Whether the leaf is what goes in or what comes out.
            fields: Of an output that has several tensors, those that are the leaf; lists of tensors are several. The
                first tensor if not given.

        Raises:
            UserError: There is no such module.
        """
        names = {name for name, _ in named(model)} - {""}
        if leaf not in names:
            raise unknown("layer", leaf, names)
        self.model, self.leaf, self.side, self.fields = model, leaf, side, tuple(fields)
        self.towers = tuple(name for name in towers if name in names and name != leaf)
        self._forms: dict[str, Nest] = {}
        self._shares: dict[str, float] = {}  # rows that go into a module, to those of the leaf

    def below(self, run: Run) -> list[Tensor]:
        """Run the forward up to the leaf; without a graph unless the pictures themselves want one.

        Args:
            run: What is asked.

        Returns:
            The leaf's tensors.

        Raises:
            UserError: The forward does not come to the leaf.
        """
        rows: dict[str, int] = {}
        wrappers = {name: self._recording(name, rows) for name in self.towers}
        try:
            run(twin(self.model, {**wrappers, self.leaf: lambda call: self._stopping(call, rows)}))
        except Reached as reached:
            for name, count in rows.items():
                self._shares.setdefault(name, count / len(reached.output[0]))
            return reached.output
        raise UserError(f"layer {self.leaf!r} does not run for these inputs; choose another one")

    def above(self, leaf: Repeated, run: Run, tapped: str = "", others: Wrappers = NONE) -> Nest:
        """Run the rest; with a graph where grad mode is on. May be called any number of times, after `below`.

        Args:
            leaf: In place of the leaf's tensors, for every sample so many times: beam search repeats its inputs.
            run: What is asked.
            tapped: Name of a module whose output is wanted, and not the model's.
            others: Calls of other modules that shall be other ones, by name.

        Returns:
            What the run, or the tapped module, gives.
        """
        once = leaf(1)
        times = {"n": 1}
        wrappers = {**others, **{name: self._answering(name, once, times) for name in self.towers}}
        wrappers[self.leaf] = self._given(lambda: once if times["n"] == 1 else leaf(times["n"]), once, times)
        if tapped:
            wrappers[tapped] = stopping
        try:
            return run(twin(self.model, wrappers))
        except Reached as reached:
            return reached.output

    def _recording(self, name: str, rows: dict[str, int]) -> Callable[[Call], Call]:
        def wrap(call: Call) -> Call:
            def run(*args: object, **kwargs: object) -> Nest:
                rows[name] = _rows(args, kwargs)
                output = call(*args, **kwargs)
                self._forms.setdefault(name, hollow(output))
                return output

            return run

        return wrap

    def _stopping(self, call: Call, rows: dict[str, int]) -> Call:
        def run(*args: object, **kwargs: object) -> Nest:
            if self.side == "in":
                raise Reached([_first_argument(args, kwargs)[1]])
            rows[self.leaf] = _rows(args, kwargs)
            output = call(*args, **kwargs)
            self._forms.setdefault(self.leaf, hollow(output))
            raise Reached([x for _, x in self._places(output)])

        return run

    def _answering(self, name: str, once: Sequence[Tensor], times: dict[str, int]) -> Callable[[Call], Call]:
        def answer(*args: object, **kwargs: object) -> Nest:
            times["n"] = self._times(name, once, args, kwargs) or times["n"]
            return shallow(self._forms[name])

        return lambda call: answer

    def _times(self, name: str, once: Sequence[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        """How often each sample is there; 0 if a tower's empty answer comes in, of as many rows as it once had."""
        x = _first_argument(args, kwargs)[1]
        if x.is_floating_point() and x.numel() and bool(x.flatten()[0].isnan()):
            return 0
        return max(1, round(_rows(args, kwargs) / (self._shares[name] * len(once[0]))))

    def _given(
        self, leaf: Callable[[], Sequence[Tensor]], once: Sequence[Tensor], times: dict[str, int]
    ) -> Callable[[Call], Call]:
        """The leaf's module with other tensors; clones, which the forward may overwrite."""

        def answer(*args: object, **kwargs: object) -> Nest:
            times["n"] = self._times(self.leaf, once, args, kwargs) or times["n"]
            output = shallow(self._forms[self.leaf])
            if isinstance(output, Tensor):
                return leaf()[0].clone()
            for (place, _), tensor in zip(self._places(output), leaf(), strict=True):
                output = _put(output, place, tensor.clone())
            return output

        def wrap(call: Call) -> Call:
            def run(*args: object, **kwargs: object) -> Nest:
                name, _ = _first_argument(args, kwargs)
                if isinstance(name, str):
                    return call(*args, **{**kwargs, name: leaf()[0].clone()})
                return call(leaf()[0].clone(), *args[1:], **kwargs)

            return run

        return wrap if self.side == "in" else lambda call: answer

    def _places(self, output: Nest) -> list[tuple[tuple[Any, ...], Tensor]]:
        """Where in an output the leaf's tensors are."""
        if isinstance(output, Tensor):
            return [((), output)]
        if not self.fields:
            keys = list(output) if isinstance(output, Mapping) else range(len(output))
            key = next((k for k in keys if isinstance(output[k], Tensor)), None)
            if key is None:
                raise UserError(f"layer {self.leaf!r} gives no tensor but {type(output).__name__}; choose another one")
            return [((key,), output[key])]
        found = []
        for field in self.fields:
            value = output[field]
            if isinstance(value, Tensor):
                found.append(((field,), value))
            else:
                found += [((field, i), x) for i, x in enumerate(value or ())]
        return found


def _first_argument(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str | int, Tensor]:
    """The first tensor that a module is called with, and its name or place."""
    if args:
        return 0, args[0]
    return next((name, x) for name, x in kwargs.items() if isinstance(x, Tensor))


def _rows(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    return len(_first_argument(args, kwargs)[1])


def hollow(output: Nest) -> Nest:
    """The same structure without numbers: NaN that takes no memory."""

    def empty(x: Tensor) -> Tensor:
        return x.new_full((), torch.nan if x.is_floating_point() else 0).expand(x.shape)

    return tree_map_only(Tensor, empty, output)


def shallow(output: Nest) -> Nest:
    """A copy of the structure: callers overwrite fields of what a tower gave."""
    return tree_map_only(Tensor, lambda x: x, output)


def _put(output: Nest, place: tuple[Any, ...], tensor: Tensor) -> Nest:
    key, *inner = place
    value = _put(output[key], tuple(inner), tensor) if inner else tensor
    if isinstance(output, Mapping):
        output[key] = value  # pyright: ignore[reportIndexIssue]
        return output
    listed = [*output]
    listed[key] = value
    return type(output)(listed)
