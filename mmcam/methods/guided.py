"""Guided backpropagation and deconvnet: for one call, rectifiers hand back something else than their derivative.

A rectifier y = f(x), to which g = ∂(score)/∂y comes back from above, hands on to x

    plain    f'(x) · g
    guided   f'(x) · g where f'(x) and g are both positive, else 0   (Springenberg et al., arXiv 1412.6806)
    deconv   g where it is positive, else 0, whatever x was          (Zeiler and Fergus, arXiv 1311.2901)

For ReLU these are the papers' rules. The papers know no other rectifier; here the same three lines hold for ReLU6,
GELU, SiLU, Hardswish, Mish, softplus, leaky ReLU, PReLU, ELU, SELU and CELU with their own f' (so where SiLU falls,
guided hands on nothing). Gates (sigmoid, tanh, hardsigmoid, GLU) and max pooling keep their derivative.

Nothing is replaced: the rules hang on the nodes of the graph that autograd records in this call. Such a node is there
for `nn.ReLU`, `F.relu`, `torch.relu_` and `clamp(min=0)` alike, once a use, however many share a module; and it dies
with the graph. What is written in other ways (`x * sigmoid(x)`, an `autograd.Function`) keeps its derivative.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from threading import get_ident
from typing import Any, Literal

from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils._pytree import tree_leaves

from mmcam.errors import UserError, unknown

__all__ = ["Rectifiers", "Rule", "submodules"]

Rule = Literal["plain", "guided", "deconv"]
Gradients = tuple[Tensor | None, ...]

RECTIFIERS = frozenset(
    f"{name}Backward"
    for name in (
        *("Relu", "Gelu", "Silu", "Hardswish", "Mish", "Softplus", "Threshold"),
        *("LeakyRelu", "PreluKernel", "RreluWithNoise", "Elu", "Celu"),
    )
)
"""Names of autograd's nodes, without their number."""
BOUNDED = {"HardtanhBackward": "_saved_min_val", "ClampBackward": "_saved_min", "ClampMinBackward": "_saved_min"}
"""Nodes that are rectifiers if their lower bound is zero (ReLU6 is one), and where it stands."""
RISING = frozenset({"ReluBackward", "ThresholdBackward", "SoftplusBackward", *BOUNDED})
"""Rectifiers whose derivative is negative nowhere, whatever their parameters are."""
OPAQUE = {
    "CompiledFunctionBackward": "a part compiled by torch.compile",
    "torch::autograd::CopySlices": "an in-place operation on a part of a tensor",
    "CheckpointFunctionBackward": "a reentrant checkpoint",
}
"""Nodes that may hide a rectifier."""


class Rectifiers:
    """Rectifiers that follow a rule, until `with` ends; also after an exception nothing of it is left.

    Threads may share a model: each has a graph of its own.
    """

    def __init__(self, rule: Rule) -> None:
        """Choose the rule.

        Args:
            rule: "plain", "guided" or "deconv".

        Raises:
            UserError: There is no such rule.
        """
        if rule not in RULES:
            raise unknown("rule", rule, RULES)
        self._hook = RULES[rule]
        self._rising = _guided_rising if rule == "guided" else self._hook
        self._hooked: set[Node] = set()
        self._stack = ExitStack()

    def __enter__(self) -> "Rectifiers":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        self._hooked.clear()

    def follow(self, outputs: Iterable[Tensor], known: Collection[Node | None] = ()) -> None:
        """Let all rectifiers follow the rule from which some tensors are computed.

        Args:
            outputs: Tensors with a graph.
            known: Nodes of the graph at which to stop.

        Raises:
            UserError: A part of the graph cannot be seen into.
        """
        if self._hook is None or self._rising is None:
            return
        seen = {None, *known}
        waiting = [x.grad_fn for x in outputs]
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if node.name() in OPAQUE:
                raise UserError(
                    f"expected rectifiers that a rule can be given to, got {OPAQUE[node.name()]}, which may hide some; "
                    "use the model without that, or rule='plain'"
                )
            if _is_rectifier(node) and node not in self._hooked:
                self._hooked.add(node)
                hook = self._rising if _name(node) in RISING else self._hook
                self._stack.callback(node.register_hook(hook).remove)
            waiting.extend(below for below, _ in node.next_functions)

    @contextmanager
    def inside(self, modules: Iterable[nn.Module]) -> Iterator[None]:
        """Let the rectifiers follow the rule that run inside some modules while `with` lasts.

        The modules carry a hook for that long, which passes over the calls of other threads.
        """
        if self._hook is None:
            yield
            return
        thread, entered = get_ident(), []

        def enter(module: nn.Module, *arguments: object) -> None:
            if get_ident() == thread:  # noted before the call, which may overwrite its input
                entered.append({x.grad_fn for x in _tensors(arguments)})

        def leave(module: nn.Module, *arguments: object) -> None:  # another thread may call with fewer
            if get_ident() == thread:
                self.follow(_tensors(arguments[-1]), entered.pop())

        with ExitStack() as stack:
            for module in modules:
                stack.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(leave, with_kwargs=True, always_call=True).remove)
            yield


def submodules(root: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Find modules by name, with all that is inside them, each once.

    Raises:
        UserError: There is no module of that name; names the nearest.
    """
    found: dict[int, nn.Module] = {}
    modules = dict(root.named_modules(remove_duplicate=False))
    for name in names:
        if name not in modules:
            raise unknown("module", name, modules.keys() - {""})
        found.update({id(module): module for module in modules[name].modules()})
    return list(found.values())


def _is_rectifier(node: Any) -> bool:  # noqa: ANN401
    name = _name(node)
    return name in RECTIFIERS or (name in BOUNDED and getattr(node, BOUNDED[name]) == 0)


def _name(node: Node) -> str:
    return node.name().rstrip("0123456789")


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _guided(inputs: Gradients, outputs: Gradients) -> Gradients | None:
    """From a node's own gradients and what came to it to what it hands on; NaN stays NaN."""
    own, *others = inputs
    came = outputs[0]
    return None if own is None or came is None else (own.relu().masked_fill(came < 0, 0), *others)


def _guided_rising(inputs: Gradients, outputs: Gradients) -> Gradients | None:
    """The same where no derivative is negative: then f'(x) · g is positive only where both are."""
    own, *others = inputs
    return None if own is None else (own.relu(), *others)


def _deconv(inputs: Gradients, outputs: Gradients) -> Gradients | None:
    came = outputs[0]
    return None if inputs[0] is None or came is None else (came.relu(), *inputs[1:])


RULES: Mapping[str, Callable[[Gradients, Gradients], Gradients | None] | None] = {
    "plain": None,
    "guided": _guided,
    "deconv": _deconv,
}
