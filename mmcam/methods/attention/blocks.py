"""The tokens after every block of a transformer, and scores of a model whose last block gives other tokens.

LeGrad asks what the rest of the network would say of the tokens after an earlier block. So for one forward every module
carries hooks that note what it gives; a block is the outermost module that runs one attention and gives as many tokens
as it has queries. Then the last block, for another forward, gives other tokens. Hooks pass over the calls of other
threads, and none is left when `with` ends, also after an exception.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only, tree_unflatten

from mmcam.errors import UserError

__all__ = ["Blocks", "giving"]

Hook = Callable[..., Any]


@dataclass
class Blocks:
    """The block of every attention, while `watching` looks on.

    Attributes:
        attentions: What is captured in the same forward; grows.
        modules: By number of the attention, the block's module as the model has it.
        tokens: By number of the attention, what the block gave.
    """

    attentions: Sequence[Tensor]
    modules: dict[int, nn.Module] = field(default_factory=dict)
    tokens: dict[int, Tensor] = field(default_factory=dict)

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Look on while a model runs.

        Args:
            model: The model, of which twins may run (`mmcam.networks.twin`): they share its hooks.
        """
        thread, entered = get_ident(), {}

        def enter(name: str) -> Hook:
            def hook(*arguments: object) -> None:
                if (
                    get_ident() == thread
                ):  # a module left by an exception goes on where it began, see `mmcam.networks.split`
                    entered.setdefault(name, len(self.attentions))

            return hook

        def leave(name: str, module: nn.Module) -> Hook:
            def hook(called: nn.Module, given: object, output: object) -> None:
                if get_ident() == thread:
                    self._note(module, entered.pop(name, None), output)

            return hook

        with ExitStack() as stack:
            for name, module in model.named_modules():
                stack.callback(module.register_forward_pre_hook(enter(name)).remove)
                stack.callback(module.register_forward_hook(leave(name, module)).remove)
            yield

    def last(self, numbers: Sequence[int]) -> nn.Module:
        """The last block of some attentions.

        Args:
            numbers: Of the attentions.

        Returns:
            Its module.

        Raises:
            UserError: Not every attention has a block of its own.
        """
        modules = {id(self.modules[i]) for i in numbers if i in self.modules}
        if len(modules) != len(numbers):
            raise UserError(
                "expected a transformer of blocks, modules that run one attention each and give tokens (b, n, k); "
                f"found {len(modules)} for {len(numbers)} attentions; use attention_relevance instead of legrad"
            )
        return self.modules[numbers[-1]]

    def _note(self, module: nn.Module, start: int | None, output: object) -> None:
        """What a module gave that ran one attention; the outermost finishes last."""
        first = next((x for x in tree_leaves(output) if isinstance(x, Tensor)), None)
        if start is None or start != len(self.attentions) - 1 or first is None or first.ndim != 3:
            return
        if first.shape[1] == self.attentions[start].shape[2]:
            self.modules[start], self.tokens[start] = module, first


@contextmanager
def giving(module: nn.Module, tokens: Float[Tensor, "b n k"]) -> Iterator[list[int]]:
    """Let a module give these tokens, whatever it computes; that leaves no graph, and is of one sample if it can be.

    Args:
        module: Gives tokens, maybe with other things.
        tokens: Of the same shape.

    Yields:
        A list that is as long as the module had calls.
    """
    thread, calls, graph = get_ident(), [], torch.is_grad_enabled()

    def enter(called: nn.Module, *arguments: object) -> object:
        if get_ident() != thread:
            return None
        torch.set_grad_enabled(False)
        if sum(isinstance(x, Tensor) for x in tree_leaves(arguments)) > 1:
            return None  # a mask might not fit
        return tree_map_only(Tensor, lambda x: x[:1], arguments)

    def leave(called: nn.Module, given: object, output: object) -> object:
        if get_ident() != thread:
            return output
        torch.set_grad_enabled(True)
        calls.append(len(calls))
        leaves, form = tree_flatten(output)
        place = next(i for i, x in enumerate(leaves) if isinstance(x, Tensor))
        return tree_unflatten([tokens if i == place else x for i, x in enumerate(leaves)], form)

    handles = module.register_forward_pre_hook(enter, with_kwargs=True), module.register_forward_hook(leave)
    try:
        yield calls
    finally:
        torch.set_grad_enabled(graph)  # the module may have been left by an exception
        for handle in handles:
            handle.remove()
