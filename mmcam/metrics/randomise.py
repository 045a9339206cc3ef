"""Destroying parts of a task on a copy: its vision, its language, any modules, or only the words that it hears."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from mmcam.errors import unknown
from mmcam.metrics.perturb import real_rows
from mmcam.task import Batch, Targets, Task

__all__ = ["halves", "layers", "other_words", "randomised", "redraw"]


def layers(task: nn.Module) -> list[str]:
    """Names of the modules with parameters of their own, in the order in which the model registers them.

    For most models that is from the input to the output.
    """
    return [name for name, module in task.named_modules() if next(module.parameters(recurse=False), None) is not None]


def halves(task: Task, batch: Batch) -> tuple[list[str], list[str]]:
    """Tell vision from language: by what runs when the trunk runs.

    The rule: a module is vision if `task.trunk` calls it, or if it lies in one of `task.seeing`, the modules of the
    head that still see. All other modules with parameters are language; a classifier has none. Where the rule is
    wrong, give `randomised` names of your own.

    Args:
        task: Any task.
        batch: Some samples, one is enough.

    Returns:
        Names of the modules of each half.
    """
    watched, ran = copy.deepcopy(task).eval(), set[str]()
    names = layers(watched)

    def noting(name: str) -> Callable[[nn.Module, object], None]:
        return lambda module, given: ran.add(name)

    for name in names:
        watched.get_submodule(name).register_forward_pre_hook(noting(name))
    with torch.inference_mode(False), torch.no_grad():
        watched.trunk(replace(batch.to(task.device).take(torch.tensor([0])), memo={}))
    seeing = [name for name in names if name in ran or _inside(name, task.seeing)]
    return seeing, [name for name in names if name not in seeing]


def _inside(name: str, tops: Sequence[str]) -> bool:
    return any(not top or f"{name}.".startswith(f"{top}.") for top in tops)


def randomised(task: Task, names: Sequence[str], seed: int = 0) -> Task:
    """Copy a task and draw the parameters of some modules anew.

    Args:
        task: Is only read.
        names: Modules; all modules inside them are meant, too.
        seed: Of the new parameters.

    Returns:
        The copy, in eval mode.

    Raises:
        UserError: There is no such module.
    """
    twin = copy.deepcopy(task).eval()
    redraw(twin, names, seed)
    return twin


def redraw(task: Task, names: Sequence[str], seed: int = 0) -> None:
    """Draw the parameters of some modules anew, in place.

    Modules are initialised as new ones are (`reset_parameters`); parameters of modules that do not know how keep their
    values in another order. What a module draws depends on the seed and the module alone, not on what else is drawn.
    """
    modules = dict(task.named_modules())
    for name in names:
        if name not in modules:
            raise unknown("module", name, modules)
    meant = [name for name in modules if _inside(name, names)]
    # On the CPU, so that every device draws the same.
    device, numbers = task.device, {name: i for i, name in enumerate(modules)}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for name in meant:
            torch.manual_seed(1_000_003 * seed + numbers[name])
            module = modules[name]
            own = list(module.parameters(recurse=False))
            if not own:
                continue
            module.cpu()
            reset = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()
            else:
                for value in own:
                    value.copy_(value.flatten()[torch.randperm(value.numel())].view_as(value))
            module.to(device)


def other_words(task: Task, batch: Batch, targets: Targets, seed: int = 0) -> tuple[Batch, Targets, Bool[Tensor, " n"]]:
    """Let the model hear other words, and ask for the same explanations.

    - A question: each sample gets text and inputs of the next one in the batch whose text is another.
    - A caption (what tasks explain whose words make a sentence, `separator = " "`): all ids but those of the explained
      row become ids of this batch, drawn at random. As each row keeps another one, it becomes a sample of its own.

    Args:
        task: Whose targets they are.
        batch: The samples.
        targets: What is explained.
        seed: Of the words drawn.

    Returns:
        A batch with one sample a row, without padding; its targets with one row each; and which rows hear something
        else now: not the first word of a caption, nor where all samples have the same question, nor classes.
    """
    samples, rows, _ = real_rows(targets)
    chosen, own = targets.take(samples), replace(batch, memo={}).take(samples)
    coefficients = chosen.rows[torch.arange(len(rows)), rows][:, None]  # (n, 1, t)
    ids, changed = chosen.ids, torch.zeros(len(rows), dtype=torch.bool)
    if any(batch.texts):
        other = _another(batch.texts)
        index = other[samples]
        inputs = {name: value[index] for name, value in batch.inputs.items()}
        own = replace(own, texts=tuple(batch.texts[i] for i in index.tolist()), inputs=inputs)
        changed = index != samples
    if task.separator == " " and len(rows):
        pool = targets.ids[targets.mask]
        drawn = torch.randint(len(pool), ids.shape, generator=torch.Generator().manual_seed(seed))
        ids = torch.where(coefficients[:, 0] != 0, ids, pool[drawn.to(pool.device)])
        changed = changed | (coefficients[:, 0, 0] == 0).cpu()
    names = tuple((words[r],) for words, r in zip(chosen.words, rows.tolist(), strict=True))
    return own, replace(chosen, ids=ids, rows=coefficients, words=names), changed


def _another(texts: Sequence[str]) -> Int[Tensor, " b"]:
    """For each text the number of the next one that is another; its own if there is none."""
    found = []
    for i, text in enumerate(texts):
        following = [*range(i + 1, len(texts)), *range(i)]
        found.append(next((j for j in following if texts[j] != text), i))
    return torch.tensor(found, dtype=torch.long)
