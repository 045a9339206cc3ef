import pytest
import torch

from mmcam.cam import (
    FROM_GRADIENTS,
    FROM_WEIGHTS,
    absolute_grad_cam,
    activation_norm,
    grad_cam,
    grad_cam_plus_plus,
    hires_cam,
    max_pooled_grad_cam,
    plus_plus_weights,
    xgrad_cam,
)
from mmcam.methods.eigen import eigen_cam, eigen_grad_cam, first_component
from mmcam.methods.elementwise import elementwise_grad_cam, gradient_norm, layer_cam
from tests.reference import close, devices

A = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, -1.0], [1.0, 0.0]]]], dtype=torch.float64)  # (1, 2, 2, 2)

G = torch.tensor([[[[[1.0, 0.0], [0.0, -1.0]], [[2.0, 3.0], [4.0, 5.0]]]]], dtype=torch.float64)  # (1, 1, 2, 2, 2)


def random_case(b=2, r=3, k=5, h=4, w=6):
    gradients = torch.randn(b, r, k, h, w, dtype=torch.float64)
    return gradients, gradients.mean((-2, -1)), torch.randn(b, k, h, w, dtype=torch.float64)


def test_grad_cam_by_hand():
    weights = torch.tensor([[[1.0, 2.0], [-1.0, 0.5]]], dtype=torch.float64)
    assert grad_cam(weights, A).tolist() == [[[[1, 0], [5, 4]], [[-1, -2.5], [-2.5, -4]]]]


def test_hires_cam_by_hand():
    assert hires_cam(G, A).tolist() == [[[[1, -3], [4, -4]]]]


def test_layer_cam_by_hand():
    # The last place of the first channel, -1 · 4, is left out.
    assert layer_cam(G, A).tolist() == [[[[1, -3], [4, 0]]]]


def test_elementwise_grad_cam_by_hand():
    # g ⊙ A = [[1, 0], [0, -4]] and [[0, -3], [4, 0]].
    assert elementwise_grad_cam(G, A).tolist() == [[[[1, 0], [4, 0]]]]


def test_gradient_norm_by_hand():
    assert close(gradient_norm(G, A), torch.tensor([[[[5.0, 9], [16, 26]]]], dtype=torch.float64).sqrt())


def test_max_pooled_and_absolute_grad_cam_by_hand():
    assert max_pooled_grad_cam(G, A).tolist() == [[[[1, -3], [8, 4]]]]  # α = 1 and 5
    assert absolute_grad_cam(G, A).tolist() == [[[[0.5, -2.5], [5, 2]]]]  # α = 0.5 and 3.5


def test_xgrad_cam_by_hand():
    # ΣA = 10 and 0: Σ g A = 1 - 4 = -3, so α = -0.3; the second channel's sum is zero, so it has no weight.
    assert close(xgrad_cam(G, A), -0.3 * A[:, None, 0])


def test_grad_cam_plus_plus_by_hand():
    # ΣA = 10 and 0. α ReLU(g) = 1 / (2 + 1 · 10) = 1/12 and 2/2, 3/2, 4/2, 5/2: w = 1/12 and 7.
    assert close(grad_cam_plus_plus(G, A), A[:, None, 0] / 12 + 7 * A[:, None, 1])


def test_eigen_cam_by_hand():
    # All places lie along (3, 4): v₁ = (3, 4) / 5.
    a = torch.tensor([[[[3.0, 0.0], [6.0, 9.0]], [[4.0, 0.0], [8.0, 12.0]]]], dtype=torch.float64)
    assert close(eigen_cam(a), torch.tensor([[[5.0, 0.0], [10.0, 15.0]]], dtype=torch.float64))
    assert close(eigen_cam(-a), torch.tensor([[[5.0, 0.0], [10.0, 15.0]]], dtype=torch.float64))


def test_eigen_grad_cam_by_hand():
    # g ⊙ A = 3, 0, 6, 9 and 4, 0, 8, 12; less their means 4.5 and 6: -1.5, -4.5, 1.5, 4.5 and -2, -6, 2, 6.
    a = torch.tensor([[[[3.0, 0.0], [6.0, 9.0]], [[4.0, 0.0], [8.0, 12.0]]]], dtype=torch.float64)
    expected = torch.tensor([[[[-2.5, -7.5], [2.5, 7.5]]]], dtype=torch.float64)
    assert close(eigen_grad_cam(torch.ones_like(a)[:, None], a), expected)
    assert close(eigen_grad_cam(-torch.ones_like(a)[:, None], a), -expected)


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


# Grad-CAM++


