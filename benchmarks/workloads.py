"""What is explained: three models with random weights, each cut into trunk and head for peers that want a plain module.

Every method gets the same modules with the same parameters: ours as a task, the peers as `whole`, a `nn.Sequential` of
trunk and head from pictures to scores, of which each target is one column.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchvision.models import get_model

from captioning.models import ShowAndTell
from captioning.task import CaptioningTask
from classification.task import ClassificationTask
from mmcam.errors import UserError
from mmcam.task import Batch, Targets, Task
from mmcam.text import SPECIAL, START
from vqa.models import NormProduct
from vqa.task import VQATask


@dataclass(frozen=True)
class Size:
    """How large everything is.

    Attributes:
        picture: Height and width.
        classifier: Name of the CNN of workload a.
        captioner: Of b.
        vqa: Of c.
        vocabulary: Words that the captioner knows, with the special ones.
        width: Of the captioner's embeddings and LSTM.
        caption: Words a caption.
        answers: Answers that the VQA model knows.
        questions: Words that it knows.
    """

    picture: int = 224
    classifier: str = "resnet50"
    captioner: str = "resnet101"
    vqa: str = "vgg19"
    vocabulary: int = 9568
    width: int = 512
    caption: int = 12
    answers: int = 1000
    questions: int = 12000


FULL = Size()
TINY = Size(64, "resnet18", "resnet18", "resnet18", vocabulary=50, width=16, caption=3, answers=20, questions=30)


@dataclass(frozen=True)
class Case:
    """One row of the plan: which workload, how many pictures at once, how many targets a picture."""

    workload: str
    batch: int
    targets: int

    @property
    def title(self) -> str:
        """For headings."""
        names = {"a": "classifier, {} classes", "b": "Show and Tell, {} words", "c": "LSTM-Q + norm-I, {} answers"}
        return f"({self.workload}) {names[self.workload].format(self.targets)} a picture, batch {self.batch}"


@dataclass(frozen=True, eq=False)
class Workload:
    """One case, built.

    Attributes:
        task: Ours.
        whole: The same model as a plain module, pictures → scores; its first part gives the explained maps.
        batch: The pictures.
        targets: What is explained.
        columns: Which column of `whole`'s output is the score of each target.
    """

    task: Task
    whole: nn.Sequential
    batch: Batch
    targets: Targets
    columns: Int[Tensor, "b t"]

    @property
    def trunk(self) -> nn.Module:
        """Pictures → activations."""
        return self.whole[0]

    @property
    def head(self) -> nn.Module:
        """Activations → scores."""
        return self.whole[1]


def cases(workload: str, batches: list[int] | None, size: Size) -> list[Case]:
    """The cases of a workload.

    Args:
        workload: "a", "b" or "c".
        batches: Pictures at once; those of the issue if not given.
        size: Says how long captions are.

    Returns:
        The cases, the smallest first.
    """
    usual = {"a": [1, 8], "b": [1, 8, 32], "c": [1, 8]}
    targets = {"a": [1, 5, 20], "b": [size.caption], "c": [5]}
    if workload not in usual:
        raise UserError(f"unknown workload {workload!r}; choose a, b or c")
    return [Case(workload, b, t) for b in batches or usual[workload] for t in targets[workload]]


def build(case: Case, size: Size, seed: int, device: str) -> Workload:
    """Make models with random weights, and random pictures and targets.

    Args:
        case: Which.
        size: How large.
        seed: Of everything random.
        device: Where.

    Returns:
        The workload, in eval mode.
    """
    torch.manual_seed(seed)
    images = torch.randn(case.batch, 3, size.picture, size.picture)
    make: Callable[[Case, Size, Tensor], Workload] = {"a": _classifier, "b": _captioner, "c": _vqa}[case.workload]
    work = make(case, size, images)
    work.task.to(device).eval()
    whole = work.whole.to(device).eval()
    with _settling(whole), torch.no_grad():
        whole[0](torch.randn(4, 3, size.picture, size.picture, device=device))
    return Workload(work.task, whole, work.batch.to(device), work.targets.to(device), work.columns.to(device))


def _classifier(case: Case, size: Size, images: Tensor) -> Workload:
    model = get_model(size.classifier, weights=None)
    *below, pool, last = model.children()
    whole = nn.Sequential(nn.Sequential(*below), nn.Sequential(pool, nn.Flatten(), last))
    ids = torch.rand(case.batch, 1000).topk(case.targets).indices
    return Workload(ClassificationTask(model, layer="layer4"), whole, _batch(images), _targets(ids), ids)


def _captioner(case: Case, size: Size, images: Tensor) -> Workload:
    words = [f"w{i}" for i in range(size.vocabulary - len(SPECIAL))]
    model = ShowAndTell(words, size.captioner, embedding=size.width, hidden=size.width)
    ids = torch.randint(len(SPECIAL), size.vocabulary, (case.batch, case.targets))
    whole = nn.Sequential(model.backbone.lower, Caption(model, ids))
    columns = torch.arange(case.targets).expand(case.batch, -1)
    return Workload(CaptioningTask(model), whole, _batch(images), _targets(ids), columns)


def _vqa(case: Case, size: Size, images: Tensor) -> Workload:
    words = [f"w{i}" for i in range(size.questions - len(SPECIAL))]
    model = NormProduct(words, [f"a{i}" for i in range(size.answers)], size.vqa)
    question = torch.randint(len(SPECIAL), size.questions, (case.batch, 8))
    head = Answer(model, question)
    batch = _batch(images, words=head.words, lengths=head.lengths)
    whole = nn.Sequential(model.backbone.lower, head)
    with torch.no_grad():
        ids = whole.eval()(images).topk(case.targets).indices
    return Workload(VQATask(model, top_k=case.targets), whole, batch, _targets(ids), ids)


class Caption(nn.Module):
    """The head of a captioner, as its user would write it: log-probabilities of the words of given captions."""

    def __init__(self, model: ShowAndTell, ids: Int[Tensor, "b t"]) -> None:
        super().__init__()
        self.model = model
        self.ids = nn.Buffer(ids, persistent=False)
        start = torch.full_like(ids[:, :1], model.vocabulary.encode([START])[0])
        self.heard = nn.Buffer(torch.cat([start, ids[:, :-1]], 1), persistent=False)

    def forward(self, activations: Float[Tensor, "b k h w"]) -> Float[Tensor, "b t"]:
        """Teacher forcing, softmax, and the given words out of it."""
        logits = self.model.readout(self.model.states(activations, {}, self.heard))
        return logits.log_softmax(2).gather(2, self.ids[..., None]).squeeze(2)


class Answer(nn.Module):
    """The head of a VQA model with the questions filled in: one logit an answer."""

    def __init__(self, model: NormProduct, words: Int[Tensor, "b t"]) -> None:
        super().__init__()
        self.model = model
        self.words = nn.Buffer(words, persistent=False)
        self.lengths = torch.full((len(words),), words.shape[1])

    def forward(self, activations: Float[Tensor, "b k h w"]) -> Float[Tensor, "b a"]:
        """Hear the question (without a graph, for everybody's sake) and answer it."""
        with torch.no_grad():
            question = self.model.listen(self.words, self.lengths)
        return self.model.answer(activations, {}, question)


@contextmanager
def _settling(model: nn.Module) -> Iterator[None]:
    """Let batch norms take the statistics of the pictures that pass now.

    With the initial ones a random ResNet-101's activations grow to 200,000, LSTM gates saturate, and all maps are zero.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train().momentum = 1.0
    try:
        yield
    finally:
        for norm in norms:
            norm.eval().momentum = 0.1


def _batch(images: Tensor, **inputs: Tensor) -> Batch:
    b, _, height, width = images.shape
    return Batch(images, tuple(str(i) for i in range(b)), ((height, width),) * b, inputs=inputs)


def _targets(ids: Int[Tensor, "b t"]) -> Targets:
    rows = ids.tolist()
    return Targets.of(rows, [[str(number) for number in row] for row in rows])
