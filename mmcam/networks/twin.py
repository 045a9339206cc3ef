"""A twin of a module tree: new module objects with the same parameters and forward code, some of whose calls change.

So a run can be watched, stopped or fed from outside while the user's modules stay as they are: no hook is registered,
no attribute set, and threads may share a model.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from types import MappingProxyType, MethodType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

__all__ = [
    "Call",
    "Nest",
    "Outputs",
    "Reached",
    "aliases",
    "answering",
    "leaving",
    "named",
    "observe",
    "plain",
    "stopping",
    "twin",
]

Call = Callable[..., Any]
Nest = Any
"""A tensor, or tensors in lists, tuples and dictionaries: what a module may give."""
HOOKS = ("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs")
Outputs = list[tuple[str, Nest]]
"""What modules gave, in the order in which they finished; a module that runs twice is there twice."""


OWN = frozenset(vars(nn.Module()))
"""What every module has, methods not among it."""


def twin(
    root: nn.Module,
    wrappers: Mapping[str, Callable[[Call], Call]] = MappingProxyType({}),
    silent: Collection[str] = (),
) -> nn.Module:
    """Copy a module tree in eval mode, and wrap some modules' calls.

    Args:
        root: The tree; shares its parameters and buffers with the copy, which has its hooks too.
        wrappers: By name, from the call that computes to the one that shall be made instead.
        silent: Those that hardly ever compute: what is inside them is only copied when one does.

    Returns:
        The copy. Scripted parts are not copied.
    """
    made: dict[int, nn.Module] = {}
    above = {name[: i + 1] for name in wrappers for i, letter in enumerate(name) if letter == "."}

    def copy(module: nn.Module, name: str) -> nn.Module:
        module = plain(module)
        if id(module) in made or isinstance(module, torch.jit.ScriptModule):
            return made.get(id(module), module)
        made[id(module)] = new = object.__new__(type(module))
        state = new.__dict__
        state.update(module.__dict__, training=False, _compiled_call_impl=None)
        state.update(_parameters=dict(module._parameters), _buffers=dict(module._buffers))
        # Dictionaries of its own: transformers hooks into what it runs, when it runs.
        for key in HOOKS:
            state[key] = state[key].copy() if state[key] else OrderedDict()
        call: Call = MethodType(type(new)._call_impl, new)
        if name in silent and f"{name}." not in above:
            call = partial(_late, module)
        elif module._modules:
            start = f"{name}." if name else ""
            state["_modules"] = {
                key: child if child is None else copy(child, start + key) for key, child in module._modules.items()
            }
        for key in state.keys() - OWN:
            state[key] = _rebound(state[key], module, new)
        if name in wrappers:
            state["_call_impl"] = wrappers[name](call)
            # Seeing a hook inside, torch's transformer layers call their parts one by one and not a fused kernel.
            state["_forward_pre_hooks"] = OrderedDict(module._forward_pre_hooks) | {-1: lambda module, arguments: None}
        return new

    return copy(root, "")


def _rebound(value: Any, old: nn.Module, new: nn.Module) -> Any:  # noqa: ANN401
    """A module's own function as its copy's: a method, or accelerate's `partial(new_forward, module)`."""
    if type(value) is MethodType and value.__self__ is old:
        return MethodType(value.__func__, new)
    if type(value) is partial and any(argument is old for argument in value.args):
        other = partial(
            value.func, *(new if argument is old else argument for argument in value.args), **value.keywords
        )
        other.__dict__.update({key: _rebound(about, old, new) for key, about in value.__dict__.items()})
        return other
    return value


def _late(module: nn.Module, *args: object, **kwargs: object) -> Nest:
    return twin(module)(*args, **kwargs)


def leaving(
    name: str, call: Call, outputs: Outputs, leave: Callable[[Nest], Nest], over: list[Nest] | None = None
) -> Call:
    """Compute and leave the output, which stands for all that was left during the call; until it is over."""

    def run(*args: object, **kwargs: object) -> Nest:
        start = len(outputs)
        output = call(*args, **kwargs)
        if not over:
            left = leave(output)
            outputs[start:] = [(name, left)]
        return output

    return run


def stopping(call: Call) -> Call:
    """Compute, and leave the forward with the output."""

    def run(*args: object, **kwargs: object) -> Nest:
        raise Reached(call(*args, **kwargs))

    return run


def answering(answers: list[Nest]) -> Callable[[Call], Call]:
    """Answer with known outputs, the last one first; compute when there are no more."""
    return lambda call: lambda *args, **kwargs: answers.pop() if answers else call(*args, **kwargs)


class Reached(BaseException):
    """The layer's output, on its way out of the forward; no `Exception`, so that no model catches it by accident."""

    def __init__(self, output: Nest) -> None:
        self.output = output


def observe(model: nn.Module, images: Float[Tensor, "b ..."]) -> tuple[Outputs, Nest]:
    """Run a model in eval mode and see what each of its modules gives; the model itself is not touched.

    Args:
        model: Takes images.
        images: Its input.

    Returns:
        Names and outputs in the order in which the modules finish, once a call; and the model's output.
    """
    seen: Outputs = []

    def seeing(name: str, call: Call) -> Call:
        def run(*args: object, **kwargs: object) -> Nest:
            # A tensor of its own: a module may hand its input on, whose other uses are not this output's.
            output = tree_map_only(Tensor, lambda x: x.view_as(x), call(*args, **kwargs))
            seen.append((name, output))
            return output

        return run

    wrappers = {name: (lambda call, name=name: seeing(name, call)) for name, _ in named(model) if name}
    return seen, twin(model, wrappers)(images)


def named(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """List the modules as `named_modules` does, each once, without what `torch.compile` adds to the names."""
    first: dict[int, tuple[str, nn.Module]] = {}
    for name, module in aliases(model):
        first.setdefault(id(module), (name, module))
    return list(first.values())


def aliases(module: nn.Module, name: str = "", above: tuple[int, ...] = ()) -> Iterator[tuple[str, nn.Module]]:
    """All names of all modules: one that is registered in two places has two."""
    module = plain(module)
    yield name, module
    for key, child in module._modules.items():
        if child is not None and id(child) not in above:
            yield from aliases(child, f"{name}.{key}" if name else key, (*above, id(module)))


def plain(module: nn.Module) -> nn.Module:
    """The user's own module, out of what `torch.compile` and data parallelism put around it."""
    while ("module" in module._modules or "_orig_mod" in module._modules) and not isinstance(
        module, torch.jit.ScriptModule
    ):
        parallel = isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel)
        inner = module._modules.get("module" if parallel else "_orig_mod")
        if inner is None:
            break
        module = inner
    return module
