import matplotlib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import gaussian_filter

from mmcam.draw import colour, highlight, overlay, scale, soften, upsample
from mmcam.errors import UserError
from mmcam.image import crop_to_tensor


def levels(image):
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (48, 96), (3, 1000)])
@pytest.mark.parametrize("placed", [False, True])
def test_a_constant_map_stays_constant(size, placed):
    window = (0.0, 0.0, float(size[0]), float(size[1])) if placed else None
    maps = torch.tensor([0.3, -2.0, 0.0], dtype=torch.float64).view(3, 1, 1).expand(3, 7, 4)
    assert torch.allclose(upsample(maps, size, window), maps[:, :1, :1].expand(3, *size), rtol=1e-14, atol=0)


def test_its_own_size_changes_nothing():
    maps = torch.randn(4, 6, 5, dtype=torch.float64)
    assert torch.equal(upsample(maps, (6, 5)), maps)
    assert torch.equal(upsample(maps, (6, 5), (0.0, 0.0, 6.0, 5.0)), maps)


def test_doubling_by_hand():
    # align_corners=False: output i looks at (i + 1/2)/2 - 1/2, held at the edges: 0, 1/4, 3/4, 1.
    doubled = upsample(torch.tensor([[[0.0, 4.0]]], dtype=torch.float64), (2, 4))
    assert doubled.tolist() == [[[0.0, 1.0, 3.0, 4.0]] * 2]


def test_upsampling_is_linear():
    # So the word maps of a caption still sum to the sentence's after it.
    maps = torch.randn(5, 7, 7, dtype=torch.float64)
    assert torch.allclose(upsample(maps, (50, 31)).sum(0), upsample(maps.sum(0, keepdim=True), (50, 31))[0])


def test_no_maps():
    assert upsample(torch.zeros(0, 7, 7), (20, 30)).shape == (0, 20, 30)
    assert upsample(torch.zeros(0, 7, 7), (20, 30), (0.0, 5.0, 20.0, 25.0)).shape == (0, 20, 30)
    assert scale(torch.zeros(0, 7, 7), "joint").shape == (0, 7, 7)
    assert colour(torch.zeros(0, 7, 7)).shape == (0, 3, 7, 7)


def test_a_window_holds_the_map_and_zero_lies_outside():
    maps = torch.rand(2, 3, 4, dtype=torch.float64) + 1
    full = upsample(maps, (20, 30), (4.4, 9.6, 10.3, 18.2))  # rounded to rows 4..10 and columns 10..18
    assert torch.equal(full[:, 4:10, 10:18], upsample(maps, (6, 8)))
    assert full.count_nonzero() == 2 * 6 * 8


def test_a_window_thinner_than_a_pixel_is_drawn_as_one():
    maps = torch.ones(1, 7, 7)
    assert upsample(maps, (10, 10), (3.6, 2.0, 3.9, 6.0)).nonzero().tolist() == [[0, 4, c] for c in range(2, 6)]
    assert upsample(maps, (10, 10), (9.8, 9.8, 10.0, 10.0)).nonzero().tolist() == [[0, 9, 9]]
    assert upsample(maps, (1, 1), (0.0, 0.0, 0.3, 0.3)).tolist() == [[[1.0]]]


def test_a_window_that_reaches_outside_is_cut_at_the_edge():
    maps = torch.arange(16, dtype=torch.float64).view(1, 4, 4)
    full = upsample(
        maps, (4, 6), (-4.0, -2.0, 12.0, 14.0)
    )  # sixteen by sixteen, of which rows 4..8 and columns 2..8 are seen
    assert torch.equal(full, upsample(maps, (16, 16))[:, 4:8, 2:8])


def bilinear(map, size, window):
    """A picture's pixels one by one: where its centre lies on the map, between which four cells."""
    (top, left, bottom, right), (rows, columns) = window, map.shape
    out = np.zeros(size)
    for y, x in np.ndindex(*size):
        if top <= y + 0.5 < bottom and left <= x + 0.5 < right:
            v = min(max((y + 0.5 - top) / (bottom - top) * rows - 0.5, 0), rows - 1)
            u = min(max((x + 0.5 - left) / (right - left) * columns - 0.5, 0), columns - 1)
            i, j = min(int(v), rows - 2), min(int(u), columns - 2)
            (a, b), (c, d) = map[i : i + 2, j : j + 2]
            out[y, x] = (1 - v + i) * ((1 - u + j) * a + (u - j) * b) + (v - i) * ((1 - u + j) * c + (u - j) * d)
    return torch.from_numpy(out)


