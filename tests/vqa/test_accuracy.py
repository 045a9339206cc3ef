"""Against what the official code gave for the fixture, the formula written out, and answers by hand."""

import json
import math
import random
from pathlib import Path

import pytest
import torch

from mmcam.errors import UserError
from vqa.accuracy import CONTRACTIONS, ExactMatch, VQAAccuracy, exact_match, normalise, vqa_accuracy

DATA = Path(__file__).parents[1] / "data/annotations/vqa_v2"


def read(path):
    return json.loads((DATA / path).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def published():
    """Annotations, answers and the expected figures, by question."""
    annotations = read("Annotations/v2_mscoco_val2014_annotations.json")["annotations"]
    answers = read("Results/v2_OpenEnded_mscoco_val2014_sample_results.json")
    said = {row["question_id"]: row["answer"] for row in answers}
    return [(row, said[row["question_id"]]) for row in annotations], read("expected_accuracy.json")


def people(row):
    return [answer["answer"] for answer in row["answers"]]


def stream(rows, metric, batch=4):
    for start in range(0, len(rows), batch):
        some = rows[start : start + batch]
        metric.update(
            [said for _, said in some],
            [people(row) for row, _ in some],
            [row["image_id"] for row, _ in some],
            [row["answer_type"] for row, _ in some],
            [row["question_type"] for row, _ in some],
        )
    return metric


# --- against the official code --------------------------------------------------------------------------------------


def test_each_question_of_the_fixture(published):
    rows, expected = published
    ours = {str(row["question_id"]): round(100 * vqa_accuracy(said, people(row)), 2) for row, said in rows}
    assert ours == expected["perQuestion"]


def test_normalised_answers_of_the_fixture(published):
    rows, expected = published
    for row, _ in rows:
        if (key := str(row["question_id"])) in expected["normalizedGroundTruth"]:
            assert [normalise(answer.strip()) for answer in people(row)] == expected["normalizedGroundTruth"][key]


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_figures_of_the_fixture(published, batch):
    rows, expected = published
    metric = stream(rows, VQAAccuracy(), batch)
    percentages = metric.compute().percentages()
    assert percentages == {name: expected[name] for name in ("overall", "perAnswerType", "perQuestionType")}
    values, units = metric.kept()
    assert (100 * values).tolist() == pytest.approx([expected["perQuestion"][str(r["question_id"])] for r, _ in rows])
    assert units.tolist() == [row["image_id"] for row, _ in rows]


# --- the formula ----------------------------------------------------------------------------------------------------


def written_out(said, answers):
    each = []
    for k in range(len(answers)):
        others = [answer for i, answer in enumerate(answers) if i != k]
        each.append(min(1, sum(answer == said for answer in others) / 3))
    return sum(each) / len(each)


@pytest.mark.parametrize("n", range(11))
def test_of_ten_people(n):
    answers = ["cat"] * n + ["dog"] * (10 - n)
    assert vqa_accuracy("cat", answers) == pytest.approx(written_out("cat", answers), abs=1e-12)
    assert vqa_accuracy("cat", answers) == pytest.approx(min(1, 0.3 * n), abs=1e-12)


def test_any_number_of_people_in_any_order():
    chance = random.Random(0)
    for _ in range(300):
        answers = chance.choices(["cat", "dog", "cow", "hen"], k=chance.randint(4, 12))
        assert vqa_accuracy("cat", answers) == pytest.approx(written_out("cat", answers), abs=1e-12)


def test_where_all_agree_nothing_is_normalised():
    assert vqa_accuracy("two", ["2"] * 10) == 0
    assert vqa_accuracy("two", ["2"] * 9 + ["3"]) == 1
    assert vqa_accuracy("Yes", ["yes"] * 10) == 0
    assert vqa_accuracy(" yes\n", ["yes", "yes\t", *["yes"] * 8]) == 1  # white space at the ends goes all the same
    assert vqa_accuracy("", ["", *["cat"] * 9]) == pytest.approx(0.3)


# --- normalisation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("A Dog", "dog"),
        ("the man and an apple", "man and apple"),
        ("two", "2"),
        ("None", "0"),
        ("ten dogs, eleven cats", "10 dogs eleven cats"),
        ("1,000", "1000"),  # a comma in a number takes all marks away with it
        ("1,000/day", "1000day"),
        ("red/white", "red white"),  # between words a mark parts them
        ("red/white, blue", "red white blue"),  # the comma is at a space and goes; the slash is not
        ("red / white", "red white"),
        ("t-shirt", "t shirt"),
        ("yes!", "yes"),
        ("T.V.", "tv"),
        ("3.5", "3.5"),
        ("5.", "5"),
        ("p.m.", "pm"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("yall'd've", "y'all'd've"),
        ("ow's'at", "'ow's'at"),
        ("somebody'd", "somebodyd"),
        ("someoned", "someone'd"),
        ("Im sure", "im sure"),  # the official table has "Im", but looks lower case up
        ("well shell were its", "well shell were its"),  # words of their own
        ("man's", "man's"),
        ("a", ""),
        ("", ""),
        ("Café, 日本", "café 日本"),
        ("x." * 40, "x" * 32 + "x." * 7 + "x."),  # 32 periods at most
    ],
)
def test_normalised(answer, normal):
    assert normalise(answer) == normal


