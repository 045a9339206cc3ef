from dataclasses import replace

import pytest
import torch

from mmcam.errors import UserError
from mmcam.explanation import Explanation
from mmcam.methods.fuse import beside, fuse
from tests.reference import close, unchecked


def explanation(signed, layer):
    signed = torch.tensor(signed, dtype=torch.float64)
    words = ("dog", "cat")[: len(signed)]
    scores = torch.arange(1.0, 1 + len(signed)).double()
    return Explanation("x", "", words, scores, signed, (8, 8), (0.0, 0.0, 8.0, 8.0), "grad_cam", layer)


COARSE = explanation([[[4.0, -1.0], [0.0, 2.0]]], "late")  # 1, 0, 0, 0.5
FINE = explanation([[[0.0, 10.0], [5.0, 10.0]]], "early")  # 0, 1, 0.5, 1


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("mean", [[[0.5, 0.5], [0.25, 0.75]]]),
        ("max", [[[1, 1], [0.5, 1]]]),
        ("product", [[[0, 0], [0, 0.5]]]),
    ],
)
def test_fused_by_hand(how, expected):
    fused = fuse([COARSE, FINE], how)
    assert fused.signed.tolist() == expected
    assert (fused.layer, fused.method, fused.words) == (f"late {how} early", "grad_cam", ("dog",))


def test_maps_are_fused_at_the_finest_resolution():
    fine = explanation([[[1.0] * 4] * 4], "early")
    fused = fuse([COARSE, fine], "product")
    assert close(fused.signed, fuse([COARSE], "mean").signed.new_tensor(bilinear_to_four()))


def bilinear_to_four():
    """1, 0, 0, 0.5 at 4 x 4: the weights of `align_corners=False` are 1, 3/4, 1/4 and 0."""
    w = [(1, 0), (0.75, 0.25), (0.25, 0.75), (0, 1)]
    return [[[w[i][0] * w[j][0] * 1 + w[i][1] * w[j][1] * 0.5 for j in range(4)] for i in range(4)]]


def test_zero_and_broken_layers():
    zero, broken = (
        explanation([[[0.0, -1.0], [0.0, 0.0]]], "zero"),
        explanation([[[torch.nan, 1.0], [0.0, 0.0]]], "nan"),
    )
    assert fuse([FINE, zero], "max").signed.tolist() == [[[0, 1], [0.5, 1]]]
    assert fuse([FINE, zero], "product").flags == ("zero",)
    assert fuse([FINE, broken], "mean").flags == ("non-finite",)


def test_layers_side_by_side():
    two = [explanation([[[1.0, 2.0], [3.0, 4.0]], [[5.0, -6.0], [7.0, 8.0]]], layer) for layer in ("a", "b")]
    two[1] = replace(two[1], signed=-two[1].signed)
    found = beside(two)
    assert found.words == ("dog (a)", "dog (b)", "cat (a)", "cat (b)")
    assert found.scores.tolist() == [1, 1, 2, 2]
    assert torch.equal(found.signed[2], two[0].signed[1])
    assert torch.equal(found.signed[1], two[1].signed[0])
    by_method = beside([two[0], replace(two[0], method="hires_cam")])
    assert by_method.words[:2] == ("dog (grad_cam)", "dog (hires_cam)")


def test_what_cannot_be_fused():
    with pytest.raises(UserError, match="one picture and the same words"):
        fuse([COARSE, replace(FINE, words=("cat",))])
    with pytest.raises(UserError, match="got none"):
        fuse([])
    with unchecked(), pytest.raises(UserError, match="unknown way to fuse 'maximum'"):
        fuse([COARSE, FINE], "maximum")  # pyright: ignore[reportArgumentType]
