"""The captioning task: the score of a word is its log-probability, given the picture and the words before it."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from captioning.captioner import Captioner
from captioning.load import load
from mmcam.errors import UserError
from mmcam.image import Interpolation, to_tensor
from mmcam.likelihood import word_log_probability, word_logit_difference
from mmcam.networks.cut import Trunk
from mmcam.task import Batch, Heard, Sample, Targets, Task
from mmcam.text import PAD, START, UNKNOWN, Vocabulary, tokenise

ARTICLES = ("a", "an", "the")


class CaptioningTask(Task):
    """Explain the words of a caption: the model's own, or one that the user gives.

    y_t = log p(word t | picture, words before t), by teacher forcing. The end mark is no word and has no map.

    Differs from the paper: the authors' code explains the sum over the caption's words (`Targets.sentence` gives that
    map); here each word has its own.
    """

    separator = " "

    def __init__(self, model: str | Captioner, beam: int = 1, length: int = 16, layer: str | None = None) -> None:
        """Make the task.

        Args:
            model: A captioner, or the name of shipped weights, a folder or a hub id of one.
            beam: Hypotheses that decoding keeps; 1 is greedy.
            length: Most words of a predicted caption.
            layer: Name of the explained layer of the CNN ("features.10"); its last map if not given.

        Raises:
            UserError: There is no such model or layer.
        """
        super().__init__()
        self.model = load(model) if isinstance(model, str) else model
        self.model.eval()
        self.beam = beam
        self.length = length
        self.seeing = ("model.backbone", *(["model.see"] if hasattr(self.model, "see") else []))
        self._trunk = Trunk(self.model.backbone, layer)
        self.layer = self._trunk.layer

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Bring pictures to the network's size (squashed, like the paper's code; nothing is cropped)."""
        cnn = self.model.backbone
        how: Interpolation = getattr(cnn, "interpolation", "bilinear")
        images = torch.stack([to_tensor(sample.image, cnn.size, cnn.mean, cnn.std, how) for sample in samples])
        sizes = tuple((sample.image.height, sample.image.width) for sample in samples)
        return Batch(images, tuple(sample.id for sample in samples), sizes)

    def trunk(self, batch: Batch) -> Float[Tensor, "b k h w"]:
        """The CNN's last feature map, or that of the layer."""
        activations, memo = self._trunk.below(batch.images)
        batch.memo.update(memo)
        return activations

    def predict(self, activations: Float[Tensor, "b k h w"], batch: Batch) -> Targets:
        """The caption that the model decodes; every word of it is a row."""
        activations, memo = self._trunk.above(activations, batch.memo)
        return self._targets(self.model.decode(activations, memo, self.beam, self.length), activations.device)

    def scores(self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets) -> Float[Tensor, "b t"]:
        """Log-probabilities of the words; with foils, how much more likely each is than its foil."""
        if targets.ids.shape[1] == 0:
            return activations.new_zeros(len(activations), 0)
        return self._read(self._states(activations, batch, targets), targets)

    def probabilities(
        self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets
    ) -> Float[Tensor, "b t"]:
        """Of each word, given the picture and the words before it."""
        return self.scores(activations, batch, replace(targets, foils=None)).exp()

    def heard(self, batch: Batch, targets: Targets) -> Heard:
        """The start mark and the words before the caption's last: word t hears the first t + 1 of them."""
        numbers, words = self._before(targets), self.model.vocabulary.words
        counts = targets.mask.sum(1).tolist()
        heard = [row[:count] for row, count in zip(numbers.tolist(), counts, strict=True)]
        return Heard(tuple(tuple(words[number] for number in row) for row in heard), self.model.hear(numbers))

    def scores_heard(
        self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets, vectors: Float[Tensor, "bm l d"]
    ) -> Float[Tensor, "bm t"]:
        """The same scores, step by step from the words' vectors."""
        if targets.ids.shape[1] == 0:
            return activations.new_zeros(len(vectors), 0)
        activations, memo = self._trunk.above(activations, batch.memo)
        index = torch.arange(len(batch), device=vectors.device).repeat_interleave(len(vectors) // max(1, len(batch)))
        return self._read(self.model.states_of(activations, memo, vectors), targets.take(index))

    def runners_up(self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets) -> Targets:
        """The best other word after the same words; it may be the end mark."""
        if targets.ids.shape[1] == 0:
            return targets
        known = self.model.vocabulary
        logits = self.model.readout(self._states(activations, batch, targets))
        logits[..., known.encode([PAD, START, UNKNOWN])] = -torch.inf  # which no caption holds
        others = zip(targets.second(logits).tolist(), targets.mask.sum(1).tolist(), strict=True)
        return self._targets([row[:count] for row, count in others], activations.device)

    def given(self, texts: Sequence[str], batch: Batch) -> Targets:
        """Turn captions into targets.

        "a dog rather than a cat on a bench" explains the word dog of "a dog on a bench" rather than cat, and only such
        words; "a dog/cat on a bench" is the same.

        Raises:
            UserError: A caption is empty, or holds a word that the model does not know; names the nearest ones.
        """
        known = self.model.vocabulary
        pairs = [_contrasts(tokenise(text), known) for text in texts]
        if not all(pairs):
            raise UserError(
                "expected a caption of at least one word, got an empty one; leave it out to explain the model's own"
            )
        targets = self._targets([known.encode_known([pair[0] for pair in row]) for row in pairs], batch.images.device)
        if all(len(pair) == 1 for row in pairs for pair in row):
            return targets
        foils = targets.ids.clone()
        for i, row in enumerate(pairs):
            for t, pair in enumerate(row):
                foils[i, t] = known.encode_known(pair[-1:])[0]
        names = tuple(tuple(" rather than ".join(pair) for pair in row) for row in pairs)
        contrasts = replace(targets, words=names).rather_than(foils)
        return contrasts.only([[t for t, pair in enumerate(row) if len(pair) == 2] for row in pairs])

    def _before(self, targets: Targets) -> Int[Tensor, "b t"]:
        """What is heard: the start mark and all words but the last."""
        start = torch.full_like(targets.ids[:, :1], self.model.vocabulary.encode([START])[0])
        return torch.cat([start, targets.ids], 1)[:, : targets.ids.shape[1]]

    def _states(self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets) -> Float[Tensor, "b t d"]:
        activations, memo = self._trunk.above(activations, batch.memo)
        return self.model.explainable_states(activations, memo, self._before(targets))

    def _read(self, states: Float[Tensor, "b t d"], targets: Targets) -> Float[Tensor, "b t"]:
        readout = self.model.readout
        if targets.foils is not None:
            return word_logit_difference(states, readout.weight, readout.bias, targets.ids, targets.foils)
        return word_log_probability(states, readout.weight, readout.bias, targets.ids)

    def _targets(self, captions: Sequence[Sequence[int]], device: torch.device) -> Targets:
        words = self.model.vocabulary.words
        return Targets.of(captions, [[words[number] for number in caption] for caption in captions], device)


def _contrasts(words: Sequence[str], known: Vocabulary) -> list[list[str]]:
    """The words of a caption, each with its foil if it has one."""
    pairs: list[list[str]] = []
    left = list(words)
    while left:
        if pairs and len(left) > 2 and left[:2] == ["rather", "than"]:
            # Of "a dog rather than a cat" the foil is cat, though the caption with it would have one article.
            article = len(left) > 3 and left[2] in ARTICLES and len(pairs) > 1 and pairs[-2][0] in ARTICLES
            pairs[-1] = [pairs[-1][0], left[3 if article else 2]]
            del left[: 4 if article else 3]
        else:
            word = left.pop(0)
            pairs.append([word] if word in known else word.split("/", 1))
    return pairs