def test_the_table_of_contractions():
    assert len(CONTRACTIONS) == 114
    for short, long in CONTRACTIONS.items():
        assert short.replace("'", "") == long.replace("'", "")
        assert abs(long.count("'") - short.count("'")) == 1
        assert short == short.lower()
    assert not {"its", "well", "were", "shed", "id", "lets", "ill", "hell", "shell", "wed", "cats"} & set(CONTRACTIONS)


# --- one answer -----------------------------------------------------------------------------------------------------


def test_exact_match():
    assert exact_match("Cat", "cat ") == 1
    assert exact_match("hot  dog", "hot dog") == 1
    assert exact_match("two", "2") == 0
    assert exact_match("", "") == 1


def test_exact_match_streams():
    metric = ExactMatch()
    metric.update(["cat", "2"], ["cat", "3"], [0, 0], ["object", "count"])
    metric.update(["no", "red"], ["no", "red"], [1, 2], ["yes/no", ""])
    accuracy = metric.compute()
    assert accuracy.overall.value == 0.75
    assert {name: figure.value for name, figure in accuracy.answer_types.items()} == {
        "object": 1,
        "count": 0,
        "yes/no": 1,
    }
    assert accuracy.question_types == {}
    assert accuracy.overall.n == 4


# --- streaming ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [0, 5])
def test_two_processes(published, cut):
    """What another process holds arrives by the gathering; this one or the other may hold less, or nothing."""
    rows, _ = published
    other = stream(rows[cut:], VQAAccuracy())
    theirs = [torch.cat(other.values), torch.cat(other.units), torch.cat(other.types)]
    calls = iter(theirs * 2)

    def gather(tensor, group=None):
        its = next(calls)
        assert tensor.dtype == its.dtype
        return [tensor, its]

    mine = stream(rows[:cut], VQAAccuracy(dist_sync_fn=gather, distributed_available_fn=lambda: True))
    mine.update([], [], [])
    whole = stream(rows, VQAAccuracy())
    assert mine.compute() == whole.compute()
    torch.testing.assert_close(mine.kept(), whole.kept(), rtol=0, atol=0)


def test_forward_and_reset(published):
    rows, _ = published
    metric = VQAAccuracy()
    row, said = rows[0]
    assert metric([said], [people(row)], [7]).overall.n == 1
    assert metric([said], [people(row)], [8]).overall.n == 1
    assert metric.compute().overall.n == 2
    metric.reset()
    assert stream(rows, metric).compute() == stream(rows, VQAAccuracy()).compute()


# --- mistakes -------------------------------------------------------------------------------------------------------


def test_mistakes_are_named():
    with pytest.raises(UserError, match="4 people's answers at least, ten in VQA; got 1; for one answer: exact_match"):
        vqa_accuracy("cat", ["cat"])
    with pytest.raises(UserError, match="got 0"):
        vqa_accuracy("cat", [])
    with pytest.raises(UserError, match="the text 'cat'"):
        vqa_accuracy("cat", "cat")
    with pytest.raises(UserError, match="got 2, 1, 2, 2, 2 of them"):
        ExactMatch().update(["cat", "dog"], ["cat"], [0, 1])
    with pytest.raises(UserError, match="got 1, 1, 1, 2, 1 of them"):
        ExactMatch().update(["cat"], ["cat"], [0], ["other", "number"])


def test_of_no_question_there_is_no_figure():
    metric = VQAAccuracy()
    metric.update([], [], [])
    accuracy = metric.compute()
    assert math.isnan(accuracy.overall.value)
    assert (accuracy.overall.n, accuracy.answer_types, accuracy.question_types) == (0, {}, {})
