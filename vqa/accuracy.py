"""How right an answer is: by what ten people said (VQA v1 and v2), or by the one answer that a data set has.

The accuracy of Antol et al. (arXiv 1505.00468) as their code computes it (GT-Vision-Lab/VQA, commit a013f004), with
what is peculiar to it: an answer is right if three people gave it, but each person in turn is left out; and answers are
normalised only where the ten differ, so that "two" is wrong where all ten said "2".
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from mmcam.errors import UserError
from mmcam.metrics.base import Figure, summarise

MARKS = ';/[]"{}()=+\\_-><@`,?!'
_COUNTED = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {word: str(n) for n, word in enumerate(_COUNTED)}
NUMBERS["none"] = "0"
ARTICLES = frozenset(["a", "an", "the"])
# Each is also recognised with any one of its apostrophes left out. "I'm" and the like are none of them: the official
# table has them with a capital, but words are lower case when they are looked up.
CONTRACTED = """
    ain't aren't can't couldn't couldn't've could've didn't doesn't don't hadn't hadn't've hasn't haven't isn't mightn't
    mightn't've might've mustn't must've needn't not've oughtn't shan't shouldn't shouldn't've should've wasn't weren't
    won't wouldn't wouldn't've would've
    he'd he'd've he's she'd've it'd it'd've it'll they'd they'd've they'll they're they've we'd've we've
    you'd you'd've you'll you're you've y'all y'all'd've y'all'll
    somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's
    something'd something'd've something'll that's there'd there'd've there're there's
    how'd how'll how's what'll what're what's what've when's where'd where's where've
    who'd who'd've who'll who's who've why'll why're why's
    ma'am o'clock 'ow's'at 'twas