@pytest.mark.parametrize(
    "window", [(0.0, -18.0, 12.0, 38.0), (-7.3, 0.0, 19.4, 20.0), (3.2, -4.4, 30.1, 14.8), (-50.7, -8.9, 5.4, 300.3)]
)
def test_maps_of_padded_pictures_are_cut_at_parts_of_a_pixel(window):
    maps = torch.randn(3, 5, 6, dtype=torch.float64)
    full = upsample(maps, (12, 20), window)
    for map, cut in zip(maps, full, strict=True):
        assert torch.allclose(cut, bilinear(map.numpy(), (12, 20), window), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "window", [(0.0, 0.0, 0.0, 0.0), (12.0, 0.0, 24.0, 20.0), (0.0, 20.0, 12.0, 40.0), (-9.0, -9.0, -1.0, 40.0)]
)
def test_a_window_beside_the_picture_shows_nothing(window):
    assert upsample(torch.ones(2, 3, 3), (12, 20), window).count_nonzero() == 0


def test_a_long_picture_padded_to_a_square_needs_no_square():
    """Of 30,000 pixels a side, in which the picture has ten rows; the square would take 3.6 GB a map."""
    full = upsample(torch.ones(2, 3, 3), (10, 30_000), (-14_995.0, 0.0, 15_005.0, 30_000.0))
    assert full.shape == (2, 10, 30_000)
    assert (full == 1).all()


def test_what_is_not_finite_stays_where_it_is_in_padded_pictures():
    maps = torch.ones(1, 4, 4)
    maps[0, 0, 0] = float("nan")
    assert 0 < upsample(maps, (8, 8), (0.0, -4.0, 8.0, 12.0)).isnan().sum() <= 8


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (37, 500), (97, 96), (60, 60)])
@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (64, 64), (48, 60)])
def test_a_marker_is_put_back_where_it_was(size, resize, crop):
    """What the network saw at a place of its crop is drawn at that place of the original."""
    height, width = size
    side = min(size) // 4
    row, column = height // 2 - side // 3, width // 2 + side // 4
    image = Image.new("RGB", (width, height))
    image.paste("white", (column, row, column + side, row + side))
    seen, window = crop_to_tensor(image, resize, crop, (0.0,) * 3, (1.0,) * 3)
    full = upsample(seen[:1].double(), size, window)[0]
    whole = torch.from_numpy(np.array(image.convert("L"))).double() / 255
    mass = full / full.sum()
    rows, columns = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    assert abs((mass.sum(1) * rows).sum() - (row + side / 2)) < 1
    assert abs((mass.sum(0) * columns).sum() - (column + side / 2)) < 1
    assert ((full > 0.5).double() - whole).abs().sum() < 4 * 3 * side  # the outline may differ, by some two pixels


