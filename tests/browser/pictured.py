"""Pictures of the embedded world with maps that look at their things, or beside them: to be seen, without a model."""

import torch
from torch.nn.functional import adaptive_avg_pool2d

from mmcam.explanation import Explanation

PLACES = 14


def looks_at(truth, number, word, beside=False):
    """A map of 14 x 14: the thing's own mask made coarse, or turned by half; of other words some faint noise."""
    meant = truth.about(number, (word,))[0]
    noise = torch.rand(PLACES, PLACES) * 0.1
    if not meant:
        return noise
    mask = truth.things(number).masks[list(meant)].any(0).float()
    coarse = adaptive_avg_pool2d(mask[None], PLACES)[0]
    return (coarse.roll((PLACES // 2, PLACES // 2), (0, 1)) if beside else coarse) + noise


def explained(truth, number, words, *, method="grad_cam", prompt="", beside=(), signed=None, name=""):
    """An explanation of a scene; words in `beside` have maps that look elsewhere."""
    if signed is None:
        signed = torch.stack([looks_at(truth, number, word, word in beside) for word in words])
    scores = -(torch.arange(len(words)) + 1.0 + number) / 4
    size = (96, 96)
    name = name or truth.ids[number]
    return Explanation(name, prompt, tuple(words), scores, signed, size, (0.0, 0.0, 96.0, 96.0), method, "trunk")


def caption(kinds):
    """ "a boat and a kite": each kind of thing once."""
    words = []
    for kind in dict.fromkeys(kinds):
        words += ["and"] * bool(words) + ["a", kind]
    return tuple(words)
