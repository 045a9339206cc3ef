import json
import re
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmcam import draw
from mmcam.engine import explain
from mmcam.errors import UserError
from mmcam.explanation import Explanation, file_name, where
from tests.reference import close, make, pictures, ragged

SIGNED = torch.tensor([[[1.0, -2.0], [3.0, 0.0]], [[-1.0, -2.0], [0.0, -4.0]], [[0.0, 0.0], [0.0, 0.0]]])


def explanation(signed=SIGNED, scores=None, **changes):
    words = tuple(f"word {r}" for r in range(len(signed)))
    scores = torch.arange(float(len(signed))) if scores is None else scores
    whole = Explanation("a picture", "", words, scores, signed, (8, 12), (0.0, 0.0, 8.0, 12.0), "grad_cam", "layer4")
    return replace(whole, **changes)


def test_maps_are_the_positive_part():
    assert explanation().maps.tolist() == [[[1, 0], [3, 0]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]]
    assert SIGNED.min() == -4  # and the signed ones stay as they were


def test_flags():
    odd = torch.stack([SIGNED[0].where(SIGNED[0] < 3, bad) for bad in torch.tensor([torch.nan, torch.inf, -torch.inf])])
    assert explanation().flags == ("", "negative", "zero")
    assert explanation(odd).flags == ("non-finite",) * 3
    assert explanation(SIGNED[:0]).flags == ()


def test_non_finite_numbers_stay_in_the_maps():
    assert explanation(torch.full((1, 2, 2), torch.nan)).maps.isnan().all()


def test_upsampling_is_to_the_original_size_within_the_window():
    whole = explanation()
    assert torch.equal(whole.upsample(), draw.upsample(whole.maps, (8, 12)))
    cropped = explanation(torch.ones(1, 2, 2), window=(2.0, 3.0, 6.0, 9.0)).upsample()
    expected = torch.zeros(1, 8, 12)
    expected[:, 2:6, 3:9] = 1
    assert torch.equal(cropped, expected)


def test_peaks_are_places_of_the_original():
    signed = torch.zeros(3, 4, 6)
    signed[0, 3, 5], signed[1, 0, 5], signed[2, 1, 0] = 1, 1, 1
    (r0, c0), (r1, c1), (r2, c2) = explanation(signed).peaks()
    assert (r0, c0) == (7, 11)  # 8 x 12 from 4 x 6: place (3, 5) covers rows 6 and 7, columns 10 and 11
    assert (r1, c1) == (0, 11)
    assert r2 in (2, 3)
    assert c2 == 0
    assert explanation(signed, window=(4.0, 6.0, 8.0, 12.0)).peaks()[1] == (4, 11)


def test_a_map_without_a_positive_value_has_no_peak(tmp_path):
    """Not the top left corner, where the maximum of nothing would be."""
    assert explanation().peaks()[1:] == [None, None]
    assert explanation(torch.full((2, 2, 2), torch.nan)).peaks() == [None, None]
    record = json.loads(explanation().save(tmp_path).read_text(encoding="utf-8"))
    assert record["peaks"][1:] == [None, None]
    assert record["peaks"][0] is not None


def test_the_overlay_has_a_panel_a_word():
    image = Image.new("RGB", (12, 8), "white")
    assert explanation().overlay(image).width > explanation(SIGNED[:1]).overlay(image).width
    assert explanation(SIGNED[:0]).overlay(image).width < explanation(SIGNED[:1]).overlay(image).width
    joint = explanation(SIGNED * torch.tensor([1.0, -0.1, 1.0]).view(3, 1, 1))
    assert np.any(np.asarray(joint.overlay(image, scale="joint")) != np.asarray(joint.overlay(image)))


def test_the_overlay_wants_the_original_picture():
    with pytest.raises(UserError, match="9 x 12"):
        explanation().overlay(Image.new("RGB", (12, 9)))


def test_saved_files_say_everything(tmp_path):
    image = Image.new("RGB", (12, 8), "white")
    original = explanation(torch.randn(3, 2, 2), id="vqa/what is left?.jpg", prompt="what is left?")
    strip = original.save(tmp_path / "new" / "folder", image)
    assert strip == tmp_path / "new" / "folder" / f"{file_name(original.id)}.png"
    with Image.open(strip) as picture:
        assert picture.size == original.overlay(image).size
    record = json.loads(strip.with_suffix(".json").read_text(encoding="utf-8"))
    assert np.array_equal(np.load(strip.with_name(record["maps"])), original.maps.numpy())
    for name in ("id", "prompt", "method", "layer"):
        assert record[name] == getattr(original, name)
    for name in ("words", "scores", "flags", "size", "window"):
        assert record[name] == list(getattr(original, name))
    assert record["peaks"] == [peak and list(peak) for peak in original.peaks()]


