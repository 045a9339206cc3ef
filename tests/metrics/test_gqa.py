import pytest
import torch

from mmcam.metrics.base import Case
from mmcam.metrics.gqa import GQAGrounding, OfficialGQAGrounding, coverage, gqa_grounding, gqa_grounding_official
from mmcam.truth import Things
from tests.metrics import naive
from tests.metrics.cases import NAN, boxed, bump, make_case, same

SIZE = (60, 100)  # height and width
LEFT, RIGHT, TOP = (0.0, 0, 50, 60), (50.0, 0, 100, 60), (0.0, 0, 100, 30)


def boxes(*rows):
    return torch.tensor(rows, dtype=torch.float64).view(-1, 4)


def test_the_evaluator_read_again():
    maps = torch.rand(6, 7, 7, dtype=torch.float64)
    maps[0] = 0
    regions = [
        boxes(*[row for row in (LEFT, TOP, (13.0, 7, 71, 44), (60.0, 20, 60, 50))[:k]]) for k in (1, 0, 1, 2, 3, 4)
    ]
    loop = [
        naive.grounding(m, r, SIZE, True) for m, r in zip(maps.tolist(), [r.tolist() for r in regions], strict=True)
    ]
    assert same(gqa_grounding_official(maps, regions, SIZE), loop)
    assert loop[1] == 0


def test_fine_sampling():
    maps = torch.rand(20, 3, 5, dtype=torch.float64)
    # Edges on a grid of 20 samples a cell: 1 pixel.
    corners = torch.randint(0, 50, (20, 3, 2))
    every = torch.cat([corners, corners + torch.randint(1, 50, (20, 3, 2))], 2).double()
    loop = [naive.grounding(m, r, SIZE, False) for m, r in zip(maps.tolist(), every.tolist(), strict=True)]
    assert same(gqa_grounding(maps, list(every), SIZE), loop)


def test_overlapping_regions_count_once_but_twice_in_the_official_score():
    map = torch.ones(1, 2, 2)
    assert gqa_grounding(map, [boxes(LEFT, LEFT, LEFT)], SIZE).item() == pytest.approx(0.5)
    assert gqa_grounding_official(map, [boxes(LEFT, LEFT, LEFT)], SIZE).item() == pytest.approx(1.5)
    assert gqa_grounding(map, [boxes(LEFT, TOP)], SIZE).item() == pytest.approx(0.75)
    assert gqa_grounding_official(map, [boxes(LEFT, TOP)], SIZE).item() == pytest.approx(1)


def test_disjoint_regions_on_a_symmetric_map_agree():
    map = torch.rand(1, 7, 7, dtype=torch.float64)
    map = map + map.mT
    region = [boxes((0.0, 0, 30, 18), (50.0, 30, 80, 48))]  # symmetric as a part of the picture
    assert torch.allclose(gqa_grounding(map, region, SIZE), gqa_grounding_official(map, region, SIZE))


def test_the_official_score_takes_rows_for_columns():
    map = torch.zeros(1, 4, 4)
    map[0, :, 0] = 1  # the left column
    assert gqa_grounding(map, [boxes(LEFT)], SIZE).item() == pytest.approx(1)
    assert gqa_grounding_official(map, [boxes(LEFT)], SIZE).item() == pytest.approx(0.5)
    assert gqa_grounding_official(map, [boxes(TOP)], SIZE).item() == pytest.approx(1)


def test_coverage_is_fractional_and_knows_height_from_width():
    covered = coverage(boxes((10.0, 0, 50, 45), (-5.0, 30, 200, 90)), (2, 4), SIZE)
    assert covered[0].tolist() == [[0.6, 1, 0, 0], [0.3, 0.5, 0, 0]]
    assert covered[1].tolist() == [[0, 0, 0, 0], [1, 1, 1, 1]]


def test_edges():
    maps = torch.stack([torch.zeros(3, 3), torch.full((3, 3), 5.0), torch.ones(3, 3), torch.ones(3, 3)])
    maps[1, 0, 0] = torch.nan
    regions = [boxes(LEFT), boxes(TOP), boxes(), boxes((3.0, 3, 3, 9))]
    assert same(gqa_grounding(maps, regions, SIZE), [0, (1 * 2 + 0.5 * 3) / 8, NAN, NAN], 1e-6)
    assert same(gqa_grounding_official(maps, regions, SIZE), [0, (1 * 2 + 0.5 * 3) / 8, 0, 0], 1e-6)
    assert gqa_grounding(maps[:0], [], SIZE).shape == (0,)


def test_the_whole_picture_gets_all():
    maps = torch.rand(3, 6, 9)
    whole = [boxes((0.0, 0, 100, 60))] * 3
    assert torch.allclose(gqa_grounding(maps, whole, SIZE), torch.ones(3))
    assert torch.allclose(gqa_grounding_official(maps, whole, SIZE), torch.ones(3))


def test_the_metrics_take_the_layers_cells_and_the_pictures_boxes():
    things = boxed((0, 0, 5, 6), (0, 3, 10, 6))
    small = torch.tensor([[[4.0, 0], [0, 0]], [[0, 3.0], [1, 0]]])
    case = make_case(torch.cat([bump(0, 0), bump(0, 0)]), ((0,), (0, 1)), things, small=small)
    for kind, values in ((GQAGrounding, [1, 0.25]), (OfficialGQAGrounding, [1, 1.5])):
        metric = kind()
        metric.update(case)
        assert same(metric.kept()[0], values, 1e-6)


def test_a_map_of_a_window_is_held_against_what_lies_in_it():
    """The network saw the right half of a 10 x 20 picture; all of the map lies where the thing is."""
    things = Things.of_boxes(["dog"], torch.tensor([[15.0, 0, 20, 10]]), (10, 20))
    small = torch.tensor([[[0.0, 1.0]]])
    case = Case(
        words=("dog",),
        maps=torch.zeros(1, 10, 20),
        small=small,
        masks=things.masks,
        about=((0,),),
        things=things,
        classes=torch.zeros(1, dtype=torch.long),
        unit=0,
        window=(0.0, 10.0, 10.0, 20.0),
    )
    assert GQAGrounding().measure(case).tolist() == [1.0]
