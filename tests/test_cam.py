import pytest
import torch

from mmcam.cam import FROM_GRADIENTS, FROM_WEIGHTS, activation_norm, grad_cam, hires_cam
from tests.reference import close, devices

A = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, -1.0], [1.0, 0.0]]]], dtype=torch.float64)  # (1, 2, 2, 2)


def random_case(b=2, r=3, k=5, h=4, w=6):
    gradients = torch.randn(b, r, k, h, w, dtype=torch.float64)
    return gradients, gradients.mean((-2, -1)), torch.randn(b, k, h, w, dtype=torch.float64)


def test_grad_cam_by_hand():
    weights = torch.tensor([[[1.0, 2.0], [-1.0, 0.5]]], dtype=torch.float64)
    assert grad_cam(weights, A).tolist() == [[[[1, 0], [5, 4]], [[-1, -2.5], [-2.5, -4]]]]


def test_hires_cam_by_hand():
    gradients = torch.tensor([[[[[1.0, 0.0], [0.0, -1.0]], [[2.0, 3.0], [4.0, 5.0]]]]], dtype=torch.float64)
    assert hires_cam(gradients, A).tolist() == [[[[1, -3], [4, -4]]]]


def test_activation_norm_by_hand():
    weights = torch.full((1, 2, 2), torch.nan, dtype=torch.float64)  # it looks at no score
    norms = torch.tensor([[1, 5**0.5], [10**0.5, 4]], dtype=torch.float64)
    assert close(activation_norm(weights, A), norms.expand(1, 2, 2, 2))


def test_each_map_belongs_to_its_picture_and_row():
    _, weights, a = random_case()
    maps = grad_cam(weights, a)
    for i in range(2):
        for r in range(3):
            assert close(maps[i, r], sum(weights[i, r, k] * a[i, k] for k in range(5)))


@pytest.mark.parametrize("method", [*FROM_WEIGHTS, *FROM_GRADIENTS])
def test_maps_have_the_layers_shape(method):
    gradients, weights, a = random_case(r=4)
    maps = FROM_WEIGHTS[method](weights, a) if method in FROM_WEIGHTS else FROM_GRADIENTS[method](gradients, a)
    assert maps.shape == (2, 4, 4, 6)


def test_maps_are_linear_in_the_score():
    # So the negated score gives the counterfactual, a difference of scores the contrast and a sum the sentence.
    (g, w, a), (h, v, _) = random_case(), random_case()
    assert close(grad_cam(2 * w - 3 * v, a), 2 * grad_cam(w, a) - 3 * grad_cam(v, a))
    assert close(hires_cam(2 * g - 3 * h, a), 2 * hires_cam(g, a) - 3 * hires_cam(h, a))
    assert torch.equal(grad_cam(-w, a), -grad_cam(w, a))
    assert close(grad_cam(w.sum(1, keepdim=True), a), grad_cam(w, a).sum(1, keepdim=True))


def test_hires_cam_is_grad_cam_where_the_gradient_is_the_same_everywhere():
    _, weights, a = random_case()
    assert close(hires_cam(weights[..., None, None].expand(-1, -1, -1, 4, 6), a), grad_cam(weights, a))


def test_the_two_differ_where_it_is_not():
    gradients, weights, a = random_case()
    assert not close(hires_cam(gradients, a), grad_cam(weights, a), rtol=0.1)


def test_only_the_place_of_an_activation_counts():
    # Grad-CAM knows of the gradient's mean alone: moving A moves the map, moving the gradient does nothing.
    gradients, weights, a = random_case()
    assert torch.equal(grad_cam(weights, a.roll(1, -1)), grad_cam(weights, a).roll(1, -1))
    assert close(grad_cam(gradients.roll(2, -1).mean((-2, -1)), a), grad_cam(weights, a))


@devices
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_maps_are_float32_whatever_comes_in(dtype, device):
    gradients, weights, a = (tensor.to(device, dtype) for tensor in random_case())
    for maps, exact in (
        (grad_cam(weights, a), grad_cam(weights.double(), a.double())),
        (hires_cam(gradients, a), hires_cam(gradients.double(), a.double())),
        (activation_norm(weights, a), activation_norm(weights.double(), a.double())),
    ):
        assert maps.dtype == torch.float32
        assert close(maps.double(), exact, rtol=1e-5)


@pytest.mark.parametrize("method", [*FROM_WEIGHTS, *FROM_GRADIENTS])
def test_no_rows_give_no_maps(method):
    gradients, weights, a = random_case(r=0)
    maps = FROM_WEIGHTS[method](weights, a) if method in FROM_WEIGHTS else FROM_GRADIENTS[method](gradients, a)
    assert maps.shape == (2, 0, 4, 6)