def test_scaling_by_hand():
    maps = torch.tensor([[[1.0, -2.0], [4.0, 0.0]], [[2.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    own, joint, none = (scale(maps, how).flatten(1).tolist() for how in ("own", "joint", "none"))
    assert own == [[0.25, -0.5, 1.0, 0.0], [1.0, 0.0, 0.0, 0.5]]
    assert joint == [[0.25, -0.5, 1.0, 0.0], [0.5, 0.0, 0.0, 0.25]]
    assert none == maps.flatten(1).tolist()


@pytest.mark.parametrize("how", ["own", "joint", "none"])
def test_maps_without_a_positive_value_stay_as_they_are(how):
    zero = torch.zeros(2, 3, 3)
    assert torch.equal(scale(zero, how), zero)
    negative = torch.full((1, 2, 2), -3.0)
    assert torch.equal(scale(negative, how), negative)


def test_a_zero_map_among_others():
    maps = torch.stack([torch.zeros(2, 2), torch.full((2, 2), 5.0)])
    for how in ("own", "joint"):
        assert scale(maps, how).flatten(1).tolist() == [[0.0] * 4, [1.0] * 4]


@pytest.mark.parametrize("how", ["own", "joint", "none"])
def test_pixels_that_are_not_finite_are_shown_as_zero(how):
    maps = torch.tensor([[[float("nan"), 1.0], [float("inf"), -float("inf")]]])
    assert scale(maps, how).tolist() == [[[0.0, 1.0], [0.0, 0.0]]]


def test_the_smallest_peak_is_still_scaled_to_one():
    assert scale(torch.tensor([[[1e-42, 0.0]]]), "own").tolist() == [[[1.0, 0.0]]]


def test_scaling_leaves_the_callers_maps_alone():
    maps = torch.tensor([[[float("nan"), 4.0]]])
    scale(maps, "own")
    assert maps[0, 0, 1] == 4
    assert maps.isnan().any()


@pytest.mark.parametrize("name", ["jet", "viridis", "twilight", "tab10"])
def test_colours_are_matplotlibs(name):
    maps = torch.cat([torch.linspace(0, 1, 999, dtype=torch.float64), torch.tensor([0.0, 1.0])]).view(1, 7, 143)
    expected = torch.from_numpy(matplotlib.colormaps[name](maps.numpy())[..., :3]).movedim(-1, 1)
    assert torch.allclose(colour(maps, name), expected, atol=1e-6)


def test_colours_of_what_lies_outside():
    painted = colour(torch.tensor([[[float("nan"), -1.0, 0.0, 1.0, 7.0, float("inf")]]]))[0, :, 0].T
    assert torch.equal(painted[:2], painted[2:3].expand(2, 3))
    assert torch.equal(painted[4:], painted[3:4].expand(2, 3))


def test_an_unknown_colour_map_names_its_neighbours():
    with pytest.raises(UserError, match="unknown colour map 'virids': did you mean 'viridis'"):
        colour(torch.zeros(1, 2, 2), "virids")


def test_overlay_by_hand():
    image = Image.new("RGB", (2, 1), (100, 100, 100))
    map = torch.tensor([[0.0, 1.0]])  # jet goes from (0, 0, 0.5) to (0.5, 0, 0)
    assert np.abs(levels(overlay(image, map)) - [[[50, 50, 114], [114, 50, 50]]]).max() <= 1
    assert levels(overlay(image, map, opacity=0.0)).tolist() == levels(image).tolist()
    assert np.abs(levels(overlay(image, map, opacity=1.0)) - [[[0, 0, 128], [128, 0, 0]]]).max() <= 1
    grey = overlay(image, map, opacity=1.0, colours="gray")
    assert levels(grey).tolist() == [[[0] * 3, [255] * 3]]


def test_overlay_of_other_modes_and_types():
    image = Image.new("L", (3, 2), 100)
    assert overlay(image, torch.zeros(2, 3, dtype=torch.bfloat16)).mode == "RGB"
    assert overlay(image, torch.zeros(2, 3, dtype=torch.float64)).size == (3, 2)


def test_overlay_refuses_what_does_not_fit():
    image = Image.new("RGB", (3, 2))
    with pytest.raises(UserError, match=r"expected a map of 2 x 3 .*, got 3 x 2; upsample it first"):
        overlay(image, torch.zeros(3, 2))
    with pytest.raises(UserError, match="expected an opacity between 0"):
        overlay(image, torch.zeros(2, 3), opacity=50.0)


def test_highlight_by_hand():
    """Grey keeps its grey where the map is zero; where it is 1 the colour has its share; between, more than half."""
    image = Image.new("RGB", (3, 1), (100, 100, 100))
    found = levels(highlight(image, torch.tensor([[0.0, 0.25, 1.0]]), opacity=0.8, colours="gray"))
    between = 100 + 0.8 * (1 - 0.75**2) * (255 * 0.25 - 100)
    assert np.abs(found - [[[100] * 3, [between] * 3, [100 + 0.8 * 155] * 3]]).max() <= 1
    assert levels(highlight(image, torch.tensor([[torch.nan, -3.0, 0.0]]))).tolist() == levels(image).tolist()


def test_the_picture_under_a_highlight_is_greyer_but_as_bright():
    red = levels(highlight(Image.new("RGB", (1, 1), (200, 40, 40)), torch.zeros(1, 1)))[0, 0]
    luma = np.array([0.299, 0.587, 0.114])
    assert np.abs(red - (0.3 * np.array([200, 40, 40]) + 0.7 * luma @ [200, 40, 40])).max() <= 1
    assert abs(luma @ red - luma @ [200, 40, 40]) <= 1.5


def test_highlight_refuses_what_does_not_fit():
    with pytest.raises(UserError, match=r"expected a map of 2 x 3"):
        highlight(Image.new("RGB", (3, 2)), torch.zeros(3, 2))
    with pytest.raises(UserError, match="expected an opacity between 0"):
        highlight(Image.new("RGB", (3, 2)), torch.zeros(2, 3), opacity=-1.0)


def test_upsampling_is_torchs_bilinear():
    maps = torch.rand(3, 14, 14)
    expected = F.interpolate(maps[None], (61, 45), mode="bilinear", align_corners=False)[0]
    assert torch.allclose(upsample(maps, (61, 45)), expected)


def test_softening_is_scipys_gaussian():
    maps = torch.rand(2, 60, 90, dtype=torch.float64)
    sigma = 90 / 24 / 2
    expected = [gaussian_filter(row, sigma, mode="mirror", radius=round(3 * sigma)) for row in maps.numpy()]
    assert np.abs(soften(maps).numpy() - np.stack(expected)).max() < 1e-12


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (3, 200), (7, 5)])
def test_softening_leaves_constant_maps_of_any_shape(size):
    maps = torch.full((2, *size), 0.7, dtype=torch.float64)
    assert torch.allclose(soften(maps), maps, rtol=1e-14)
    assert soften(maps[:0]).shape == (0, *size)
