"""Random numbers of a seed of ours, on the devices where a model lies; the caller's go on as if nothing was drawn."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["drawing"]


@contextmanager
def drawing(model: nn.Module, seed: int) -> Iterator[None]:
    """Draw from a seed on the CPU and on the model's own devices; others, of which there may be many, are left alone.

    Apple's GPU draws from the seed too, but goes on from there.

    Args:
        model: Whose devices are meant.
        seed: The seed.
    """
    found = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    cuda = [device for device in found if device.type == "cuda"]
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for device in cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        if any(device.type == "mps" for device in found):
            torch.mps.manual_seed(seed)
        yield
