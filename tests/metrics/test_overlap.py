import numpy as np
import pytest
import torch
from skimage.measure import label
from torchmetrics.functional.classification import binary_jaccard_index

from mmcam.metrics.overlap import THRESHOLDS, BestIoU, IoU, iou_at
from tests.metrics import naive
from tests.metrics.cases import boxed, ignored_places, make_case, odd_maps, odd_masks, same


@pytest.mark.parametrize("ignored", [None, ignored_places()])
def test_the_naive_loop(ignored):
    maps, masks, blocked = odd_maps(), odd_masks(), None if ignored is None else ignored.tolist()
    thresholds = (0.05, 0.25, 0.5, 0.75, 1.0)
    loop = [
        [naive.iou(map, mask, t, blocked) for t in thresholds]
        for map, mask in zip(maps.tolist(), masks.tolist(), strict=True)
    ]
    assert same(iou_at(maps, masks, thresholds, ignored), loop)


def test_by_hand():
    map = torch.tensor([[[2.0, 1, 0, 0], [1, 0, 0, 0.5]]])
    mask = torch.tensor([[[True, True, True, False], [False, False, False, False]]])
    # 4, 3 and 1 of the pixels are in; 2, 2 and 1 of them in the mask of 3
    assert same(iou_at(map, mask, [0.25, 0.5, 1.0]), [[2 / 5, 2 / 4, 1 / 3]], 1e-6)


def test_edges():
    maps = torch.stack([torch.zeros(3, 5), torch.full((3, 5), 0.3), torch.rand(3, 5)])
    masks = torch.zeros(3, 3, 5, dtype=torch.bool)
    masks[:2, 1, :3] = True
    values = iou_at(maps, masks, THRESHOLDS)
    assert values[0].tolist() == [0] * 19
    assert values[1].tolist() == pytest.approx([3 / 15] * 19)
    assert values[2].isnan().all()
    assert iou_at(maps[:0], masks[:0], [0.5]).shape == (0, 1)


def test_maps_that_are_transposed_in_memory():
    maps, masks = torch.rand(3, 13, 9).mT, odd_masks()[7:10]
    assert torch.equal(iou_at(maps, masks, THRESHOLDS), iou_at(maps.contiguous(), masks, THRESHOLDS))


def test_torchmetrics_agrees():
    maps, masks = torch.rand(4, 9, 13), odd_masks()[13:17]
    for map, mask, own in zip(maps, masks, iou_at(maps, masks, [0.4]), strict=True):
        assert own.item() == pytest.approx(binary_jaccard_index((map >= 0.4 * map.max()).float(), mask.long()).item())


def test_parts_are_labelled_the_same_by_skimage():
    from mmcam.metrics.boxes import largest_boxes

    for map in torch.rand(20, 9, 13):
        parts = label((map >= 0.7 * map.max()).numpy(), connectivity=2)
        rows, columns = np.nonzero(parts == np.bincount(parts.ravel())[1:].argmax() + 1)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert largest_boxes(map[None], 0.7)[0].tolist() == box


def test_the_best_threshold_is_one_for_all_maps():
    things = boxed((0, 0, 2, 6), (0, 0, 5, 6))
    steps = torch.linspace(1, 0.1, 10, dtype=torch.float64).expand(1, 6, 10)  # columns of 1, 0.9 ... 0.1
    case = make_case(torch.cat([steps, steps]), ((0,), (1,)), things)
    metric, fixed = BestIoU(), IoU(0.55)
    metric.update(case)
    fixed.update(case)
    assert fixed.compute().value == pytest.approx((2 / 5 + 1) / 2)
    # Columns 1..k are in: (2/k + k/5) / 2 for k of 2 to 5 is 0.7, 0.633, 0.65, 0.7; of 1, less.
    assert metric.compute().value == pytest.approx(0.7)
    assert metric.kept()[0].tolist() in ([1, 0.4], pytest.approx([0.4, 1]))
    assert BestIoU().kept()[0].shape == (0,)
