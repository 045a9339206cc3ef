"""Training a captioner on COCO captions (scenes are written in the same format)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset

from captioning.data import CocoCaptions
from captioning.models import AttendAndTell, Captioner, ShowAndTell
from captioning.readout import EvidenceReadout
from mmcam.checkpoint import load_model
from mmcam.errors import UserError, unknown
from mmcam.networks.backbones import SceneCNN, load_backbone
from mmcam.pictures import Pictures, frozen_activations
from mmcam.scenes.kinds import NAMES
from mmcam.scenes.language import NOUNS
from mmcam.text import END, START, Vocabulary, pad, tokenise
from mmcam.training import Recipe

MODELS: dict[str, type[Any]] = {"ShowAndTell": ShowAndTell, "AttendAndTell": AttendAndTell}


class CaptionRecipe(Recipe):
    """Train a captioner by teacher forcing; each epoch hears some of a picture's captions, drawn anew.

    The trunk is trained beforehand, as a classifier. With `trunk_rate` 0 it stays frozen and its activations are
    computed once and kept in memory (float16); otherwise it learns along, from pixels.
    """

    def __init__(
        self,
        model: str,
        data: str,
        backbone: str = "scenes",
        backbone_weights: str | None = None,
        train_split: str = "train",
        val_split: str = "val",
        epochs: int = 30,
        batch_size: int = 32,
        captions_each: int = 5,
        rate: float = 2e-3,
        trunk_rate: float = 0.0,
        least_count: int = 1,
        seed: int = 0,
        limit: int | None = None,
        start: str | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        """Name model, data and hyperparameters.

        Args:
            model: "ShowAndTell" or "AttendAndTell".
            data: Folder with `<split>/` and `annotations/captions_<split>.json`.
            backbone: Name of the CNN.
            backbone_weights: Its weights: shipped, a folder, or "DEFAULT" for torchvision's and timm's own.
            train_split: Name of the training split.
            val_split: Name of the validation split.
            epochs: Passes over the pictures.
            batch_size: Pictures a step.
            captions_each: Captions of each picture a step.
            rate: Highest learning rate of the language half.
            trunk_rate: Highest learning rate of the CNN.
            least_count: How often a word must occur to be in the vocabulary.
            seed: Of weights, order and dropout.
            limit: Use the first pictures only.
            start: Weights of an earlier round of the same model to go on from: shipped, or a folder.
            options: More arguments of the model.
        """
        if model not in MODELS:
            raise unknown("captioner", model, MODELS)
        for name, number in {"batch_size": batch_size, "captions_each": captions_each, "limit": limit}.items():
            if number is not None and number < 1:
                raise UserError(f"{name}: expected 1 at least, got {number}")
        self.start = start
        self.model, self.data, self.backbone, self.backbone_weights = model, data, backbone, backbone_weights
        self.train_split, self.val_split = train_split, val_split
        self.captions_each = captions_each
        self.epochs, self.batch_size, self.rate, self.trunk_rate = epochs, batch_size, rate, trunk_rate
        self.least_count, self.seed, self.limit, self.options = least_count, seed, limit, options or {}

    def build(self) -> nn.Module:
        """A random language half on a trained trunk."""
        captions = [text for texts in self._read(self.train_split, self.limit).captions for text in texts]
        vocabulary = Vocabulary.build(captions, self.least_count)
        try:
            model = MODELS[self.model](list(vocabulary.words), self.backbone, **self.options)
        except TypeError as error:
            raise UserError(f"options: {self.options} are none of {self.model}: {error}") from error
        load_backbone(model.backbone, self.backbone_weights, self.backbone)
        model.backbone.requires_grad_(self.trunk_rate > 0)
        _name_what_is_known(model)
        if self.start:
            earlier = load_model(self.start, (MODELS[self.model],))
            if earlier.vocabulary.words != model.vocabulary.words:  # numbers would mean other words
                raise UserError(f"start: {self.start} knows other words than {self.data} with this limit")
            try:
                model.load_state_dict(earlier.state_dict())
            except RuntimeError as error:
                reason = " ".join(str(error).split())
                raise UserError(f"start: {self.start} is of other options than {self.options}: {reason}") from error
        return model

    def rates(self, model: nn.Module) -> list[dict[str, Any]]:
        """The trunk has a rate of its own."""
        assert isinstance(model, Captioner)
        trunk = set(model.backbone.parameters())
        groups = [{"params": [p for p in model.parameters() if p not in trunk], "lr": self.rate}]
        return groups + ([{"params": list(trunk), "lr": self.trunk_rate}] if self.trunk_rate else [])

    def examples(self, model: nn.Module, device: torch.device) -> Dataset[Any]:
        """Pictures, or what the frozen trunk makes of them, with some captions each."""
        assert isinstance(model, Captioner)
        data = self._read(self.train_split, self.limit)
        pictures: Any = Pictures(data.paths, model.backbone)
        if not self.trunk_rate:
            pictures = frozen_activations(model.backbone, pictures, device, amp=True)
        captions = [[model.vocabulary.encode(tokenise(text)) for text in texts] for texts in data.captions]
        return _Spoken(pictures, captions, model, self.captions_each)

    def collate(self, examples: Sequence[Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Pad the captions; those of one picture stay together."""
        heard, _ = pad([words for _, captions in examples for words, _ in captions])
        said, _ = pad([words for _, captions in examples for _, words in captions])
        return torch.stack([picture for picture, _ in examples]), heard, said

    def loss(self, model: nn.Module, batch: tuple[Tensor, Int[Tensor, "b t"], Int[Tensor, "b t"]]) -> Tensor:
        """Mean negative log-probability of a word, the end mark included."""
        assert isinstance(model, Captioner)
        pictures, heard, said = batch
        if self.trunk_rate:
            logits = model(pictures, heard)
        else:
            model.backbone.eval()  # frozen also in its batch statistics
            logits = model.readout(model.states(pictures.float(), {}, heard))
        return cross_entropy(logits.flatten(0, 1).float(), said.flatten(), ignore_index=0, label_smoothing=0.02)

    def measure(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Validation loss: mean negative log-probability a word."""
        assert isinstance(model, Captioner)
        data = self._read(self.val_split, 500)
        spoken = _Spoken(
            Pictures(data.paths, model.backbone),
            [[model.vocabulary.encode(tokenise(texts[0]))] for texts in data.captions],
            model,
            each=1,
        )
        total = count = 0.0
        with torch.no_grad():
            for start in range(0, len(spoken), 50):
                pictures, heard, said = self.collate([spoken[i] for i in range(start, min(start + 50, len(spoken)))])
                logits = model(pictures.to(device), heard.to(device))
                total += float(
                    cross_entropy(
                        logits.flatten(0, 1).float(), said.to(device).flatten(), ignore_index=0, reduction="sum"
                    )
                )
                count += float((said > 0).sum())
        return {"val_loss": total / count}

    def _read(self, split: str, limit: int | None) -> CocoCaptions:
        root = Path(self.data)
        return CocoCaptions(root / split, root / "annotations" / f"captions_{split}.json", limit)


def _name_what_is_known(model: Captioner) -> None:
    """Let the embedded classifier's rows be the start of what places say: for nouns, and for what can be counted."""
    if not (isinstance(model, AttendAndTell) and isinstance(model.backbone, SceneCNN)):
        return
    classifier, density = model.backbone.classifier, model.backbone.density
    assert classifier.bias is not None
    assert density.bias is not None
    assert model.evidence.bias is not None
    with torch.no_grad():
        for word, (kind, plural) in NOUNS.items():
            if word in model.vocabulary:
                assert isinstance(model.readout, EvidenceReadout)
                stem, row = model.readout.index[model.vocabulary.encode([word])[0]], NAMES.index(kind)
                model.evidence.weight[stem] = classifier.weight[row]
                model.evidence.bias[stem] = classifier.bias[row]
                if not plural and model.name.out_features == len(NAMES):
                    model.name.weight[row] = torch.nn.functional.one_hot(stem, model.readout.count)
        if model.name.out_features == len(NAMES):
            model.density.weight.copy_(torch.cat([density.weight.flatten(1), density.bias[:, None]], 1).T)


class _Spoken(Dataset[tuple[Float[Tensor, "..."], list[tuple[list[int], list[int]]]]]):
    """A picture with some of its captions, drawn by torch: each as heard (start first) and as said (end last)."""

    def __init__(self, pictures: Any, captions: Sequence[Sequence[list[int]]], model: Captioner, each: int) -> None:  # noqa: ANN401
        self.pictures, self.captions, self.each = pictures, captions, each
        self.start, self.end = model.vocabulary.encode([START, END])

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int) -> tuple[Float[Tensor, "..."], list[tuple[list[int], list[int]]]]:
        texts = self.captions[index]
        drawn = [texts[i % len(texts)] for i in torch.randperm(max(self.each, len(texts)))[: self.each].tolist()]
        return self.pictures[index], [([self.start, *words], [*words, self.end]) for words in drawn]