"""
CONTRACTIONS = {
    word[:i] + word[i + 1 :]: word for word in CONTRACTED.split() for i, letter in enumerate(word) if letter == "'"
} | {"somebody'd": "somebodyd"}  # the other way round, officially

LEAST = 4  # people; of fewer, three others can never agree with an answer
# Between types of questions and questions; both are white space to Python, so they are in no type's name.
QUESTION, TYPE = "\x1e", "\x1f"


def normalise(answer: str) -> str:
    """Bring an answer to the form in which answers are compared.

    Args:
        answer: As a person or a model gave it.

    Returns:
        Lower case, with digits for the numbers up to ten, without punctuation and articles.
    """
    number = re.search(r"\d,\d", answer)
    gone = {
        ord(mark): "" if number or f"{mark} " in answer or f" {mark}" in answer else " " for mark in MARKS
    }  # a mark between two words parts them
    # At most 32 periods: the official code gives a flag where the number of replacements belongs.
    text = re.sub(r"\.(?!\d)", "", answer.translate(gone), count=32)
    words = [NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def vqa_accuracy(said: str, answers: Sequence[str]) -> float:
    """Compute the accuracy of one answer by what people said.

    Args:
        said: The model's answer.
        answers: Those of the people, ten in VQA v1 and v2.

    Returns:
        The mean over the people, each in turn left out, of min(1, the others who gave this answer / 3). Of ten people
        this is 0, 0.3, 0.6, 0.9 for 0 to 3 of them, and 1 from 4 on.

    Raises:
        UserError: There are fewer than four people.
    """
    if isinstance(answers, str):
        raise UserError(f"expected a list of people's answers, got the text {answers!r}; for one answer: exact_match")
    if len(answers) < LEAST:
        raise UserError(
            f"expected {LEAST} people's answers at least, ten in VQA; got {len(answers)}; for one answer: exact_match"
        )
    said, answers = _stripped(said), [_stripped(answer) for answer in answers]
    if len(set(answers)) > 1:
        said, answers = normalise(said), [normalise(answer) for answer in answers]
    same, people = answers.count(said), len(answers)
    return (same * min(1, (same - 1) / 3) + (people - same) * min(1, same / 3)) / people


def exact_match(said: str, answer: str) -> float:
    """Compute the accuracy of one answer where there is one true one (GQA, CLEVR, scenes).

    Args:
        said: The model's answer.
        answer: The true one.

    Returns:
        1 if they are equal but for capitals and white space, 0 if not.
    """
    return float(said.lower().split() == answer.lower().split())


def _stripped(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()


@dataclass  # not frozen: torchmetrics goes through what `compute` returns, and refuses frozen ones
class Accuracy:
    """The accuracies of some answers, from 0 to 1.

    Attributes:
        overall: Over all questions.
        answer_types: Over those of each type of answer ("yes/no", "number", "other").
        question_types: Over those of each type of question ("how many").
    """

    overall: Figure
    answer_types: dict[str, Figure]
    question_types: dict[str, Figure]

    def percentages(self) -> dict[str, Any]:
        """As the official code reports them: in percent, with two digits, under the official names."""

        def percent(figure: Figure) -> float:
            return round(100 * figure.value, 2)

        return {
            "overall": percent(self.overall),
            "perAnswerType": {name: percent(figure) for name, figure in self.answer_types.items()},
            "perQuestionType": {name: percent(figure) for name, figure in self.question_types.items()},
        }


class PerAnswer(Metric):
    """A metric that gives every answer a value; keeps them, and the questions' types, over batches and processes."""

    full_state_update = False
    judge: Callable[[str, Any], float]
    values: list[Tensor]
    units: list[Tensor]
    types: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        for name in ("values", "units", "types"):
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self._keep([], [], "")

    def update(
        self,
        said: Sequence[str],
        truth: Sequence[Sequence[str]],
        units: Sequence[int],
        answer_types: Sequence[str] | None = None,
        question_types: Sequence[str] | None = None,
    ) -> None:
        """Judge some answers.

        Args:
            said: The model's answers.
            truth: Of each question, what `judge` takes: people's answers, or the answer.
            units: The number of each question's picture. Questions about one picture are no independent samples.
            answer_types: Of each question; none if not given, and "" is none.
            question_types: Of each question; none if not given, and "" is none.

        Raises:
            UserError: The numbers of answers differ, or one cannot be judged.
        """
        none = [""] * len(said)
        columns = (said, truth, units, answer_types or none, question_types or none)
        if len({len(column) for column in columns}) > 1:
            raise UserError(
                "expected the truth, the picture's number and, if any, the types of every answer; got "
                f"{', '.join(str(len(column)) for column in columns)} of them"
            )
        judge = type(self).judge
        values = [judge(answer, right) for answer, right in zip(said, truth, strict=True)]
        types = "".join(f"{a}{TYPE}{q}{QUESTION}" for a, q in zip(columns[3], columns[4], strict=True))
        self._keep(values, units, types)

    def compute(self) -> Accuracy:
        """The accuracies over all that was judged."""
        values, units, types = self._kept()
        pairs = [pair.split(TYPE) for pair in types.split(QUESTION)[:-1]]

        def by(column: int) -> dict[str, Figure]:
            names = [pair[column] for pair in pairs]
            return {name: of(torch.tensor([its == name for its in names])) for name in sorted(set(names) - {""})}

        def of(which: Bool[Tensor, " n"]) -> Figure:
            return summarise(values[which], units[which])

        return Accuracy(summarise(values, units), by(0), by(1))

    def kept(self) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
        """All values, of all processes, and the picture of each; for comparing two runs pair by pair."""
        with self.sync_context(self.dist_sync_fn, distributed_available=self.distributed_available_fn):
            values, units, _ = self._kept()
        return values, units

    def reset(self) -> None:
        """Forget all answers."""
        super().reset()
        self._keep([], [], "")

    def _keep(self, values: Sequence[float], units: Sequence[int], types: str) -> None:
        # Also of no answer: a process that never gets one must send the same kind of tensor as the others.
        self.values.append(torch.tensor(values, dtype=torch.float64, device=self.device))
        self.units.append(torch.tensor(units, dtype=torch.long, device=self.device))
        self.types.append(torch.tensor(list(types.encode()), dtype=torch.uint8, device=self.device))

    def _kept(self) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"], str]:
        values, units, types = (dim_zero_cat(state).cpu() for state in (self.values, self.units, self.types))
        return values, units, bytes(types.numpy()).decode()


class VQAAccuracy(PerAnswer):
    """Accuracy by what ten people said."""

    judge = staticmethod(vqa_accuracy)


class ExactMatch(PerAnswer):
    """Accuracy where there is one true answer."""

    judge = staticmethod(exact_match)
