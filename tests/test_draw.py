import matplotlib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from mmcam import draw
from mmcam.draw import INK, SIGNED, _flow, _luminance, colour, overlay, scale, strip, upsample, word_strip
from mmcam.errors import UserError
from mmcam.image import crop_to_tensor
from tests.reference import unchecked


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
    with pytest.raises(UserError, match=r"expected a map of 2 x 3"):
        strip(image, [("cat", "", torch.zeros(7, 7))])
    with pytest.raises(UserError, match="at least 32 pixels, got 5"):
        strip(image, [], width_per_panel=5)


def panels(count, size):
    maps = torch.linspace(0, 1, size[0] * size[1]).view(1, *size)
    return [(f"word{n}", f"{n}.0", maps[0]) for n in range(count)]


@pytest.mark.parametrize(
    ("count", "columns", "rows"), [(0, 1, 1), (1, 2, 1), (5, 6, 1), (6, 6, 2), (11, 6, 2), (12, 6, 3)]
)
def test_rows_hold_six_panels_at_most(count, columns, rows):
    image = Image.new("RGB", (64, 48), "red")
    one = strip(image, panels(0, (48, 64)), 100, first="x")
    sheet = strip(image, panels(count, (48, 64)), 100, colours="gray", first="x")
    gap = 4
    assert sheet.width == columns * (100 + gap) + gap
    assert sheet.height == rows * (one.height - gap) + gap
    # So many pictures stand on the sheet: their own colour in the first, blends of it in the others.
    coloured = (levels(sheet).max(2) - levels(sheet).min(2)) > 40
    assert coloured.sum() == pytest.approx((count + 1) * 100 * 75, rel=0.05)


def test_the_first_panel_is_the_picture_itself():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    sheet = strip(image, panels(1, (60, 80)), 80)
    gap = 4
    top = sheet.height - gap - 60
    assert (levels(sheet.crop((gap, top, gap + 80, top + 60))) == levels(image)).all()
    map = panels(1, (60, 80))[0][2]
    second = sheet.crop((2 * gap + 80, top, 2 * gap + 160, top + 60))
    assert np.abs(levels(second) - levels(overlay(image, map))).max() <= 1


def test_the_strip_is_white_around_the_pictures():
    sheet = levels(strip(Image.new("RGB", (40, 40)), panels(7, (40, 40)), 40, first="a picture"))
    for edge in (sheet[0], sheet[-1], sheet[:, 0], sheet[:, -1]):
        assert (edge == 255).all()


@pytest.mark.parametrize("size", [(30_000, 10), (10, 30_000), (1, 1), (3, 400)])
def test_pictures_of_any_shape_fit_their_panels(size):
    map = torch.ones(size[1], size[0])
    sheet = strip(Image.new("RGB", size, "lime"), [("dog", "0.9", map)], 100, first="a dog")
    ordinary = strip(Image.new("RGB", (100, 150)), [("dog", "0.9", torch.ones(150, 100))], 100, first="a dog")
    assert sheet.width == ordinary.width
    assert sheet.height <= ordinary.height
    pixels = levels(sheet)
    green = (pixels == [0, 255, 0]).all(2)
    assert min(green.any(0).sum(), green.any(1).sum()) >= 8
    blended = (np.abs(pixels - [64, 127, 0]) <= 2).all(2)  # half jet's last colour, (0.5, 0, 0)
    assert blended.sum() == green.sum()


def test_a_picture_of_many_pixels_keeps_its_peak_in_place():
    map = torch.zeros(1200, 1600)
    map[300:420, 1200:1400] = 1
    sheet = strip(Image.new("RGB", (1600, 1200)), [("dog", "", map)], 160, colours="gray", opacity=1.0)
    gap = 5
    second = levels(sheet)[-gap - 120 : -gap, 2 * gap + 160 : 2 * gap + 320, 0]
    rows, columns = np.nonzero(second > 128)
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (30, 42, 120, 140)


def test_the_font_draws_words_that_are_not_ascii():
    def drawn(letter):
        page = Image.new("L", (40, 40))
        ImageDraw.Draw(page).text((5, 5), letter, 255, draw._font(20))
        return page.tobytes()

    for letter in "äßéñøžłЖαω…“”→−":
        assert drawn(letter) not in (drawn("\U000f0000"), drawn(" "))


def test_long_labels_end_in_an_ellipsis():
    font = draw._font(16)
    assert draw._shorten("cat", font, 100) == "cat"
    assert draw._shorten("  a\n cat ", font, 100) == "a cat"
    assert draw._shorten("", font, 100) == ""
    for text in ("Donaudampfschifffahrtsgesellschaft" * 3, "a very long question about " * 1000, "W" * 50):
        short = draw._shorten(text, font, 100)
        assert short.endswith("…")
        assert text.startswith(short[:-1])
        assert 80 < font.getlength(short) <= 100
    assert draw._shorten("W", font, 1) == "…"


def test_a_long_title_of_the_picture_takes_two_lines():
    font = draw._font(16)
    first, rest = draw._two_lines("what is to the left of the dog?", font, 150)
    assert f"{first} {rest}" == "what is to the left of the dog?"
    assert 100 < font.getlength(first) <= 150
    assert draw._two_lines("", font, 150) == ("", "")
    assert draw._two_lines("W" * 60, font, 150) == ("W" * 60, "")


