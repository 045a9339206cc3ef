"""Batches: whole, chosen from, moved."""

import pytest
import torch

from mmcam.batch import Batch
from tests.reference import pictures, ragged


def test_what_a_batch_leaves_out_is_the_whole_picture_and_no_question():
    batch = Batch(torch.zeros(2, 3, 4, 5), ("a", "b"), ((40, 50), (1, 2)))
    assert batch.texts == ("", "")
    assert batch.windows == ((0.0, 0.0, 40.0, 50.0), (0.0, 0.0, 1.0, 2.0))
    assert len(batch) == 2


def test_a_batch_has_one_of_everything_for_each_id():
    with pytest.raises(ValueError, match="2 ids"):
        Batch(torch.zeros(3, 3, 4, 5), ("a", "b"), ((4, 5), (4, 5)))


def test_take_chooses_by_number_in_that_order_also_twice():
    batch = pictures(3)
    batch.memo.update(
        deep=[{"x": torch.arange(6.0).view(3, 2)}], shared=torch.zeros(7), number=4, scalar=torch.tensor(1)
    )
    taken = batch.take(torch.tensor([2, 0, 2]))
    assert taken.ids == ("picture 2", "picture 0", "picture 2")
    assert taken.texts == ("question 2?", "question 0?", "question 2?")
    assert taken.sizes == ((22, 28), (20, 28), (22, 28))
    assert [window[2] for window in taken.windows] == [22.0, 20.0, 22.0]
    assert torch.equal(taken.images, batch.images[[2, 0, 2]])
    assert torch.equal(taken.inputs["question"], batch.inputs["question"][[2, 0, 2]])
    assert taken.memo["deep"][0]["x"].tolist() == [[4.0, 5.0], [0.0, 1.0], [4.0, 5.0]]
    assert taken.memo["shared"].shape == (7,)
    assert taken.memo["number"] == 4
    assert taken.memo["scalar"] == 1


def test_taking_twice_is_taking_once():
    batch, first, second = pictures(4), torch.tensor([3, 1, 0]), torch.tensor([2, 2, 1])
    once, twice = batch.take(first[second]), batch.take(first).take(second)
    assert once.ids == twice.ids
    assert torch.equal(once.images, twice.images)


def test_a_moved_batch_has_a_memo_of_its_own():
    batch = pictures(2)
    batch.to("cpu").memo["left by the trunk"] = torch.zeros(2)
    assert batch.memo == {}


def test_moving_makes_tensors_of_inference_mode_fit_for_autograd():
    with torch.inference_mode():
        batch = pictures(2)
        batch.memo["x"] = [torch.ones(2)]
        targets = ragged((2, 1)).rather_than(torch.ones(2, 2, dtype=torch.long))
    assert batch.images.is_inference()
    batch, targets = batch.to("cpu"), targets.to("cpu")
    tensors = [batch.images, *batch.inputs.values(), *batch.memo["x"]]
    tensors += [targets.ids, targets.mask, targets.rows, targets.foils]
    assert not any(tensor.is_inference() for tensor in tensors)


def test_batches_and_targets_can_be_compared_and_hashed():
    # By identity: comparing tensors would raise.
    batch, targets = pictures(2), ragged((2, 1))
    assert batch == batch
    assert batch != pictures(2)
    assert targets == targets
    assert targets != ragged((2, 1))
    assert len({batch, targets}) == 2


@pytest.mark.gpu
def test_a_batch_that_comes_back_has_arrived():
    images = torch.randn(64, 3, 256, 256)
    batch = Batch(images, ("",) * 64, ((1, 1),) * 64)
    for _ in range(5):
        assert torch.equal(batch.to("cuda").to("cpu").images, images)
