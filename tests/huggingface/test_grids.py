import pytest
import torch

from mmcam import UserError
from mmcam.huggingface.grids import Coordinates, Maps, Packed, Raster, Tiles, sides
from mmcam.huggingface.windows import NOWHERE


def numbers(*shape):
    return torch.arange(1.0, 1 + torch.Size(shape).numel()).view(shape)


HALVES = ((0.0, 0.0, 4.0, 4.0), (0.0, 4.0, 4.0, 8.0))
GRIDS = {
    "maps": (Maps(), [numbers(2, 3, 2, 4)]),
    "raster": (Raster(2, 3, 1), [numbers(2, 7, 5)]),
    "packed": (Packed(((2, 3), (1, 4)), 2), [numbers(10, 5), -numbers(10, 5)]),
    "tiles": (Tiles(2, 2, (HALVES, HALVES[:1]), 1), [numbers(3, 5, 4)]),
    "batched tiles": (Tiles(2, 2, (HALVES, HALVES[:1]), 1, (2, 1, 2)), [numbers(2, 1, 2, 5, 4)]),
    "coordinates": (
        Coordinates(torch.tensor([[[1, 0], [0, 1], [0, 0]], [[0, 0], [-1, -1], [1, 0]]]), ((2, 2), (2, 1))),
        [numbers(2, 5, 4)],
    ),
}


@pytest.mark.parametrize("name", GRIDS)
def test_there_and_back(name):
    grid, leaf = GRIDS[name]
    canvas, rest = grid.spread(leaf)
    again = grid.gather(canvas, rest)
    assert [x.tolist() for x in again] == [x.tolist() for x in leaf]


@pytest.mark.parametrize("name", GRIDS)
def test_the_gradient_is_that_of_the_leaf(name):
    """A linear score of the leaf has the same derivative by way of the canvas, at every place that there is."""
    grid, leaf = GRIDS[name]
    canvas, rest = grid.spread(leaf)
    canvas = canvas.clone().requires_grad_()
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(x.shape, generator=generator) for x in leaf]
    y = sum((w * x).sum() for w, x in zip(weights, grid.gather(canvas, rest), strict=True))
    (found,) = torch.autograd.grad(y, canvas)
    assert torch.equal(found, grid.spread(weights)[0])


def test_raster_lies_in_rows():
    canvas, rest = Raster(2, 3, 1).spread([numbers(1, 7, 1)])
    assert canvas[0, 0].tolist() == [[2, 3, 4], [5, 6, 7]]
    assert rest.tolist() == [[[1]]]


def test_packed_pictures_are_padded_and_cut_again():
    grid = Packed(((2, 1), (1, 3)))
    canvas, _ = grid.spread([numbers(5, 1)])
    assert canvas[:, 0].tolist() == [[[1, 0, 0], [2, 0, 0]], [[3, 4, 5], [0, 0, 0]]]
    assert [x.tolist() for x in grid.lay(canvas)] == [[[[1], [2]]], [[[3, 4, 5]]]]
    assert grid.places == [2, 3]


def test_tiles_lie_beside_one_another_and_the_whole_is_added():
    whole = (0.0, 0.0, 4.0, 8.0)
    grid = Tiles(1, 2, ((whole, *HALVES),))
    canvas, _ = grid.spread([torch.tensor([[[0.0], [0.0]], [[1.0], [2.0]], [[3.0], [4.0]]])])
    (laid,) = grid.lay(canvas)
    assert laid.tolist() == [[[1, 2, 3, 4]]]
    (added,) = grid.lay(canvas + 10)
    assert added.tolist() == [[[21, 22, 23, 24]]]


def test_tiles_of_padding_are_left_out():
    grid = Tiles(1, 1, ((NOWHERE, *HALVES),))
    (laid,) = grid.lay(torch.tensor([[[[9.0], [1.0], [2.0]]]]))
    assert laid.tolist() == [[[1, 2]]]


def test_coordinates_put_tokens_in_their_places():
    grid, _ = GRIDS["coordinates"]
    leaf = torch.tensor([[[9.0], [9], [1], [2], [3]], [[9], [9], [1], [2], [3]]])
    canvas, _ = grid.spread([leaf])
    assert canvas[:, 0].tolist() == [[[3, 2], [1, 0]], [[1, 0], [3, 0]]]
    assert [x.tolist() for x in grid.lay(canvas)] == [[[[3, 2], [1, 0]]], [[[1], [3]]]]


def test_sides():
    assert sides(17, (32, 32), (0, 1)) == (4, 4, 1)
    assert sides(6, (20, 30)) == (2, 3, 0)
    assert sides(21, (8, 8), (0, 1, 2, 5)) == (4, 4, 5)
    with pytest.raises(UserError, match="tokens on a grid"):
        sides(18, (32, 32), (0, 1))


@pytest.mark.parametrize(
    ("grid", "leaf"),
    [
        (Maps(), numbers(2, 3, 4)),
        (Raster(2, 2), numbers(1, 5, 3)),
        (Packed(((2, 2),)), numbers(5, 3)),
        (Tiles(2, 2, (HALVES,)), numbers(3, 4, 2)),
    ],
)
def test_what_does_not_fit_is_refused(grid, leaf):
    with pytest.raises(UserError, match="choose another layer"):
        grid.spread([leaf])
