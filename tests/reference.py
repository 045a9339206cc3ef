"""Small models as tasks, and slow references that share no code with the engine."""

import random
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._C import _functorch

from mmcam import gradients
from mmcam.task import Batch, Targets, Task

CHANNELS, WORDS, WIDTH = 6, 11, 7
START, END = 0, 1

devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])


class Small(Task):
    """What the small tasks share: a two-layer CNN that makes 5 x 7 maps of 10 x 14 pictures, and a count of calls."""

    layer = "cnn"

    def __init__(self):
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.Conv2d(4, CHANNELS, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        for values in (self.cnn[1].running_mean, self.cnn[1].running_var):
            values.uniform_(0.5, 1.5)  # or eval and train mode would hardly differ
        self.calls = Counter()

    def collate(self, samples):
        images = torch.stack([torch.from_numpy(np.array(s.image)).movedim(-1, 0) / 255 for s in samples])
        sizes = tuple((s.image.height, s.image.width) for s in samples)
        return Batch(images, tuple(s.id for s in samples), sizes, tuple(s.text for s in samples))

    def trunk(self, batch):
        self.calls["trunk"] += 1
        return self.cnn(batch.images.to(next(self.parameters()).dtype))

    def predict(self, activations, batch):
        self.calls["predict"] += 1
        best = self.logits(activations, batch).topk(2).indices.tolist()
        return Targets.of(best, [[f"class {c}" for c in row] for row in best], activations.device)

    def scores(self, activations, batch, targets):
        self.calls["scores"] += 1
        return targets.pick(self.logits(activations, batch))


class Classifier(Small):
    """Global average pooling and a linear layer: the head of CAM."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(CHANNELS, WORDS)

    def logits(self, activations, batch):
        return self.linear(activations.mean((2, 3)))


class Convolved(Small):
    """Cut before an in-place ReLU, with everything behind it that a CNN's tail may have."""

    def __init__(self):
        super().__init__()
        self.cnn = self.cnn[:-1]
        self.tail = nn.Sequential(
            nn.ReLU(inplace=True),
            nn.Conv2d(CHANNELS, 8, 3),
            nn.BatchNorm2d(8),
            nn.SiLU(inplace=True),
            nn.MaxPool2d(2),
            nn.AdaptiveAvgPool2d((1, 2)),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(16, WORDS),
        )

    def logits(self, activations, batch):
        return self.tail(activations)


class Answerer(Small):
    """LSTM-Q + norm-I: the normed image vector times a two-layer LSTM's question vector; and stacked attention."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.lstm = nn.LSTM(WIDTH, WIDTH, 2, batch_first=True, dropout=0.5)
        self.image = nn.Linear(CHANNELS, WIDTH)
        self.attention = nn.Linear(WIDTH, 1)
        self.answers = nn.Linear(WIDTH, WORDS)

    def logits(self, activations, batch):
        states = self.lstm(self.words(batch.inputs["question"]))[0]
        question = states[torch.arange(len(states), device=states.device), batch.inputs["lengths"] - 1]
        places = activations.flatten(2).mT
        hidden = torch.tanh(self.image(places) + question[:, None])
        seen = (torch.softmax(self.attention(hidden), 1) * places).sum(1)
        normed = F.normalize(activations.mean((2, 3)) + seen)
        return self.answers(torch.tanh(self.image(normed)) * torch.tanh(question))


class Captioner(Small):
    """Show and Tell: the image vector is the first input of a recurrent decoder, then START and the words."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.image = nn.Linear(CHANNELS, WIDTH)
        self.words = nn.Embedding(WORDS, WIDTH)
        if kind in ("lstm", "gru"):
            fused = nn.LSTM if kind == "lstm" else nn.GRU
            self.decoder = fused(WIDTH, WIDTH, 2, batch_first=True, dropout=0.5)
        elif kind == "cell":
            self.decoder = nn.LSTMCell(WIDTH, WIDTH)
        else:
            self.decoder = nn.Linear(2 * WIDTH + (CHANNELS if kind == "attention" else 0), 4 * WIDTH)
            self.attention = nn.Linear(CHANNELS + WIDTH, 1)
        self.drop = nn.Dropout(0.3)
        self.readout = nn.Linear(WIDTH, WORDS)

    def trunk(self, batch):
        activations = super().trunk(batch)
        batch.memo["mean colour"] = {"x": batch.images.to(activations.dtype).mean((2, 3)).tile(1, 3)[:, :WIDTH]}
        return activations

    def decode(self, activations, batch, tokens):
        """Log-probabilities of the word after START, after the first token …"""
        started = F.pad(tokens, (1, 0), value=START)
        first = self.image(activations.mean((2, 3))) + batch.memo["mean colour"]["x"]
        inputs = torch.cat([first[:, None], self.words(started)], 1)
        if self.kind in ("lstm", "gru"):
            states = self.decoder(inputs)[0]
        else:
            h = c = inputs.new_zeros(len(inputs), WIDTH)
            steps = []
            for x in inputs.unbind(1):
                h, c = self.step(x, h, c, activations)
                steps.append(h)
            states = torch.stack(steps, 1)
        return self.readout(self.drop(states[:, 1:])).log_softmax(-1)

    def step(self, x, h, c, activations):
        if self.kind == "cell":
            return self.decoder(x, (h, c))
        known = [x, h]
        if self.kind == "attention":
            places = activations.flatten(2).mT
            asked = torch.cat([places, h[:, None].expand(-1, places.shape[1], -1)], 2)
            known.append((torch.softmax(4 * self.attention(asked).tanh(), 1) * places).sum(1))
        i, f, g, o = self.decoder(torch.cat(known, 1)).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c

    def predict(self, activations, batch):
        self.calls["predict"] += 1
        tokens = torch.zeros(len(batch), 0, dtype=torch.long, device=activations.device)
        for _ in range(4):
            tokens = torch.cat([tokens, self.decode(activations, batch, tokens)[:, -1:].argmax(-1)], 1)
        captions = [row[: row.index(END)] if END in row else row for row in tokens.tolist()]
        return Targets.of(captions, [[f"w{token}" for token in row] for row in captions], activations.device)

    def scores(self, activations, batch, targets):
        self.calls["scores"] += 1
        return targets.pick(self.decode(activations, batch, targets.ids[:, :-1]))


DECODERS = ("plain", "attention", "cell", "lstm", "gru")
WAYS = ("batched", "looped", "replicated")
HEADS = {"classifier": Classifier, "convolved": Convolved, "answerer": Answerer}
TASKS = (*HEADS, *DECODERS)


@contextmanager
def unchecked():
    """Without the type checks of the test run, which raise first and draw random numbers: what a user sees."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def make(name, device="cpu", dtype=torch.float64, how="batched"):
    """A task by name that differentiates in that way; the same weights every time."""
    kind, arguments = (HEADS[name], ()) if name in HEADS else (Captioner, (name,))
    kind = type(kind.__name__, (kind,), {"vjp": staticmethod(getattr(gradients, how))})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(*arguments).eval().to(device, dtype)


def pictures(n=4, device="cpu", dtype=torch.float64, height=10, width=14):
    """A batch for any of the tasks."""
    inputs = {"question": torch.randint(WORDS, (n, 5)), "lengths": torch.randint(1, 6, (n,))}
    ids = tuple(f"picture {i}" for i in range(n))
    sizes = tuple((20 + i, 28) for i in range(n))
    texts = tuple(f"question {i}?" for i in range(n))
    return Batch(torch.randn(n, 3, height, width, dtype=dtype), ids, sizes, texts, inputs=inputs).to(device)


def ragged(lengths=(3, 1, 4, 2), first=2):
    """Targets of these lengths, with other ids everywhere."""
    ids = [[first + (3 * i + 2 * t) % (WORDS - first) for t in range(n)] for i, n in enumerate(lengths)]
    return Targets.of(ids, [[f"w{token}" for token in row] for row in ids])


def alone(targets, i):
    """Sample i's targets without any padding."""
    t, r = int(targets.mask[i].sum()), len(targets.words[i])
    foils = None if targets.foils is None else targets.foils[i : i + 1, :t]
    rows = targets.rows[i : i + 1, :r, :t]
    return Targets(targets.ids[i : i + 1, :t], targets.mask[i : i + 1, :t], targets.words[i : i + 1], rows, foils)


def loop(task, batch, targets):
    """For every row of every picture one full forward and one ordinary backward: scores, α and maps before ReLU."""
    found = []
    for i in range(len(batch)):
        one, mine = batch.take(torch.tensor([i])), alone(targets, i)
        one = replace(one, images=one.images.clone().requires_grad_())
        scores, weights, maps = [], [], []
        for row in mine.rows[0].to(one.images.device):
            with torch.enable_grad():
                a = task.trunk(one)
                y = (task.scores(a + 0, one, mine.to(a.device))[0] * row.to(a.dtype)).sum()
            (gradient,) = torch.autograd.grad(y, a)
            scores.append(y.detach())
            weights.append(gradient[0].mean((1, 2)))
            maps.append(sum(weights[-1][k] * a[0, k].detach() for k in range(a.shape[1])))
        found.append([torch.stack(rows).cpu() for rows in (scores, weights, maps)])
    return found


def differences(task, batch, targets, step=1e-5):
    """Σ ∂y/∂A over the places of every channel, by central differences: (b, r, k)."""
    with torch.no_grad():
        a = task.trunk(batch)
        columns = []
        for k in range(a.shape[1]):
            near, far = a.clone(), a.clone()
            near[:, k] -= step
            far[:, k] += step
            slope = (task.scores(far, batch, targets) - task.scores(near, batch, targets)) / (2 * step)
            columns.append(torch.einsum("brt,bt->br", targets.rows.to(slope.dtype), slope))
    return torch.stack(columns, 2)


def close(ours, theirs, rtol=1e-10):
    """Whether two tensors differ by less than a part of the greatest number in either."""
    size = max(float(ours.abs().max()), float(theirs.abs().max())) if ours.numel() else 0.0
    return ours.shape == theirs.shape and bool(((ours - theirs).abs() <= rtol * size).all())


def same_maps(ours, theirs, rtol=1e-10):
    """Whether two lists of explanations have the same words, scores and maps."""
    return len(ours) == len(theirs) and all(
        a.id == b.id
        and a.words == b.words
        and close(a.scores.double(), b.scores.double(), rtol)
        and close(a.signed.double(), b.signed.double(), rtol)
        for a, b in zip(ours, theirs, strict=True)
    )


def everything(task):
    """All that a call might change: the model's state and the global one, as plain values and copies."""
    return {
        "parameters": {
            name: (id(p), p.detach().clone(), p.grad if p.grad is None else p.grad.clone(), p.requires_grad, p._version)
            for name, p in task.named_parameters()
        },
        "buffers": {name: (id(b), b.clone()) for name, b in task.named_buffers()},
        "modules": {
            name: (id(module), module.training, sorted(vars(module)), _hooks(module))
            for name, module in task.named_modules()
        },
        **surroundings(),
    }


def surroundings():
    """The global state that a call might change."""
    flags = ("enabled", "benchmark", "benchmark_limit", "deterministic", "allow_tf32", "fp32_precision")
    return {
        "random": (random.getstate(), torch.get_rng_state(), np.random.get_state(legacy=False)["state"]),  # noqa: NPY002
        "cuda random": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "autocast": [(torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in ("cpu", "cuda")],
        "autocast cache": torch.is_autocast_cache_enabled(),
        "cudnn": {flag: getattr(torch.backends.cudnn, flag) for flag in flags},
        "matmul": (torch.backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()),
        "vmap": (_functorch._is_vmap_fallback_enabled(), _functorch.maybe_current_level()),
        "default": (torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


@contextmanager
def untouched(task=None):
    """Assert that neither a task nor anything global is another afterwards, also after an exception."""
    with unchecked():
        before = everything(task) if task else surroundings()
        try:
            yield
        finally:
            unchanged(before, everything(task) if task else surroundings())


def _hooks(module):
    return {name: list(hooks) for name, hooks in vars(module).items() if name.endswith("_hooks")}


def unchanged(before, after, path="state"):
    """Assert that two snapshots are equal, and say where they are not."""
    assert type(before) is type(after), path
    if isinstance(before, dict):
        assert before.keys() == after.keys(), path
        for key in before:
            unchanged(before[key], after[key], f"{path}[{key!r}]")
    elif isinstance(before, (list, tuple)):
        assert len(before) == len(after), path
        for i, pair in enumerate(zip(before, after, strict=True)):
            unchanged(*pair, f"{path}[{i}]")
    elif isinstance(before, (torch.Tensor, np.ndarray)):
        assert bool((before == after).all()), path
    else:
        assert before == after, path
