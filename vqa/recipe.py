"""Training a VQA model on questions in VQA v2's format (scenes and easy-VQA are written in it too)."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, Subset

from mmcam.checkpoint import load_model
from mmcam.errors import UserError, unknown
from mmcam.networks.backbones import load_backbone
from mmcam.networks.scene_cnn import SceneCNN
from mmcam.pictures import Pictures, frozen_activations
from mmcam.scenes.kinds import NAMES
from mmcam.scenes.language import NOUNS
from mmcam.text import Vocabulary, pad, tokenise
from mmcam.training import Steps, TrunkRecipe
from mmcam.training.options import check_counts, check_measures, making, starting
from mmcam.training.processes import everyones, share
from vqa.accuracy import vqa_accuracy
from vqa.models import NormProduct, StackedAttention, VQAModel
from vqa.published import Asked, VqaV2, common_answers, files_of, of_split

MODELS: dict[str, type[Any]] = {"NormProduct": NormProduct, "StackedAttention": StackedAttention}

MEASURED = 1000
"""Validation pictures after every epoch: the activations of all 40,000 of VQA v2 would not fit into memory."""


class VQARecipe(TrunkRecipe):
    """Train a VQA model as a classifier of the common answers."""

    def __init__(
        self,
        model: str,
        data: str,
        name: str = "scenes",
        file_name: str = "scenes_{split}_{{:012d}}.png",
        backbone: str = "scenes",
        backbone_weights: str | None = None,
        train_split: str = "train",
        val_split: str = "val",
        epochs: int = 15,
        batch_size: int = 32,
        questions_each: int = 8,
        rate: float = 2e-3,
        trunk_rate: float = 0.0,
        most_answers: int = 1000,
        least_count: int = 1,
        seed: int = 0,
        limit: int | None = None,
        start: str | None = None,
        blind: bool = False,
        options: dict[str, Any] | None = None,
        trunk_from: int | None = None,
        in_memory: bool = True,
        judged: int = 0,
        best_by: str = "",
        patience: int | None = None,
        steps: Steps | None = None,
    ) -> None:
        """Name model, data and hyperparameters.

        Args:
            model: "NormProduct" or "StackedAttention".
            data: Folder with `<split>/` and `annotations/`, or, as the data set's own tools have it, with
                `Images/<name>/<split>/`, `Questions/` and `Annotations/`.
            name: The data set's name in its files, "mscoco" or "scenes".
            file_name: A picture's name: `{split}` is filled in first, then the picture's id.
            backbone: Name of the CNN.
            backbone_weights: Its weights: shipped, a folder, or "DEFAULT" for torchvision's and timm's own.
            train_split: Name of the training split.
            val_split: Name of the validation split.
            epochs: Passes over the pictures.
            batch_size: Pictures a step.
            questions_each: Questions of each picture a step.
            rate: Highest learning rate of the language half.
            trunk_rate: Highest learning rate of the CNN.
            most_answers: How many answers are classes; questions with others are left out of training.
            least_count: How often a word must occur to be in the vocabulary.
            seed: Of weights, order and dropout.
            limit: Use the questions of the first pictures only.
            start: Weights of an earlier round of the same model to go on from: shipped, or a folder.
            blind: Show a grey picture in place of every one: the question-only baseline.
            options: More arguments of the model.
            trunk_from: The epoch from which the trunk learns, 1 is the first; see `mmcam.training.TrunkRecipe`.
            in_memory: Whether a trunk that never learns is run once; otherwise pictures are read in every epoch.
            judged: The questions about so many validation pictures are answered after each epoch and judged by what
                ten people said; 0: only whether an answer is the most common one, about the first thousand.
            best_by: "vqa_accuracy", "val_accuracy" or "loss": of which the best epoch is kept; "" keeps the last only.
            patience: After so many epochs without a better one training ends; None: it does not end early.
            steps: The optimiser, and how the rate changes; see `mmcam.training.Steps`.
        """
        if model not in MODELS:
            raise unknown("VQA model", model, MODELS)
        check_measures(best_by, judged, ("loss", "val_accuracy"), "vqa_accuracy")
        check_counts(batch_size=batch_size, questions_each=questions_each, most_answers=most_answers, limit=limit)
        self.start = start
        self.model, self.data, self.name, self.file_name = model, data, name, file_name
        self.backbone, self.backbone_weights = backbone, backbone_weights
        self.train_split, self.val_split = train_split, val_split
        self.questions_each = questions_each
        self.epochs, self.batch_size, self.rate, self.trunk_rate = epochs, batch_size, rate, trunk_rate
        self.most_answers, self.least_count, self.seed, self.limit = most_answers, least_count, seed, limit
        self.blind, self.options = blind, options or {}
        self.trunk_from, self.in_memory, self.judged = trunk_from, in_memory, judged
        self.best_by, self.patience, self.steps = best_by, patience, steps or Steps()
        self._judged: VqaV2 | None = None
        self.check()

    def build(self) -> nn.Module:
        """A random language half on a trained trunk."""
        asked = self._read(self.train_split, self.limit).asked
        vocabulary = Vocabulary.build((question.question for question in asked), self.least_count)
        answers = common_answers(asked, self.most_answers)
        with making(self.model, self.options):
            model = MODELS[self.model](list(vocabulary.words), answers, self.backbone, **self.options)
        load_backbone(model.backbone, self.backbone_weights, self.backbone)
        self.begin(model, 1)
        _name_what_is_known(model)
        if self.start:
            earlier = load_model(self.start, (MODELS[self.model],))
            # Numbers mean words and answers, and answers are in the order of how common they are in these data.
            if (earlier.vocabulary.words, earlier.answers) != (model.vocabulary.words, model.answers):
                raise UserError(f"start: {self.start} knows other words or answers than {self.data} with this limit")
            with starting(self.start, self.options):
                model.load_state_dict(earlier.state_dict())
        return model

    def examples(self, model: nn.Module, device: torch.device) -> Dataset[Any]:
        """Questions with their pictures, or with what the frozen trunk makes of them."""
        assert isinstance(model, VQAModel)
        return self._questions(self.train_split, self.limit, model, device, frozen=self.kept)

    def collate(self, examples: Sequence[Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pad the questions; those of one picture stay together."""
        rows = [row for _, questions in examples for row in questions]
        words, lengths = pad([words for words, _ in rows])
        return torch.stack([picture for picture, _ in examples]), words, lengths, torch.tensor([a for _, a in rows])

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        """Cross-entropy over the answers."""
        assert isinstance(model, VQAModel)
        self.hold_still(model)
        return cross_entropy(self._logits(model, batch, frozen=self.kept).float(), batch[3])

    def weight(self, batch: tuple[Tensor, Tensor, Tensor, Tensor]) -> float:
        """Questions."""
        return float(len(batch[3]))

    def measure(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Share of the questions answered right, about the first thousand validation pictures; or see `judged`."""
        assert isinstance(model, VQAModel)
        if self.judged:
            return self._judge(model, device)
        data = self._questions(self.val_split, MEASURED, model, device, frozen=True)
        right = 0
        with torch.no_grad():
            for batch in DataLoader(data, 64, collate_fn=self.collate):
                logits = self._logits(model, [part.to(device) for part in batch], frozen=True)
                right += int((logits.argmax(1).cpu() == batch[3]).sum())
        return {"val_accuracy": right / len(data)}

    def _judge(self, model: VQAModel, device: torch.device) -> dict[str, float]:
        """Answer the questions about the first validation pictures, each picture seen once; in shares."""
        if self._judged is None:  # a large file, and it does not change
            self._judged = self._read(self.val_split, self.judged)
        data = self._judged
        together: dict[int, list[Asked]] = defaultdict(list)
        for question in data.asked:
            together[question.picture].append(question)
        entries = sorted(together.items())
        mine = share(entries)
        pictures = Subset(Pictures(data.paths, model.backbone), [picture for picture, _ in mine])
        left, answers = iter(mine), []
        with torch.no_grad():
            for images in DataLoader(pictures, 32, num_workers=self.workers):
                shown = torch.zeros_like(images) if self.blind else images
                activations, memo = model.backbone.trunk(shown.to(device))
                for its in activations.split(1):
                    words, lengths = pad(
                        [model.vocabulary.encode(tokenise(question.question)) for question in next(left)[1]]
                    )
                    logits = model.answer(its, memo, model.listen(words.to(device), lengths))
                    answers.append([model.answers[number] for number in logits.argmax(1).tolist()])
        said = [answer for several in everyones(answers) for answer in several]
        asked = [question for _, several in entries for question in several]
        right = [answer == question.answer for answer, question in zip(said, asked, strict=True)]
        values = [vqa_accuracy(answer, question.answers) for answer, question in zip(said, asked, strict=True)]
        return {"vqa_accuracy": sum(values) / len(values), "val_accuracy": sum(right) / len(right)}

    def _logits(self, model: VQAModel, batch: Sequence[Tensor], *, frozen: bool) -> Float[Tensor, "b a"]:
        pictures, words, lengths, _ = batch
        if not frozen:
            return model(pictures, words, lengths)
        model.backbone.eval()  # frozen also in its batch statistics
        return model.answer(pictures.float(), {}, model.listen(words, lengths))

    def _questions(
        self, split: str, limit: int | None, model: VQAModel, device: torch.device, *, frozen: bool
    ) -> "_Questions":
        data = self._read(split, limit)
        known = {answer: i for i, answer in enumerate(model.answers)}
        kept = [question for question in data.asked if split != self.train_split or question.answer in known]
        pictures: Any = Pictures(data.paths, model.backbone)
        if self.blind:
            grey = [torch.zeros_like(pictures[0])]
            one = frozen_activations(model.backbone, grey, device, amp=True) if frozen else torch.stack(grey)
            pictures = one.expand(len(pictures), -1, -1, -1)
        elif frozen:
            pictures = frozen_activations(model.backbone, pictures, device, amp=True, workers=self.workers)
        rows = [(q.picture, (model.vocabulary.encode(tokenise(q.question)), known.get(q.answer, -1))) for q in kept]
        if split != self.train_split:
            return _Questions(pictures, [(picture, [row]) for picture, row in rows], 1)
        together: dict[int, list[tuple[list[int], int]]] = defaultdict(list)
        for picture, row in rows:
            together[picture].append(row)
        return _Questions(pictures, sorted(together.items()), self.questions_each)

    def _read(self, split: str, limit: int | None) -> VqaV2:
        return VqaV2(*files_of(self.data, split, self.name), of_split(self.file_name, split), limit)


def _name_what_is_known(model: VQAModel) -> None:
    """Let the embedded classifier's rows be the start of words and answers that it knows, and of noticing them."""
    if not (isinstance(model, StackedAttention) and isinstance(model.backbone, SceneCNN)):
        return
    classifier = model.backbone.classifier
    assert classifier.bias is not None
    assert model.evidence.bias is not None
    rows = classifier.weight.detach().flatten(1)
    with torch.no_grad():
        for number, answer in enumerate(model.answers):
            if answer in NAMES:
                model.evidence.weight[number] = classifier.weight[NAMES.index(answer)]
                model.evidence.bias[number] = classifier.bias[NAMES.index(answer)]
        for word, (kind, _) in NOUNS.items():
            if word in model.vocabulary:
                model.hear.weight[model.vocabulary.encode([word])[0]] = rows[NAMES.index(kind)]
        nouns = torch.linalg.lstsq(rows, torch.ones(len(rows), 1)).solution.T  # 1 for every noun's vector
        model.notice.weight[:, : rows.shape[1]] = 6 * nouns


class _Questions(Dataset[tuple[Tensor, list[tuple[list[int], int]]]]):
    """A picture with some of its questions, drawn by torch: words and the answer's number (-1: none of the model's)."""

    def __init__(self, pictures: Any, entries: Sequence[tuple[int, list[tuple[list[int], int]]]], each: int) -> None:  # noqa: ANN401
        self.pictures, self.entries, self.each = pictures, entries, each

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> tuple[Tensor, list[tuple[list[int], int]]]:
        picture, rows = self.entries[index]
        drawn = torch.randperm(max(self.each, len(rows)))[: self.each].tolist()
        return self.pictures[picture], [rows[i % len(rows)] for i in drawn]
