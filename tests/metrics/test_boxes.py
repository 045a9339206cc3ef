import pytest
import torch
from torchvision.ops import box_iou as torchvision_iou

from mmcam.metrics.boxes import (
    BoxIoU,
    LocalisationError,
    Localised,
    best_iou,
    box_iou,
    largest_boxes,
    localisation_error,
)
from tests.metrics import naive
from tests.metrics.cases import NAN, boxed, bump, ignored_places, make_case, odd_maps, same


def boxes(*rows):
    return torch.tensor(rows, dtype=torch.float32).view(-1, 4)


def test_the_naive_flood_fill():
    for ignored in (None, ignored_places()):
        blocked = None if ignored is None else ignored.tolist()
        for threshold in (0.15, 0.6, 0.9):
            loop = [naive.box(map, threshold, blocked) for map in odd_maps().tolist()]
            assert largest_boxes(odd_maps(), threshold, ignored).tolist() == [list(map(float, box)) for box in loop]


def test_by_hand_in_a_wide_picture():
    map = torch.zeros(1, 4, 9)
    map[0, 0, 0:2], map[0, 1:4, 5], map[0, 3, 6] = 1.0, 0.15, 0.2  # two pixels; four of which one is at the threshold
    map[0, 0, 5] = 0.149
    assert largest_boxes(map).tolist() == [[5, 1, 7, 4]]
    assert largest_boxes(map, 0.5).tolist() == [[0, 0, 2, 1]]


def test_corners_connect():
    map = torch.zeros(1, 4, 9)
    map[0, 0, 0] = map[0, 1, 1] = map[0, 2, 0] = map[0, 0, 6] = map[0, 0, 7] = 1
    assert largest_boxes(map).tolist() == [[0, 0, 2, 3]]


def test_of_equal_parts_the_first_in_reading_order():
    map = torch.zeros(2, 4, 9)
    map[0, 0, 7:9] = map[0, 2, 0:2] = 1
    map[1, 1:3, 8] = map[1, 1:3, 0] = 1
    assert largest_boxes(map).tolist() == [[7, 0, 9, 1], [0, 1, 1, 3]]


def test_constant_and_zero_maps():
    maps = torch.stack([torch.full((3, 7), 0.2), torch.zeros(3, 7), torch.full((3, 7), torch.nan)])
    assert largest_boxes(maps).tolist() == [[0, 0, 7, 3], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert largest_boxes(maps, 0.0).tolist()[1] == [0, 0, 0, 0]
    assert largest_boxes(maps[:0]).shape == (0, 4)


def test_iou_is_torchvisions_and_counts_squares():
    corners = torch.randint(0, 8, (30, 2))
    some = torch.cat([corners, corners + torch.randint(0, 5, (30, 2))], 1)
    solid = some[(some[:, 2:] > some[:, :2]).all(1)].double()
    assert torch.allclose(box_iou(solid, solid), torchvision_iou(solid, solid))
    loop = [[naive.box_iou(one, two) for two in some.tolist()] for one in some.tolist()]
    assert same(box_iou(some.double(), some.double()), loop)


def test_iou_by_hand_is_half_open():
    assert box_iou(boxes((0, 0, 2, 2)), boxes((0, 0, 2, 4), (2, 0, 4, 2), (1, 1, 3, 3))).tolist() == [
        [0.5, 0, pytest.approx(1 / 7)]
    ]


def test_empty_boxes_overlap_nothing_and_an_empty_truth_is_undefined():
    drawn = boxes((0, 0, 0, 0), (0, 0, 2, 2), (0, 0, 2, 2))
    truth = [boxes((0, 0, 2, 2)), boxes((0, 0, 0, 0), (3, 1, 3, 5)), boxes()]
    assert same(best_iou(drawn, truth), [0, NAN, NAN])
    assert box_iou(drawn[:1], drawn[:1]).item() == 0


def test_localisation_error_by_hand():
    predicted = torch.tensor([3, 8, 5, 8])
    drawn = boxes((0, 0, 2, 2), (5, 5, 7, 7), (0, 0, 2, 2), (0, 0, 2, 4))
    true, truth = torch.tensor([8, 8]), boxes((0, 0, 2, 2), (20, 20, 30, 30))
    # another class at the right place; the class elsewhere; another class; the class with an IoU of exactly one half
    assert localisation_error(predicted, drawn, true, truth).tolist() == [1, 1, 1, 0]
    assert localisation_error(predicted, drawn, true, truth, enough=0.51).tolist() == [1, 1, 1, 1]
    assert localisation_error(predicted.flip(0), drawn.flip(0), true, truth).tolist() == [0, 0, 0, 0]
    assert localisation_error(predicted, drawn, true[:0], truth[:0]).isnan().all()
    assert localisation_error(predicted, drawn, true[:1], boxes((1, 1, 1, 5))).isnan().all()


def test_the_metrics():
    things = boxed((0, 0, 4, 2), (0, 0, 4, 4), (8, 0, 10, 6))
    block = torch.zeros(1, 6, 10)
    block[:, :2, :4] = 1
    maps = torch.cat([block, block, block, torch.zeros(1, 6, 10), torch.ones(1, 6, 10)])
    case = make_case(maps, ((0,), (1, 2), (2,), (0,), ()), things)
    for kind, values in ((BoxIoU, [1, 0.5, 0, 0, NAN]), (Localised, [1, 1, 0, 0, NAN])):
        metric = kind()
        metric.update(case)
        assert same(metric.kept()[0], values)


def test_the_error_of_pictures():
    things = boxed((0, 0, 4, 2))
    right, wrong = torch.zeros(1, 6, 10), bump(5, 9).float()
    right[:, :2, :4] = 1
    for top, error in ((1, 1.0), (2, 0.5)):
        metric = LocalisationError(top)
        metric.update(make_case(torch.cat([right, right]), ((), (0,)), things, unit=0))  # an absent class first
        metric.update(make_case(torch.cat([wrong, wrong]), ((0,), (0,)), things, unit=1))
        metric.update(make_case(right, ((0,),), boxed((3, 3, 3, 3)), unit=2))
        figure = metric.compute()
        assert (figure.value, figure.n, figure.excluded) == (error, 2, 1)


def test_ignored_places_draw_no_box():
    ignored = torch.zeros(6, 10, dtype=torch.bool)
    ignored[:, 6:] = True
    map = bump(1, 1) * 0.1 + bump(2, 8)
    assert largest_boxes(map, 0.15, ignored).tolist() == [[1, 1, 2, 2]]
