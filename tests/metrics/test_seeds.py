import pytest
import torch
from torchmetrics.functional.classification import multiclass_jaccard_index

from mmcam.metrics.seeds import SeedIoU, mean_iou, seed_counts, seed_labels
from mmcam.truth import Things
from tests.metrics import naive
from tests.metrics.cases import boxed, ignored_places, make_case, odd_maps, odd_masks


def pictures(n=4):
    """Labels, truth and ignored places of n pictures of classes 0..5, of which class 5 never occurs."""
    labels, truth = torch.randint(0, 4, (n, 9, 13)), torch.randint(0, 5, (n, 9, 13))
    return labels, truth, [ignored_places() if i % 2 else None for i in range(n)]


def test_labels_are_the_naive_loops():
    for start in range(0, 40, 4):
        maps, classes = odd_maps()[start : start + 4], [2, 1, 2, 3]
        ours = seed_labels(maps, torch.tensor(classes), 0.25)
        assert ours.tolist() == naive.seeds(maps.tolist(), classes, 0.25)


def test_labels_by_hand():
    maps = torch.tensor([[[4.0, 2.0, 0.9], [0, 4, 0]], [[0.1, 0.06, 0.1], [0.01, 0.1, 0]], [[0.0] * 3] * 2])
    # At (0, 1) 0.5 < 0.6; at (1, 1) both are 1 and the first wins; 0.225 < 1 at (0, 2); 0.1 is background
    assert seed_labels(maps, torch.tensor([7, 3, 5])).tolist() == [[7, 3, 3], [0, 7, 0]]
    assert seed_labels(maps[:0], torch.tensor([], dtype=torch.long)).tolist() == [[0, 0, 0]] * 2


def test_mean_iou_is_the_naive_loops_and_torchmetrics():
    labels, truth, ignored = pictures()
    counts = sum(seed_counts(*case[:2], 6, case[2]) for case in zip(labels, truth, ignored, strict=True))
    blocked = [None if places is None else places.tolist() for places in ignored]
    value = mean_iou(counts.double()).item()
    assert value == pytest.approx(naive.mean_iou(list(zip(labels.tolist(), truth.tolist(), blocked, strict=True)), 6))
    marked = torch.stack([t if i is None else t.masked_fill(i, 255) for t, i in zip(truth, ignored, strict=True)])
    each = multiclass_jaccard_index(labels, marked, 6, average=None, ignore_index=255)
    assert value == pytest.approx(each[:5].mean().item())


def test_the_metric_sums_over_pictures_before_it_divides():
    masks = torch.zeros(2, 6, 10, dtype=torch.bool)
    masks[0, :, :5] = masks[1, :, 5:] = True
    metric, maps = SeedIoU(), masks.double()
    metric.update(make_case(maps, ((0,), (1,)), Things.of_masks(("cat", "dog"), masks), unit=0))  # all right
    only = Things.of_masks(("dog",), masks[:1])
    metric.update(make_case(maps[1:], ((0,),), only, unit=1))  # a dog, and its map on the other half
    # cat 30 of 30; dog 30 of 30 + 60; background, in the second picture only, 0 of 60
    assert metric.compute().value == pytest.approx((1 + 30 / 90 + 0) / 3)
    assert metric.kept()[0].tolist() == [1, 0]
    assert metric.compute().n == 2


def test_two_halves_merge():
    masks = odd_masks()[13:19]
    whole, halves = SeedIoU(), (SeedIoU(), SeedIoU())
    for unit in range(3):
        things = Things.of_masks(("cat", "dog")[:: 1 - 2 * (unit % 2)], masks[2 * unit : 2 * unit + 2])
        case = make_case(torch.rand(2, 9, 13), ((0,), (1,)), things, unit=unit)
        whole.update(case)
        halves[unit % 2].update(case)
    halves[0].merge_state(halves[1])
    ours, theirs = halves[0].compute(), whole.compute()
    assert (ours.value, ours.n) == (pytest.approx(theirs.value), 3)


def test_words_of_absent_things_are_no_seeds_and_unmapped_things_are_missed():
    masks = torch.zeros(2, 6, 10, dtype=torch.bool)
    masks[0, :, :5] = masks[1, :, 5:8] = True
    metric = SeedIoU()
    metric.update(
        make_case(
            torch.stack([masks[0].double(), torch.ones(6, 10)]), ((0,), ()), Things.of_masks(("cat", "dog"), masks)
        )
    )
    # cat right; dog missed; background 12 of 12 + the dog's 18
    assert metric.compute().value == pytest.approx((1 + 0 + 12 / 30) / 3)


def test_ignored_pixels_and_things_known_by_boxes():
    masks = torch.zeros(1, 6, 10, dtype=torch.bool)
    masks[0, :, :5] = True
    ignored = torch.zeros(6, 10, dtype=torch.bool)
    ignored[:, 5:7] = True
    metric, map = SeedIoU(), torch.zeros(1, 6, 10)
    map[:, :, :7] = 1  # spills over the border
    metric.update(make_case(map, ((0,),), Things.of_masks(("cat",), masks, ignored)))
    metric.update(make_case(map, ((0,),), boxed((0, 0, 5, 6)), unit=1))
    figure = metric.compute()
    assert (figure.value, figure.n, figure.excluded) == (1, 1, 1)
    assert SeedIoU().kept()[0].shape == (0,)
