"""The classification task: the score of a class is its logit, before softmax."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Tensor, nn

from classification.labels import read_labels
from classification.models import Form, classifier
from mmcam.errors import UserError, unknown
from mmcam.image import Interpolation, crop_to_tensor, to_tensor
from mmcam.load import check_weights
from mmcam.networks.cut import Cut
from mmcam.networks.survey import last_map
from mmcam.networks.twin import twin
from mmcam.task import Batch, Sample, Targets, Task


class ClassificationTask(Task):
    """Explain classes with any classifier and any of its layers: its most likely ones, or those that the user gives.

    y_c = the logit of class c (Grad-CAM paper, section 3). Layers may give maps, channels-last maps or tokens on a
    grid; of tokens, those that lie nowhere (class token, registers) get no map. The model is only read.
    """

    seeing = ("model",)  # to the last layer

    def __init__(
        self,
        model: str | nn.Module,
        layer: str | None = None,
        classes: list[str] | None = None,
        *,
        weights: str | None = None,
        num_classes: int | None = None,
        labels: list[str] | str | None = None,
        size: int | tuple[int, int] | None = None,
        crop: bool | None = None,
        resize: int | None = None,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        interpolation: Interpolation | None = None,
        top_k: int = 1,
        prefix: int | None = None,
    ) -> None:
        """Make the task.

        Args:
            model: A module that maps images to logits (b, classes), or a name: torchvision's ("resnet50") or timm's
                ("timm/vit_tiny_patch16_224").
            layer: Name of the explained layer; the last one with maps that the logits depend on if not given.
            classes: What to explain in every picture; the most likely classes if not given.
            weights: "DEFAULT" or another name of trained weights, or the path of a state dict (.safetensors, .pth);
                random weights if not given.
            num_classes: Of a named model; its own number if not given.
            labels: Names of the classes: a list, "imagenet", or the path of a text file with one a line. The weights'
                own if not given; without any, numbers.
            size: Side, or height and width, of the network's input. This and the next five: what the weights were
                trained for if not given; without weights, as for ImageNet.
            crop: Whether to cut the centre out, or to squash the whole picture to the size.
            resize: Short side before the centre is cut out.
            mean: Of red, green and blue, for values in [0, 1].
            std: Their standard deviations.
            interpolation: How pictures are resized.
            top_k: Number of most likely classes to explain.
            prefix: Tokens that come before the grid; known of torchvision's and timm's vision transformers.

        Raises:
            UserError: A name is not known, weights hold NaN, or there is nothing to explain.
        """
        super().__init__()
        wanted = (size, size) if isinstance(size, int) else size
        found = classifier(model, weights, num_classes, wanted)
        self.model = found.model
        check_weights(self.model)
        self.form = _form(found.form, wanted, crop, resize, mean, std, interpolation)
        self.labels = found.labels if labels is None else read_labels(labels)
        if top_k < 1:
            raise UserError(f"expected top_k of at least 1, got {top_k}")
        self.top_k = top_k
        if layer is None:
            images = torch.empty(1, 3, *self.form.size, device=self.device, dtype=self._dtype)
            layer = last_map(self.model, images, prefix)
        self.prefix = prefix
        self._cut = Cut(self.model, layer, prefix)
        self.layer = self._cut.layer
        self._names = _Names(self.labels or ())
        self.classes = classes

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Bring pictures to the network's size, by cutting out the centre or by squashing."""
        form = self.form
        if form.resize is None:
            images = [to_tensor(s.image, form.size, form.mean, form.std, form.interpolation) for s in samples]
            windows = ()
        else:
            crops = [
                crop_to_tensor(s.image, form.resize, form.size[0], form.mean, form.std, form.interpolation)
                for s in samples
            ]
            images, windows = [image for image, _ in crops], tuple(window for _, window in crops)
        sizes = tuple((sample.image.height, sample.image.width) for sample in samples)
        return Batch(torch.stack(images), tuple(sample.id for sample in samples), sizes, windows=windows)

    def trunk(self, batch: Batch) -> Float[Tensor, "b k h w"]:
        """The layer's output, laid out as maps."""
        activations, memo = self._cut.below(batch.images.to(self._dtype))
        batch.memo.update(memo)
        return activations

    def predict(self, activations: Float[Tensor, "b k h w"], batch: Batch) -> Targets:
        """The most likely classes, the first one first; or those that the task was made for."""
        if self.classes is not None:
            return self.given([", ".join(self.classes)] * len(batch), batch)
        logits = self._logits(activations, batch)
        best = logits.topk(min(self.top_k, logits.shape[1])).indices.tolist()
        return Targets.of(best, [[self._label(number) for number in row] for row in best], activations.device)

    def scores(self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets) -> Float[Tensor, "b t"]:
        """Logits of the classes."""
        return targets.pick(self._logits(activations, batch))

    def probabilities(
        self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets
    ) -> Float[Tensor, "b t"]:
        """Of each class, among all that the model knows."""
        logits = self._logits(activations, batch)
        probabilities = logits.softmax(1, dtype=torch.promote_types(logits.dtype, torch.float32))
        return replace(targets, foils=None).pick(probabilities)

    def runners_up(self, activations: Float[Tensor, "b k h w"], batch: Batch, targets: Targets) -> Targets:
        """The best other class."""
        others = targets.second(self._logits(activations, batch)).tolist()
        ids = [row[:count] for row, count in zip(others, targets.mask.sum(1).tolist(), strict=True)]
        return Targets.of(ids, [[self._label(number) for number in row] for row in ids], activations.device)

    def given(self, texts: Sequence[str], batch: Batch) -> Targets:
        """Turn classes into targets: "tabby, 282", "tabby rather than tiger cat".

        Args:
            texts: For each sample names or numbers of classes, separated by commas.
            batch: The samples.

        Returns:
            One row a class. That of "a rather than b" is the difference of two logits: its score is y(a) - y(b).

        Raises:
            UserError: A class is not known, or a name has several meanings.
        """
        if len(texts) != len(batch):
            raise UserError(f"expected classes for {len(batch)} pictures, got them for {len(texts)}")
        count = len(self.labels) if self.labels else self._count(batch)
        asked = [self._names.read(text, count) for text in texts]
        numbers = [[number for pair in row for number in pair] for row in asked]
        each = Targets.of(numbers, [[self._label(n) for n in row] for row in numbers], batch.images.device)
        spans = []
        for i, row in enumerate(asked):
            ends = list(accumulate(map(len, row)))
            spans.append([(end - len(pair), end) for pair, end in zip(row, ends, strict=True)])
            for pair, end in zip(row, ends, strict=True):
                each.rows[i, end - len(pair) + 1 : end] *= -1
        return each.merged(spans, " rather than ")

    def _logits(self, activations: Float[Tensor, "b k h w"], batch: Batch) -> Float[Tensor, "b c"]:
        return self._checked(self._cut.above(activations, batch.memo))

    def _checked(self, logits: object) -> Float[Tensor, "b c"]:
        logits = getattr(logits, "logits", logits)
        logits = logits[0] if isinstance(logits, tuple | list) else logits
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            came = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise UserError(
                f"expected a classifier, whose output is logits (b, classes); {type(self.model).__name__} gives {came}"
            )
        if self.labels is not None and len(self.labels) != logits.shape[1]:
            raise UserError(
                f"expected {logits.shape[1]} labels, as many as the model has classes; got {len(self.labels)}"
            )
        return logits

    def _label(self, number: int) -> str:
        return self.labels[number] if self.labels else str(number)

    def _count(self, batch: Batch) -> int:
        """How many classes an unlabelled model has."""
        with torch.no_grad():
            return self._checked(twin(self.model)(batch.images[:1].to(self.device, self._dtype))).shape[1]

    @property
    def _dtype(self) -> torch.dtype:
        return next((p.dtype for p in self.model.parameters() if p.is_floating_point()), torch.float32)