def test_labels_of_any_kind_draw():
    map = torch.zeros(8, 8)
    words = ["naïve Straße", "кошка", "a\nb\tc", "", "\u202eabc", "x" * 10_000, "\0"]
    sheet = strip(Image.new("RGB", (8, 8)), [(word, word, map) for word in words], 64, first="y " * 5_000)
    assert sheet.width == 6 * 68 + 4


def test_text_is_drawn_and_stays_in_its_column():
    blank = strip(Image.new("RGB", (64, 64)), [("", "", torch.zeros(64, 64))] * 2, 64)
    sheet = strip(Image.new("RGB", (64, 64)), [("W" * 40, "", torch.zeros(64, 64)), ("", "", torch.zeros(64, 64))], 64)
    changed = (levels(sheet) != levels(blank)).any(2)
    columns = np.nonzero(changed.any(0))[0]
    assert len(columns)
    assert columns.min() >= 4 + 64
    assert columns.max() < 2 * 68 + 4


def test_upsampling_is_torchs_bilinear():
    maps = torch.rand(3, 14, 14)
    expected = F.interpolate(maps[None], (61, 45), mode="bilinear", align_corners=False)[0]
    assert torch.allclose(upsample(maps, (61, 45)), expected)


# --- words heard ---

RED, BLUE, WHITE = (103, 0, 31), (5, 48, 97), (247, 246, 246)  # the ends of RdBu_r, and near its middle


def grounds(scores, how="own", heard=("a", "dog"), width=200):
    """The colours under an empty sheet of ten lines, row by row and word by word, just below the cells' upper edges."""
    sheet = word_strip(Image.new("RGB", (width, 10), "white"), ["w"] * len(scores), heard, torch.tensor(scores), how)
    assert sheet.width == width
    found = []
    for row in range(len(scores)):
        line = [tuple(c) for c in levels(sheet)[10 + 27 + 35 * row + 3].tolist()]
        found.append([c for c, before in zip(line[1:], line, strict=False) if c != before == (255, 255, 255)])
    assert {len(row) for row in found} == {len(heard)}
    return found


def near(colour, other):
    return max(abs(a - b) for a, b in zip(colour, other, strict=True)) <= 2


def test_words_that_speak_for_it_are_red_and_against_it_blue():
    ((first, second),) = grounds([[3.0, -3.0]])
    assert near(first, RED)
    assert near(second, BLUE)


def test_words_that_add_nothing_are_white():
    first, second = grounds([[0.0, float("nan")]])[0]
    assert near(first, WHITE)
    assert near(second, WHITE)


def test_each_row_by_its_own_largest_or_all_by_theirs():
    scores = [[3.0, 0.0], [0.0, -1.0]]
    assert near(grounds(scores, "own")[1][1], BLUE)
    joint = grounds(scores, "joint")[1][1]
    assert not near(joint, BLUE)
    assert near(joint, grounds([[-1 / 3, 1.0]], "none")[0][0])


def test_red_and_blue_differ_for_the_colour_blind():
    """As seen without the long- or without the middle-wave cones (Vienot et al., 1999), for the same size."""
    table = torch.tensor(matplotlib.colormaps[SIGNED](np.linspace(0, 1, 21))[:, :3]) ** 2.2
    for mix in (
        [[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]],
        [[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]],
    ):
        seen = (table @ torch.tensor(mix, dtype=torch.float64).T).clamp(0, 1) ** (1 / 2.2)
        assert all((seen[10 + i] - seen[10 - i]).abs().max() > 0.1 for i in range(2, 11))


def test_long_questions_break_and_keep_every_word():
    heard = [f"word{i}" for i in range(30)]
    short = word_strip(Image.new("RGB", (300, 5)), ["w"], heard[:3], torch.zeros(1, 3))
    long = word_strip(Image.new("RGB", (300, 5)), ["w"], heard, torch.zeros(1, 30))
    assert long.height > short.height + 3 * 20
    assert _flow([40] * 5, 20, 110) == [(20, 0), (60, 0), (20, 1), (60, 1), (20, 2)]
    assert _flow([500, 10], 20, 110) == [(20, 0), (20, 1)]  # one too long for a line has it for itself


def test_without_words_there_is_no_strip():
    sheet = Image.new("RGB", (100, 20))
    assert word_strip(sheet, [], ["a"], torch.zeros(0, 1)) is sheet
    assert word_strip(sheet, ["w"], [], torch.zeros(1, 0)) is sheet
    with unchecked(), pytest.raises(UserError, match="unknown scaling 'big'"):
        word_strip(sheet, ["w"], ["a"], torch.zeros(1, 1), "big")


def test_letters_can_be_read_on_every_ground():
    """By the contrast of WCAG 2, of which large print needs 3 : 1."""
    for ground in (matplotlib.colormaps[SIGNED](np.linspace(0, 1, 101))[:, :3] * 255).round().astype(int).tolist():
        light = _luminance(ground)
        ink = _luminance(INK) if light > 0.195 else 1.0
        assert (max(light, ink) + 0.05) / (min(light, ink) + 0.05) >= 4.2
