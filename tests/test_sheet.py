"""Sheets: panels and lines of words."""

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from mmcam.draw import overlay
from mmcam.errors import UserError
from mmcam.sheet import INK, SIGNED, _flow, _font, _luminance, _shorten, _two_lines, strip, word_strip
from tests.reference import unchecked


def levels(image):
    return np.asarray(image).astype(int)


def test_a_strip_refuses_what_does_not_fit():
    image = Image.new("RGB", (3, 2))
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
        ImageDraw.Draw(page).text((5, 5), letter, 255, _font(20))
        return page.tobytes()

    for letter in "äßéñøžłЖαω…“”→−":
        assert drawn(letter) not in (drawn("\U000f0000"), drawn(" "))


def test_long_labels_end_in_an_ellipsis():
    font = _font(16)
    assert _shorten("cat", font, 100) == "cat"
    assert _shorten("  a\n cat ", font, 100) == "a cat"
    assert _shorten("", font, 100) == ""
    for text in ("Donaudampfschifffahrtsgesellschaft" * 3, "a very long question about " * 1000, "W" * 50):
        short = _shorten(text, font, 100)
        assert short.endswith("…")
        assert text.startswith(short[:-1])
        assert 80 < font.getlength(short) <= 100
    assert _shorten("W", font, 1) == "…"


def test_a_long_title_of_the_picture_takes_two_lines():
    font = _font(16)
    first, rest = _two_lines("what is to the left of the dog?", font, 150)
    assert f"{first} {rest}" == "what is to the left of the dog?"
    assert 100 < font.getlength(first) <= 150
    assert _two_lines("", font, 150) == ("", "")
    assert _two_lines("W" * 60, font, 150) == ("W" * 60, "")


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