def test_without_a_picture_no_strip_is_saved(tmp_path):
    path = explanation().save(str(tmp_path))
    name = file_name("a picture")
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"{name}.json", f"{name}.npy"]
    assert path == tmp_path / f"{name}.json"


def test_what_is_not_finite_is_saved_as_json(tmp_path):
    scores = torch.tensor([torch.nan, -torch.inf, 1.5])
    path = explanation(SIGNED * torch.nan, scores).save(tmp_path)

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    record = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert record["scores"] == [None, None, 1.5]
    assert record["flags"] == ["non-finite"] * 3


def test_an_explanation_without_words_is_saved_and_drawn(tmp_path):
    (empty,) = explain(make("plain"), pictures(1), ragged((0,)))
    image = Image.new("RGB", (28, 20))
    record = json.loads(empty.save(tmp_path, image).with_suffix(".json").read_text(encoding="utf-8"))
    assert record["words"] == record["scores"] == record["peaks"] == []
    assert empty.upsample().shape == (0, 20, 28)


def test_bfloat16_models_can_be_saved(tmp_path):
    (found,) = explain(make("classifier", dtype=torch.bfloat16), pictures(1, dtype=torch.bfloat16), ragged((2,)))
    path = found.save(tmp_path)
    assert close(torch.from_numpy(np.load(path.with_suffix(".npy"))), found.maps)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=300))
def test_any_id_is_a_safe_file_name(identity):
    name = file_name(identity)
    assert name
    assert not set(name) & set('/\\:*?"<>| \n\t\0')
    assert not name.startswith((".", "_"))
    assert len(f"{name}.json".encode()) <= 255
    assert file_name(name) == name


@pytest.mark.parametrize(
    ("identity", "name"),
    [
        ("../../etc/passwd", r"etc_passwd-[0-9a-f]{8}"),
        ("COCO_val2014_000000000042.jpg", r"COCO_val2014_000000000042\.jpg"),
        ("..", r"picture-[0-9a-f]{8}"),
        ("", r"picture-[0-9a-f]{8}"),
        ("ein Bär?", r"ein_Bär-[0-9a-f]{8}"),
        ("犬" * 200, r"犬{30}-[0-9a-f]{8}"),
        ("bad\udcff", r"bad-[0-9a-f]{8}"),
    ],
)
def test_file_names_by_hand(identity, name):
    assert re.fullmatch(name, file_name(identity))


@settings(max_examples=100, deadline=None)
@given(st.text("ab/_ .", max_size=4), st.text("ab/_ .", max_size=4))
def test_two_ids_never_have_one_file_name(one, other):
    assert one == other or file_name(one) != file_name(other)


def test_ids_that_differ_in_a_stroke_are_saved_apart(tmp_path):
    for identity in ("a/b", "a_b"):
        explanation(id=identity).save(tmp_path)
    assert {json.loads(p.read_text(encoding="utf-8"))["id"] for p in tmp_path.glob("*.json")} == {"a/b", "a_b"}


@pytest.mark.parametrize(
    ("peak", "said"),
    [((0, 0), "top left"), ((4, 6), "centre"), ((7, 11), "bottom right"), ((7, 6), "bottom"), ((4, 0), "left")],
)
def test_where(peak, said):
    assert where(peak, (8, 12)) == said


def test_every_place_has_a_name():
    assert len({where((r, c), (30, 10)) for r in range(30) for c in range(10)}) == 9


def test_explanations_are_frozen_and_equal_to_themselves():
    one = explanation()
    with pytest.raises(FrozenInstanceError):
        one.id = "another"
    assert one == one
    assert one != explanation()
    assert len({one, one}) == 1


def with_heard():
    values = torch.tensor([[1.0, -2.0], [0.0, torch.nan], [0.5, 0.0]])
    shares, unseen = torch.tensor([0.25, torch.nan, 1.0]), torch.tensor([-1.0, -torch.inf, 0.5])
    return replace(explanation(), heard=("a", "dog"), heard_scores=values, image_shares=shares, without_picture=unseen)


def test_words_heard_are_saved(tmp_path):
    record = json.loads(with_heard().save(tmp_path).read_text(encoding="utf-8"))
    assert record["heard"] == ["a", "dog"]
    assert record["heard_scores"] == [[1, -2], [0, None], [0.5, 0]]
    assert record["image_shares"] == [0.25, None, 1]
    assert record["without_picture"] == [-1, None, 0.5]
    record = json.loads(explanation().save(tmp_path).read_text(encoding="utf-8"))
    assert not {"heard", "heard_scores", "image_shares", "without_picture"} & set(record)


def test_words_heard_are_drawn_under_the_panels():
    image = Image.new("RGB", (12, 8), "white")
    plain, more = explanation().overlay(image), with_heard().overlay(image)
    assert more.width == plain.width
    assert more.height > plain.height
    assert np.array_equal(np.asarray(more)[: plain.height], np.asarray(plain))