def plus_plus_loop(g, a):
    """The weights of Eq. 5 and 19 for one channel, place by place."""
    weight, places = 0.0, [(i, j) for i in range(a.shape[0]) for j in range(a.shape[1])]
    total = sum(float(a[p]) for p in places)
    for p in places:
        first = float(g[p])
        denominator = 2 * first**2 + total * first**3
        if denominator != 0:
            weight += first**2 / denominator * max(first, 0.0)
    return weight


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_grad_cam_plus_plus_is_the_papers_at_any_size_of_the_gradient(size):
    gradients, _, a = random_case()
    gradients, a = gradients * size, a.relu()
    weights = torch.tensor(
        [[[plus_plus_loop(gradients[i, r, k], a[i, k]) for k in range(5)] for r in range(3)] for i in range(2)],
        dtype=torch.float64,
    )
    assert close(grad_cam_plus_plus(gradients, a), grad_cam(weights, a))
    assert close(plus_plus_weights(gradients, gradients**2, gradients**3, a), weights)


def test_a_denominator_of_zero_adds_nothing():
    # ΣA = -2: 2 + 1 · (-2) = 0 at a gradient of 1.
    g, a = torch.ones(1, 1, 1, 2, 2, dtype=torch.float64), torch.full((1, 1, 2, 2), -0.5, dtype=torch.float64)
    assert grad_cam_plus_plus(g, a).tolist() == [[[[0, 0], [0, 0]]]]
    assert plus_plus_weights(g, g**2, g**3, a).tolist() == [[[0]]]


# Identities


def test_layer_cam_is_hires_cam_where_no_gradient_is_negative():
    gradients, _, a = random_case()
    assert close(layer_cam(gradients.abs(), a), hires_cam(gradients.abs(), a))
    assert not close(layer_cam(gradients, a), hires_cam(gradients, a), rtol=0.1)
    assert close(elementwise_grad_cam(gradients, a.abs()), layer_cam(gradients, a.abs()))


def test_the_weighted_methods_are_grad_cam_where_the_gradient_is_the_same_everywhere():
    _, weights, a = random_case()
    gradients = weights[..., None, None].expand(-1, -1, -1, 4, 6)
    assert close(xgrad_cam(gradients, a), grad_cam(weights, a))
    assert close(max_pooled_grad_cam(gradients, a), grad_cam(weights, a))
    assert close(absolute_grad_cam(gradients, a), grad_cam(weights.abs(), a))


def test_xgrad_cam_and_hires_cam_keep_the_sum():
    gradients, _, a = random_case()
    total = (gradients * a[:, None]).sum((2, 3, 4))
    assert close(xgrad_cam(gradients, a).sum((2, 3)), total)
    assert close(hires_cam(gradients, a).sum((2, 3)), total)


@pytest.mark.parametrize("method", FROM_GRADIENTS)
def test_no_gradient_gives_a_map_of_zeros_and_dead_channels_no_nan(method):
    gradients, _, a = random_case()
    assert not FROM_GRADIENTS[method](torch.zeros_like(gradients), a).any()
    a[:, 1] = 0
    assert FROM_GRADIENTS[method](gradients, a).isfinite().all()
    assert FROM_GRADIENTS[method](gradients, torch.zeros_like(a)).isfinite().all()


@pytest.mark.parametrize("method", FROM_GRADIENTS)
def test_nan_of_one_row_stays_in_it(method):
    gradients, _, a = random_case()
    expected = FROM_GRADIENTS[method](gradients, a)
    gradients[1, 2] = torch.nan
    maps = FROM_GRADIENTS[method](gradients, a)
    assert maps[1, 2].isnan().any()
    assert close(maps[0], expected[0])
    assert close(maps[1, :2], expected[1, :2])


@pytest.mark.parametrize("shape", [(9, 3, 4), (3, 5, 6)])  # fewer places than channels, and more
def test_the_first_component_is_that_of_the_singular_value_decomposition(shape):
    x = torch.randn(2, *shape, dtype=torch.float64)
    for one, map in zip(x, first_component(x), strict=True):
        _, _, v = torch.linalg.svd(one.flatten(1).T, full_matrices=False)
        expected = (one.flatten(1).T @ v[0]).unflatten(0, shape[1:])
        assert close(map * (map * expected).sum().sign(), expected)


def test_eigen_cam_of_what_is_not_negative_is_not_negative():
    assert (eigen_cam(torch.rand(3, 8, 4, 5)) >= 0).all()
    assert eigen_cam(torch.zeros(1, 3, 2, 2)).tolist() == [[[0, 0], [0, 0]]]


def test_eigen_grad_cam_lies_on_the_side_of_hires_cam():
    gradients, _, a = random_case()
    there, back = eigen_grad_cam(gradients, a), eigen_grad_cam(-gradients, a)
    assert close(there, -back)
    centred = hires_cam(gradients, a) - hires_cam(gradients, a).mean((2, 3), keepdim=True)
    assert ((there * centred).sum((2, 3)) > 0).all()


def test_without_relu_the_least_place_is_zero():
    activations = torch.tensor([[[[1.0, 2], [0, 4]]]])
    weights = torch.tensor([[[-1.0], [2.0]]])
    maps = FROM_WEIGHTS["unrectified_grad_cam"](weights, activations)
    assert maps.tolist() == [[[[3, 2], [4, 0]], [[2, 4], [0, 8]]]]
