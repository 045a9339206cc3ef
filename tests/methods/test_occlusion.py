"""Occlusion by hand; against captum's it is held with its kin in tests/test_pixels.py."""

import pytest
import torch

from mmcam.errors import UserError
from mmcam.methods.occlusion import occlusion
from mmcam.task import Batch, Targets
from tests.reference import Small


def test_occlusion_by_hand():
    class Sum(Small):
        def trunk(self, batch):
            return batch.images

        def logits(self, activations, batch):
            return torch.stack([activations.sum((1, 2, 3)), -activations[:, 0, 0, 0]], 1)

    x = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]]).expand(1, 3, 2, 3)
    batch, targets = Batch(x.clone(), ("a",), ((2, 3),)), Targets.of([[0, 1]], [["sum", "corner"]])
    # Windows of two columns: the first holds 27, the second 54, times three channels; the middle column is in both.
    expected = [[[81.0, 121.5, 162.0]] * 2, [[-1.0, -0.5, 0.0]] * 2]
    assert occlusion(Sum(), batch, targets, 2, 1).tolist() == [expected]
    # A stride of two: the last window reaches over the edge.
    assert occlusion(Sum(), batch, targets, 2, 2)[0, 0].tolist() == [[81.0, 81.0, 108.0]] * 2
    # Covered by itself nothing changes.
    assert not occlusion(Sum(), batch, targets, 2, 1, x).any()
    with pytest.raises(UserError, match="stride up to its size"):
        occlusion(Sum(), batch, targets, 2, 3)
