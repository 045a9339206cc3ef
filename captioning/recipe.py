"""Training a captioner on COCO captions (scenes are written in the same format)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, Subset

from captioning.captioner import Captioner
from captioning.data import CocoCaptions
from captioning.decode import decode
from captioning.karpathy import KarpathySplit
from captioning.models import AttendAndTell, ShowAndTell
from captioning.readout import EvidenceReadout
from mmcam.checkpoint import load_model
from mmcam.errors import UserError, unknown
from mmcam.networks.backbones import load_backbone
from mmcam.networks.scene_cnn import SceneCNN
from mmcam.pictures import Pictures
from mmcam.scenes.kinds import NAMES
from mmcam.scenes.language import NOUNS
from mmcam.text import END, START, Vocabulary, pad, tokenise
from mmcam.training import Steps, TrunkRecipe
from mmcam.training.options import check_counts, check_measures, making, starting
from mmcam.training.processes import everyones, share

MODELS: dict[str, type[Any]] = {"ShowAndTell": ShowAndTell, "AttendAndTell": AttendAndTell}


class CaptionRecipe(TrunkRecipe):
    """Train a captioner by teacher forcing; each epoch hears some of a picture's captions, drawn anew."""

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
        karpathy: str = "",
        trunk_from: int | None = None,
        in_memory: bool = True,
        smoothing: float = 0.02,
        judged: int = 0,
        best_by: str = "",
        patience: int | None = None,
        steps: Steps | None = None,
    ) -> None:
        """Name model, data and hyperparameters.

        Args:
            model: "ShowAndTell" or "AttendAndTell".
            data: Folder with `<split>/` and `annotations/captions_<split>.json`; with `karpathy` that of the pictures.
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
            karpathy: Karpathy's file, `dataset_coco.json`, whose splits are then meant: "train+restval", "val".
            trunk_from: The epoch from which the trunk learns, 1 is the first; see `mmcam.training.TrunkRecipe`.
            in_memory: Whether a trunk that never learns is run once; otherwise pictures are read in every epoch.
            smoothing: Of the labels: what of a word's probability is spread over all words.
            judged: So many validation pictures are described after each epoch and judged by CIDEr-D.
            best_by: "cider_d", "val_loss" or "loss": of which the best epoch is kept; "" keeps the last one only.
            patience: After so many epochs without a better one training ends; None: it does not end early.
            steps: The optimiser, and how the rate changes; see `mmcam.training.Steps`.
        """
        if model not in MODELS:
            raise unknown("captioner", model, MODELS)
        check_measures(best_by, judged, ("loss", "val_loss"), "cider_d")
        check_counts(batch_size=batch_size, captions_each=captions_each, limit=limit)
        self.start = start
        self.model, self.data, self.backbone, self.backbone_weights = model, data, backbone, backbone_weights
        self.train_split, self.val_split = train_split, val_split
        self.captions_each = captions_each
        self.epochs, self.batch_size, self.rate, self.trunk_rate = epochs, batch_size, rate, trunk_rate
        self.least_count, self.seed, self.limit, self.options = least_count, seed, limit, options or {}
        self.karpathy, self.trunk_from, self.in_memory, self.smoothing = karpathy, trunk_from, in_memory, smoothing
        self.judged, self.best_by, self.patience, self.steps = judged, best_by, patience, steps or Steps()
        self._files: dict[str, CocoCaptions | KarpathySplit] = {}
        self.check()

    def build(self) -> nn.Module:
        """A random language half on a trained trunk."""
        captions = [text for texts in self._read(self.train_split, self.limit)[1] for text in texts]
        vocabulary = Vocabulary.build(captions, self.least_count)
        with making(self.model, self.options):
            model = MODELS[self.model](list(vocabulary.words), self.backbone, **self.options)
        load_backbone(model.backbone, self.backbone_weights, self.backbone)
        self.begin(model, 1)
        _name_what_is_known(model)
        if self.start:
            earlier = load_model(self.start, (MODELS[self.model],))
            if earlier.vocabulary.words != model.vocabulary.words:  # numbers would mean other words
                raise UserError(f"start: {self.start} knows other words than {self.data} with this limit")
            with starting(self.start, self.options):
                model.load_state_dict(earlier.state_dict())
        return model

    def examples(self, model: nn.Module, device: torch.device) -> Dataset[Any]:
        """Pictures, or what the frozen trunk makes of them, with some captions each."""
        assert isinstance(model, Captioner)
        paths, sentences = self._read(self.train_split, self.limit)
        pictures = self.seen(model, Pictures(paths, model.backbone), device)
        captions = [[model.vocabulary.encode(tokenise(text)) for text in texts] for texts in sentences]
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
        self.hold_still(model)
        logits = model.readout(model.states(pictures.float(), {}, heard)) if self.kept else model(pictures, heard)
        return cross_entropy(
            logits.flatten(0, 1).float(), said.flatten(), ignore_index=0, label_smoothing=self.smoothing
        )

    def weight(self, batch: tuple[Tensor, Int[Tensor, "b t"], Int[Tensor, "b t"]]) -> float:
        """Words."""
        return float((batch[2] > 0).sum())

    def measure(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Validation loss: mean negative log-probability a word; and CIDEr-D of the model's own captions, if asked."""
        assert isinstance(model, Captioner)
        paths, sentences = self._read(self.val_split, 500)
        spoken = _Spoken(
            Pictures(paths, model.backbone),
            [[model.vocabulary.encode(tokenise(texts[0]))] for texts in sentences],
            model,
            each=1,
        )
        total = count = 0.0
        with torch.no_grad():
            for batch in DataLoader(spoken, 50, collate_fn=self.collate, num_workers=self.workers):
                pictures, heard, said = (part.to(device) for part in batch)
                logits = model(pictures, heard)
                total += float(
                    cross_entropy(logits.flatten(0, 1).float(), said.flatten(), ignore_index=0, reduction="sum")
                )
                count += float((said > 0).sum())
        return {"val_loss": total / count} | ({"cider_d": self._cider_d(model, device)} if self.judged else {})

    def _cider_d(self, model: Captioner, device: torch.device) -> float:
        """Describe the first validation pictures, greedily, and judge the captions by people's; 0 to 10."""
        from captioning.metrics.cider import cider_d
        from captioning.metrics.words import words_of

        paths, sentences = self._read(self.val_split, self.judged)
        mine = Subset(Pictures(paths, model.backbone), share(range(len(paths))))
        said: list[str] = []
        with torch.no_grad():
            for pictures in DataLoader(mine, 50, num_workers=self.workers):
                numbers = decode(model, *model.backbone.trunk(pictures.to(device)))
                said += [" ".join(model.vocabulary.decode(row)) for row in numbers]
        ours = [words_of(text) for text in everyones(said)]
        return float(cider_d(ours, [[words_of(text) for text in texts] for texts in sentences]).mean())

    def _read(self, split: str, limit: int | None) -> tuple[Sequence[Path], Sequence[Sequence[str]]]:
        """The first pictures of a split and their sentences; a file is read once."""
        if split not in self._files:
            root = Path(self.data)
            file = root / "annotations" / f"captions_{split}.json"
            self._files[split] = (
                KarpathySplit(self.karpathy, self.data, split) if self.karpathy else CocoCaptions(root / split, file)
            )
        data = self._files[split]
        return data.paths[:limit], data.captions[:limit]


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
