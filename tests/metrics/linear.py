"""A task whose answers can be computed by hand: y of word v is the sum over pixels of W_v times the picture."""

from dataclasses import replace

import torch
from torch import nn

from mmcam.task import Batch, Targets, Task


class Linear(Task):
    """The activations are the picture itself; rows of `weight` are the words."""

    layer = "input"

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)  # (v, k, h, w)
        self.calls = []

    def collate(self, samples):
        raise NotImplementedError

    def trunk(self, batch):
        self.calls.append(len(batch))
        return batch.images.clone()

    def predict(self, activations, batch):
        return Targets.of([[0]] * len(batch), [["0"]] * len(batch))

    def logits(self, activations):
        return torch.einsum("bkhw,vkhw->bv", activations, self.weight)

    def scores(self, activations, batch, targets):
        return targets.pick(self.logits(activations))

    def probabilities(self, activations, batch, targets):
        return replace(targets, foils=None).pick(self.logits(activations).softmax(1))

    def attributions(self, batch, targets):
        """What each pixel adds to each row's score."""
        weight = self.weight.detach()[targets.ids]  # (b, t, k, h, w)
        return torch.einsum("brt,btkhw,bkhw->brhw", targets.rows.to(weight.dtype), weight, batch.images)


def make(b=2, words=3, size=(4, 6), channels=2, vocabulary=5, seed=0):
    """A random linear task in float64, its batch, and ragged targets: sample i has words - i of them, at least one."""
    generator = torch.Generator().manual_seed(seed)
    task = Linear(torch.randn(vocabulary, channels, *size, generator=generator, dtype=torch.float64))
    images = torch.randn(b, channels, *size, generator=generator, dtype=torch.float64)
    ids = torch.randint(vocabulary, (b, words), generator=generator).tolist()
    ids = [row[: max(1, words - i)] for i, row in enumerate(ids)]
    targets = Targets.of(ids, [[f"w{number}" for number in row] for row in ids])
    return task, of(images), targets


def of(images):
    """A batch of pictures."""
    return Batch(images, tuple(map(str, range(len(images)))), (tuple(images.shape[2:]),) * len(images))


def ask(task, batch, targets, i, r, image):
    """What the task says of one row about one picture, alone: score and probability."""
    one = torch.tensor([i])
    some = replace(batch.take(one), images=image[None], memo={})
    wanted = targets.take(one)
    with torch.no_grad():
        activations = task.trunk(some)
        row = wanted.rows[0, r]
        y = task.scores(activations, some, wanted)[0]
        p = task.probabilities(activations, some, wanted)[0]
    score = sum(float(c) * float(v) for c, v in zip(row, y, strict=True) if c != 0)
    product = 1.0
    for c, v in zip(row, p, strict=True):
        product *= float(v) if c > 0 else 1.0
    return score, product


def captions(b=2, size=(24, 32)):
    """A captioner in float64, pictures of noise and ragged captions."""
    from captioning.models import ShowAndTell
    from captioning.task import CaptioningTask

    torch.manual_seed(3)
    model = ShowAndTell(["a", "cat", "dog", "left", "of", "two"], embedding=5, hidden=6)
    for name, value in model.named_parameters():
        if not name.startswith("backbone"):
            nn.init.normal_(value, std=0.5)
    model.backbone.size = size
    task = CaptioningTask(model.double())
    batch = of(torch.randn(b, 3, *size, dtype=torch.float64))
    return task, batch, task.given(["two cat left of a dog", "a dog", "dog"][:b], batch)


def questions(b=3, size=(24, 32)):
    """A VQA task in float64."""
    from vqa.models import NormProduct
    from vqa.task import VQATask

    torch.manual_seed(3)
    words, answers = ["is", "there", "a", "dog", "cat", "what"], ["yes", "no", "dog", "2"]
    model = NormProduct(words, answers, embedding=4, hidden=5, common=6)
    for name, value in model.named_parameters():
        if not name.startswith("backbone"):
            nn.init.normal_(value, std=0.5)
    model.backbone.size = size
    task = VQATask(model.double())
    texts = ("is there a dog", "what", "is there a dog")[:b]
    numbers = [task.model.vocabulary.encode(text.split()) for text in texts]
    padded = torch.tensor([row + [0] * (4 - len(row)) for row in numbers])
    inputs = {"words": padded, "lengths": torch.tensor([len(row) for row in numbers])}
    batch = replace(of(torch.randn(b, 3, *size, dtype=torch.float64)), texts=texts, inputs=inputs)
    return task, batch, task.given(["yes, dog", "2", "no, 2, yes"][:b], batch)
