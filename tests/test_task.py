from dataclasses import replace

import pytest
import torch
from PIL import Image

from mmcam.errors import UserError
from mmcam.task import Sample, Targets, Task
from tests.reference import Classifier, pictures, ragged, unchecked


class Stateless(Task):
    def collate(self, samples): ...
    def trunk(self, batch): ...
    def predict(self, activations, batch): ...
    def scores(self, activations, batch, targets): ...


# Targets


def test_targets_have_one_row_an_id():
    targets = Targets.of([[5, 6], [7]], [["a", "b"], ["c"]])
    assert targets.ids.tolist() == [[5, 6], [7, 0]]
    assert targets.mask.tolist() == [[True, True], [True, False]]
    assert targets.rows.tolist() == [[[1, 0], [0, 1]], [[1, 0], [0, 0]]]
    assert targets.words == (("a", "b"), ("c",))
    assert len(targets) == 2


@pytest.mark.parametrize(("ids", "shape"), [([[], []], (2, 0)), ([], (0, 0)), ([[], [3]], (2, 1))])
def test_targets_may_be_empty(ids, shape):
    targets = Targets.of(ids, [["x"] * len(row) for row in ids])
    assert targets.ids.shape == targets.mask.shape == shape
    assert targets.mask.dtype == torch.bool
    assert targets.ids.dtype == torch.long
    assert targets.rows.shape == (*shape, shape[1])
    assert targets.sentence().rows.shape[:1] == shape[:1]
    assert len(targets.take(torch.arange(len(ids)))) == len(ids)


def test_of_wants_one_word_an_id():
    with pytest.raises(UserError, match=r"\[2, 1\] ids and \[1, 1\] words"):
        Targets.of([[1, 2], [3]], [["a"], ["c"]])


@pytest.mark.parametrize(
    "change",
    [
        {"mask": torch.ones(2, 4, dtype=torch.bool)},
        {"rows": torch.zeros(2, 3, 4)},
        {"rows": torch.zeros(3, 3, 3)},
        {"rows": torch.zeros(2, 2, 3)},
        {"words": (("a",),)},
        {"words": (("a",), ("b", "c", "d", "e"))},
        {"foils": torch.zeros(2, 2, dtype=torch.long)},
        {"ids": torch.zeros(1, 3, dtype=torch.long)},
    ],
)
def test_targets_that_do_not_fit_together_are_refused(change):
    with unchecked(), pytest.raises(UserError, match="expected targets"):
        replace(ragged((3, 2)), **change)


def test_negative_turns_the_rows_round():
    targets = ragged((2, 1))
    assert torch.equal(targets.negative().rows, -targets.rows)
    assert torch.equal(targets.negative().negative().rows, targets.rows)
    assert targets.negative().words == targets.words


def test_foils_are_as_many_as_the_ids():
    with pytest.raises(UserError, match=r"\(2, 2\).*\(2, 1\)"):
        ragged((2, 1)).rather_than(torch.zeros(2, 1, dtype=torch.long))


def test_merging_by_hand():
    targets = Targets.of([[5, 6, 7], [8, 9]], [["a", "fire", "truck"], ["two", "dogs"]])
    merged = targets.merged([[(0, 1), (1, 3)], [(0, 2)]], separator="")
    assert merged.words == (("a", "firetruck"), ("twodogs",))
    assert merged.rows.tolist() == [[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 0]]]
    assert targets.merged([[(1, 3)], []]).words == (("fire truck",), ())
    assert torch.equal(merged.ids, targets.ids)


def test_a_sentence_is_the_sum_of_its_words():
    targets = ragged((3, 0, 2))
    sentence = targets.sentence()
    assert torch.equal(sentence.rows, targets.rows.sum(1, keepdim=True))
    assert [len(words) for words in sentence.words] == [1, 0, 1]
    assert torch.equal(targets.merged([[(0, 2), (2, 3)], [], [(0, 1), (1, 2)]]).sentence().rows, sentence.rows)


