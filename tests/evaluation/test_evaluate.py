from dataclasses import replace

import pytest
import torch
from PIL import Image

from mmcam import Explanation
from mmcam.errors import UserError
from mmcam.evaluation.baselines import baselines
from mmcam.evaluation.evaluate import Evaluation
from mmcam.metrics.base import Case, PerMap
from mmcam.task import Sample
from mmcam.truth import Things, Truth

SIZE = (20, 30)  # height and width


class Peak(PerMap):
    """1 where the peak is on the mask; NaN for an empty mask."""

    higher_is_better = True

    def measure(self, case: Case):
        on = case.masks.flatten(1).gather(1, case.maps.flatten(1).argmax(1)[:, None])[:, 0].float()
        return torch.where(case.masks.flatten(1).any(1), on, torch.nan)


class Room(Truth):
    """A dog on the left, a cat on the right; of odd pictures nothing is known but that."""

    ids = ("p0", "p1", "p2")

    def sample(self, number):
        return Sample(Image.new("RGB", SIZE[::-1]), self.ids[number])

    def things(self, number):
        return Things.of_boxes(["dog", "cat"], torch.tensor([[0.0, 0, 10, 20], [20.0, 0, 30, 20]]), SIZE)

    def about(self, number, words):
        known = {"dog": (0,), "cat": (1,), "bird": ()}
        return [known.get(word) for word in words]

    def judge(self, said):
        return {"exact_match": torch.tensor([float("dog" in words) for words in said.values()])}


def explanation(words, columns, identity="p0"):
    """A map a word, one cell of 2 x 3 lit: in the left, middle or right column."""
    signed = torch.zeros(len(words), 2, 3)
    for row, column in enumerate(columns):
        signed[row, 0, column] = 1
    return Explanation(
        identity, "", tuple(words), torch.zeros(len(words)), signed, SIZE, (0.0, 0.0, 20.0, 30.0), "grad_cam", "l"
    )


def judge(*explanations, **options):
    evaluation = Evaluation({"peak": Peak()}, Room(), **options)
    for number, each in enumerate(explanations):
        evaluation.add(number, {"grad_cam": each})
    return evaluation


def test_words_are_held_against_what_they_mean():
    figure = judge(explanation(["a", "dog", "cat"], [2, 0, 0]), explanation(["dog"], [0])).figures()["grad_cam"]["peak"]
    assert (figure.value, figure.n, figure.excluded) == (pytest.approx(2 / 3), 3, 0)


def test_words_for_what_is_not_there_are_counted_and_left_out():
    evaluation = judge(explanation(["dog", "bird"], [0, 0]))
    figure = evaluation.figures()["grad_cam"]["peak"]
    assert (figure.value, figure.n, figure.excluded) == (1, 1, 1)
    assert evaluation.said()["absent_things"].value == 0.5


def test_baselines_stand_beside_the_method():
    rows = judge(explanation(["dog", "cat"], [0, 2])).figures()
    assert list(rows) == ["grad_cam", "centre", "random", "uniform", "flipped"]
    assert rows["centre"]["peak"].value == 0  # the middle belongs to neither
    assert "flipped" not in judge(explanation(["dog"], [0]), signed=False).rows


def test_centre_points_at_the_centre_also_of_an_even_grid():
    rows = baselines(explanation(["dog"], [0]), torch.Generator())
    assert rows["centre"].peaks() == [(10, 15)] or rows["centre"].peaks() == [(9, 14)]
    assert rows["centre"].signed.shape[1:] == (3, 3)
    assert rows["uniform"].signed.unique().tolist() == [1]


def test_the_random_row_is_seeded():
    assert (
        judge(explanation(["dog"], [0]), seed=1)
        .rows["random"]["peak"]
        .kept()[0]
        .equal(judge(explanation(["dog"], [0]), seed=1).rows["random"]["peak"].kept()[0])
    )


def test_pictures_without_a_thing_named_are_skipped():
    evaluation = judge(explanation(["a"], [0]), explanation(["dog"], [0]))
    assert evaluation.skipped == 1
    assert evaluation.figures()["grad_cam"]["peak"].n == 1


def test_right_answers_only():
    evaluation = judge(explanation(["cat"], [2]), explanation(["dog"], [0]), right_only=True)
    assert evaluation.figures()["grad_cam"]["peak"].n == 1
    assert evaluation.said()["exact_match"].value == 0.5


def test_right_answers_need_a_truth_that_knows_them():
    class Silent(Room):
        def judge(self, said):
            return {}

    with pytest.raises(UserError, match="right-only"):
        Evaluation({"peak": Peak()}, Silent(), right_only=True).add(0, {"grad_cam": explanation(["dog"], [0])})


def test_things_of_another_picture_are_refused():
    other = replace(explanation(["dog"], [0]), size=(30, 20), window=(0.0, 0.0, 30.0, 20.0))
    with pytest.raises(UserError, match="different pictures"):
        judge(other)
