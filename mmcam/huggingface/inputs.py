"""Inputs of single samples joined into a batch, and taken apart as the model wants them.

A `Batch` holds tensors whose first axis is the samples, so that samples can be chosen and repeated. Inputs are padded
on every axis to the largest of the batch: text on its right side, so that positions are the same as alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from mmcam.task import Batch

__all__ = ["alike", "continued", "joined", "left_aligned", "one_more", "taken_apart"]

COUNT = "#count"
PIXELS = ("pixel_values", "flattened_patches", "image_grid_thw")
OURS = ("lengths", "tile_windows")


def joined(samples: Sequence[Mapping[str, Tensor]], pad: int, packed: bool) -> dict[str, Tensor]:
    """Join the inputs of samples.

    Args:
        samples: Of each the inputs as its processor gave them, with a first axis of 1; packed pictures without.
        pad: Number that fills up text.
        packed: Whether pictures have no axis for samples.

    Returns:
        Tensors (b, …); of packed ones also how many rows each sample has.
    """
    # Labels are for training: a forward that sees some computes a loss.
    names = [n for n in samples[0] if n != "labels" and all(isinstance(sample.get(n), Tensor) for sample in samples)]
    batch: dict[str, Tensor] = {}
    for name in names:
        values = [sample[name] for sample in samples]
        if packed and name == "pixel_values":
            batch[name + COUNT] = torch.tensor([len(x) for x in values])
            values = [x[None] for x in values]
        largest = [max(sides) for sides in zip(*(x.shape[1:] for x in values), strict=True)]
        whole = values[0].new_full((len(values), *largest), pad if name in ("input_ids", "decoder_input_ids") else 0)
        for i, x in enumerate(values):
            whole[(i, *(slice(0, side) for side in x.shape[1:]))] = x[0]
        batch[name] = whole
    if "input_ids" in batch:
        batch["lengths"] = torch.tensor([sample["input_ids"].shape[1] for sample in samples])
    return batch


def taken_apart(inputs: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Give a model its inputs: what we added is left out, packed pictures lie one after the other again.

    Args:
        inputs: Of a batch.
        dtype: Of the model's weights, in which it takes pictures.
    """
    found = {name: x for name, x in inputs.items() if name not in OURS and not name.endswith(COUNT)}
    for name, x in found.items():
        if name + COUNT in inputs:
            counts = inputs[name + COUNT].tolist()
            found[name] = torch.cat([rows[:count] for rows, count in zip(x, counts, strict=True)])
        if found[name].is_floating_point():
            found[name] = found[name].to(dtype)
    if "image_grid_thw" in found:
        found["image_grid_thw"] = found["image_grid_thw"].reshape(-1, 3)
    return found


def continued(
    inputs: Mapping[str, Tensor], answers: Tensor, lengths: Tensor, filled: Mapping[str, int]
) -> tuple[dict[str, Tensor], Tensor]:
    """Let every sample's prompt go on with its answer, from the prompt's own end.

    Args:
        inputs: Of the batch; those shaped like `input_ids` go on too.
        answers: Tokens (b, t), padded on the right.
        lengths: How many each sample has, (b,).
        filled: What other inputs than the words have there; 0 if not named, of a mask over pictures its last row.

    Returns:
        The inputs, and (b, t) the places whose outputs foretell the answers' tokens.
    """
    ids, starts = inputs["input_ids"], inputs["lengths"].to(answers.device)
    b, t = answers.shape
    places = starts[:, None] + torch.arange(t, device=answers.device)  # (b, t)
    here = torch.arange(t, device=answers.device) < lengths[:, None]
    longer = dict(inputs)
    for name, x in inputs.items():
        if x.shape[:2] != ids.shape or name in (*PIXELS, *OURS):
            continue
        if name == "input_ids":
            values = answers.to(x.dtype)
        elif name == "attention_mask":
            values = here.to(x.dtype)
        elif x.ndim > 2:
            last = x[torch.arange(b, device=x.device), (starts - 1).to(x.device)]
            values = last[:, None].expand(-1, t, *last.shape[1:])
        else:
            values = torch.full_like(answers, filled.get(name, 0), dtype=x.dtype)
        room = x.new_zeros(b, t, *x.shape[2:])
        whole = torch.cat([x, room], 1)
        index = places.to(x.device).view(b, t, *[1] * (x.ndim - 2)).expand_as(values)
        longer[name] = whole.scatter(1, index, values)
    return longer, places - 1


def alike(batch: Batch) -> list[tuple[Int[Tensor, " n"], Batch]]:
    """Find the samples whose prompts have one length, and make batches of them without padding.

    Args:
        batch: The samples.

    Returns:
        For each length the numbers of the samples, and the samples.
    """
    inputs, groups = batch.inputs, []
    lengths, shape = inputs["lengths"], inputs["input_ids"].shape
    text = [n for n, x in inputs.items() if x.shape[:2] == shape and n not in (*PIXELS, *OURS)]
    for length in lengths.unique().tolist():
        index = (lengths == length).nonzero().flatten()
        chosen = batch.take(index)
        short = {n: chosen.inputs[n][:, :length] for n in text}
        groups.append((index, replace(chosen, inputs={**chosen.inputs, **short})))
    return groups


def left_aligned(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Move the padding of text to its left side, as generation wants it.

    Args:
        inputs: Of a batch.
    """
    ids, lengths = inputs["input_ids"], inputs["lengths"]
    if bool((lengths == ids.shape[1]).all()):
        return dict(inputs)
    order = torch.arange(ids.shape[1], device=ids.device) + lengths[:, None].to(ids.device)
    order = order % ids.shape[1]  # the padding first, then the text
    moved = dict(inputs)
    for name, x in inputs.items():
        if x.shape[:2] == ids.shape and name not in (*PIXELS, *OURS):
            moved[name] = x.gather(1, order.view(*order.shape, *[1] * (x.ndim - 2)).expand_as(x))
    return moved


def one_more(inputs: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    """Put one more token at the end of the text."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    return {
        **inputs,
        "input_ids": torch.cat([ids, torch.full_like(ids[:, :1], number)], 1),
        "attention_mask": torch.cat([mask, torch.ones_like(mask[:, :1])], 1),
    }