class _Names:
    """Finds classes by number and by name: as written, then in any case, then by one of the synonyms between commas."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = labels
        self.tables: list[dict[str, set[int]]] = [defaultdict(set) for _ in range(3)]
        for number, label in enumerate(labels):
            self.tables[0][label.strip()].add(number)
            self.tables[1][_plain(label)].add(number)
            for synonym in label.split(","):
                self.tables[2][_plain(synonym)].add(number)

    def read(self, text: str, count: int) -> list[list[int]]:
        """Read one picture's classes, each with its foil if it has one; a label may hold commas itself."""
        pieces, found, start = text.split(","), [], 0
        while start < len(pieces):
            for end in range(len(pieces), start, -1):
                sides = [side.strip() for side in ",".join(pieces[start:end]).split(" rather than ")]
                numbers = [self._find(side, count) for side in sides[:2]]
                if len(sides) <= 2 and None not in numbers:
                    found.append(numbers)
                    break
            else:
                lost = next(
                    (s for s in pieces[start].split(" rather than ") if self._find(s.strip(), count) is None),
                    pieces[start],
                )
                raise self._unknown(lost.strip(), count)
            start = end
        return found

    def _find(self, name: str, count: int) -> int | None:
        for table, key in zip(self.tables, (name, _plain(name), _plain(name)), strict=True):
            numbers = table.get(key, set())
            if len(numbers) > 1:
                raise UserError(f"class {name!r} may be {' or '.join(map(str, sorted(numbers)))}; give the number")
            if numbers:
                return next(iter(numbers))
        return int(name) if name.isdecimal() and int(name) < count else None

    def _unknown(self, name: str, count: int) -> UserError:
        if not name:
            return UserError("expected names or numbers of classes, separated by commas; got an empty one")
        if name.isdecimal() or not self.labels:
            known = "" if self.labels else "; give labels= to use names"
            return UserError(f"unknown class {name!r}: the model's classes are 0 to {count - 1}{known}")
        return unknown("class", name, self.labels)


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


def _form(
    own: Form,
    size: tuple[int, int] | None,
    crop: bool | None,
    resize: int | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    interpolation: Interpolation | None,
) -> Form:
    """The user's wishes over what the weights were trained for."""
    size = size or own.size
    crop = (own.resize is not None and size[0] == size[1]) if crop is None else crop
    if crop and size[0] != size[1]:
        raise UserError(
            f"expected a square size to cut out of the centre, got {size[0]} x {size[1]}; set crop to false to squash"
        )
    if not crop and resize is not None:
        raise UserError("resize is the short side before cutting out the centre; set crop to true, or leave resize out")
    share = (own.resize or own.size[0]) / own.size[0] if own.resize else 256 / 224
    short = (resize or round(size[0] * share)) if crop else None
    return Form(size, short, mean or own.mean, std or own.std, interpolation or own.interpolation)