@pytest.mark.parametrize("span", [(1, 1), (0, 3), (-1, 1), (2, 1)])
def test_spans_lie_within_the_words(span):
    with pytest.raises(UserError, match="outside the 2 words of sample 1"):
        ragged((3, 2)).merged([[(0, 3)], [span]])


def test_spans_are_given_for_every_sample():
    with pytest.raises(UserError, match="spans for 2 samples, got them for 1"):
        ragged((3, 2)).merged([[(0, 1)]])


def test_only_keeps_rows_in_the_order_asked():
    targets = ragged((3, 2))
    kept = targets.only([[2, 0], []])
    assert kept.words == ((targets.words[0][2], targets.words[0][0]), ())
    assert torch.equal(kept.rows, torch.stack([targets.rows[0, [2, 0]], torch.zeros(2, 3)]))
    with pytest.raises(UserError, match="2 words of sample 1"):
        targets.only([[0], [2]])


def test_take_takes_targets_and_foils():
    targets = ragged((3, 1, 2)).rather_than(torch.arange(9).view(3, 3))
    taken = targets.take(torch.tensor([2, 2, 0]))
    assert taken.words == (targets.words[2], targets.words[2], targets.words[0])
    for name in ("ids", "mask", "rows", "foils"):
        assert torch.equal(getattr(taken, name), getattr(targets, name)[[2, 2, 0]])


def test_picking_by_hand():
    shared = torch.tensor([[10.0, 11.0, 12.0], [20.0, 21.0, 22.0]])
    targets = Targets.of([[2, 0], [1]], [["a", "b"], ["c"]])
    assert targets.pick(shared).tolist() == [[12.0, 10.0], [21.0, 20.0]]
    foils = torch.tensor([[0, 1], [2, 0]])
    assert targets.rather_than(foils).pick(shared).tolist() == [[2.0, -1.0], [-1.0, 0.0]]
    own = torch.stack([shared, 100 + shared], 1)  # (b, t, v)
    assert targets.pick(own).tolist() == [[12.0, 110.0], [21.0, 120.0]]
    assert targets.rather_than(foils).pick(own).tolist() == [[2.0, -1.0], [-1.0, 0.0]]


def test_picking_takes_ids_of_any_integer_type():
    targets = ragged((2, 1))
    table = torch.randn(2, 11)
    assert torch.equal(replace(targets, ids=targets.ids.int()).pick(table), targets.pick(table))


# Task


def test_a_task_without_given_explains_its_predictions_only():
    with pytest.raises(UserError, match="Classifier explains its own predictions only"):
        Classifier().given(["a dog"], pictures(1))


def test_a_task_is_where_its_parameters_or_buffers_are():
    assert Classifier().device == torch.device("cpu")
    assert Stateless().device == torch.device("cpu")
    task = Stateless()
    task.register_buffer("mean", torch.zeros(3, device="meta"))
    assert task.device == torch.device("meta")


def test_the_four_methods_make_a_task():
    with pytest.raises(TypeError, match="abstract"):
        Task()
    image = Image.new("RGB", (14, 10), (255, 0, 0))
    batch = Classifier().collate([Sample(image, "red", "what colour?")])
    assert batch.images[0, :, 0, 0].tolist() == [1.0, 0.0, 0.0]
    assert (batch.ids, batch.sizes, batch.texts) == (("red",), ((10, 14),), ("what colour?",))


def test_row_ids():
    targets = Targets.of([[5, 7], [3]], [["a", "b"], ["c"]])
    assert targets.row_ids() == [[5, 7], [3]]
    assert targets.merged([[(0, 2), (1, 2)], []]).row_ids() == [[-1, 7], []]
    assert targets.negative().row_ids() == [[5, 7], [3]]
    assert Targets.of([[], []], [[], []]).row_ids() == [[], []]
