"""The embedded CNN: what a place sees, and that Grad-CAM of it is CAM."""

import torch
from torch import nn

from mmcam.gradients import channel_weights, looped
from mmcam.networks.places import coordinates
from mmcam.networks.scene_cnn import SceneCNN
from mmcam.scenes.kinds import NAMES


def test_the_embedded_cnn_sees_33_pixels_on_a_grid_of_24():
    cnn, seen, stride = SceneCNN(8), 1, 1
    for layer in cnn.features:
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            side, step = (v[0] if isinstance(v, tuple) else v for v in (layer.kernel_size, layer.stride))
            seen, stride = seen + (side - 1) * stride, stride * step
    assert (seen, stride) == (33, 4)
    activations, memo = cnn.trunk(torch.randn(2, 3, *cnn.size))
    assert activations.shape == (2, 8, 24, 24)
    assert memo == {}
    assert cnn(torch.randn(2, 3, 48, 80)).shape == (2, len(NAMES))  # other sizes too


def test_grad_cam_of_the_embedded_classifier_is_cam():
    """α is the class's row over Z, whatever the picture, for log-mean-exp pooling as for the mean."""
    cnn = SceneCNN(5, classes=3).double().eval()
    activations = 3 * torch.randn(2, 5, 4, 6, dtype=torch.float64)
    rows = torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    scores, weights = channel_weights(lambda x, index: cnn.classify(x), activations, rows, looped)
    row = cnn.classifier.weight.detach().flatten(1)
    torch.testing.assert_close(weights, row.expand(2, 3, 5) / 24, rtol=1e-12, atol=1e-14)
    cam = torch.einsum("ck,bkhw->bchw", row, activations) + cnn.classifier.bias.detach()[:, None, None]
    torch.testing.assert_close(scores, (3 * cam).exp().mean((2, 3)).log() / 3, rtol=1e-12, atol=1e-12)
    assert (scores >= cam.mean((2, 3))).all()
    assert (scores <= cam.amax((2, 3))).all()


def test_coordinates_and_moments_by_hand():
    activations = torch.tensor([[[[1.0, 2, 3], [4, 5, 6]]]], dtype=torch.float64)
    ones, x, y = coordinates(activations)
    assert ones.tolist() == [[1, 1, 1], [1, 1, 1]]
    assert x.tolist() == [[-1, 0, 1], [-1, 0, 1]]
    assert y.tolist() == [[-1, -1, -1], [1, 1, 1]]
    moments = SceneCNN(1).double().vector(activations, {})
    torch.testing.assert_close(moments, torch.tensor([[21, 4, 9]], dtype=torch.float64) / 6)


def test_moments_stay_together_channel_by_channel():
    activations = torch.rand(2, 3, 4, 5)
    moments = SceneCNN(3).vector(activations, {}).unflatten(1, (3, 3))
    torch.testing.assert_close(moments[..., 0], activations.mean((2, 3)))
    torch.testing.assert_close(moments[:, 1, 1], (activations[:, 1] * torch.linspace(-1, 1, 5)).mean((1, 2)))


def test_first_moments_add_nothing_to_the_channel_weights():
    """A linear head on the moments has the α of one on the mean: x and y have mean zero."""
    cnn, head = SceneCNN(4).double(), nn.Linear(12, 3).double()
    activations = torch.randn(2, 4, 5, 7, dtype=torch.float64)
    rows = torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    _, weights = channel_weights(lambda a, index: head(cnn.vector(a, {})), activations, rows, looped)
    expected = head.weight.detach().unflatten(1, (4, 3))[..., 0] / 35
    torch.testing.assert_close(weights, expected.expand(2, 3, 4), rtol=1e-12, atol=1e-14)
