import pytest
import torch
from torch import nn

from mmcam.errors import UserError
from mmcam.importing.weights import built, group, load_weights, renamed, shape_of, state_dict_in, weights_of


def test_expanded_tensors_are_written_out():
    tree = {"a.weight": torch.ones(1).expand(3, 4), "module.b": torch.ones(2, 3).T, "bn.num_batches_tracked": 0}
    weights = weights_of(tree, "file")
    assert list(weights) == ["a.weight", "b"]
    assert all(value.is_contiguous() for value in weights.values())
    weights["a.weight"][0, 0] = 5
    assert weights["a.weight"].sum() == 16


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([1, 2], "expected a state dict of named tensors, got a list"),
        ({}, "got a dictionary with nothing in it"),
        ({"a": 3}, "got a int at 'a'"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "complex64 at 'a'"),
        ({"a": torch.eye(2).to_sparse()}, "sparse_coo"),
        ({"a": torch.tensor([1.0, torch.nan])}, "got NaN or infinity at 'a'"),
        ({"a": torch.ones(1).expand(2**20, 2**20)}, "expected tensors of 1 GiB at most, got 4.1e\\+03 GiB"),
    ],
)
def test_what_are_no_weights(tree, message):
    with pytest.raises(UserError, match=message):
        weights_of(tree, "file")


def test_what_does_not_fit_is_named():
    weights = {"weight": torch.ones(2, 4), "extra": torch.ones(1)}
    message = r"file: expected the weights of Linear, but it lacks bias; it has also extra; it has weight \(2, 4\)"
    with pytest.raises(UserError, match=rf"{message} instead of \(2, 3\)\. Another model\?"):
        load_weights(nn.Linear(3, 2), weights, "file", "Another model?")
    with pytest.raises(UserError, match="expected a tensor 'bias', got weight, extra"):
        shape_of(weights, "bias", 1, "file")
    with pytest.raises(UserError, match=r"expected 'weight' with 3 axes, got the shape \(2, 4\)"):
        shape_of(weights, "weight", 3, "file")


def test_batch_norms_of_old_files_count_nothing():
    norm = nn.BatchNorm1d(2)
    load_weights(norm, {name: torch.full((2,), 3.0) for name in ("weight", "bias", "running_mean", "running_var")}, "f")
    assert norm.running_var.tolist() == [3, 3]


@pytest.mark.parametrize(("name", "shape"), [("weight", (0, 3)), ("weight", (10**9, 0))])
def test_a_tensor_without_numbers_says_no_size(name, shape):
    with pytest.raises(UserError, match=r"expected numbers at 'weight', got none, the shape"):
        shape_of({name: torch.empty(shape)}, name, 2, "file")


def test_what_a_file_asks_for_is_not_made_before_it_fits():
    """A thousand numbers may say that a layer has 4 TB."""
    linear = built(lambda: nn.Linear(10**6, 10**6))
    with pytest.raises(UserError, match=r"it has weight \(10, 100\) instead of \(1000000, 1000000\)"):
        load_weights(linear, {"weight": torch.ones(10, 100), "bias": torch.ones(10)}, "file")
    with pytest.raises(UserError, match="parts at most"):
        built(lambda: nn.ModuleList(nn.Identity() for _ in range(10**9)))


def test_sizes_that_no_layer_can_have_are_one_line():
    with pytest.raises(UserError, match=r"a model that cannot be: .*divisible by groups") as caught:
        built(lambda: nn.Conv2d(3, 4, 3, groups=2))
    assert "\n" not in str(caught.value)


def test_a_module_without_room_gets_the_files_numbers_and_types():
    """LSTMs keep a second list of their weights, and batch norms a count that old files lack."""
    torch.manual_seed(0)
    wanted = nn.ModuleDict({"lstm": nn.LSTM(3, 4), "norm": nn.BatchNorm1d(4)}).eval()
    wanted["norm"].running_var.fill_(2)
    weights = {name: value for name, value in wanted.state_dict().items() if not name.endswith("tracked")}
    weights["norm.bias"] = weights["norm.bias"].long()
    found = built(lambda: nn.ModuleDict({"lstm": nn.LSTM(3, 4), "norm": nn.BatchNorm1d(4)})).eval()
    load_weights(found, weights, "file")
    x = torch.rand(2, 5, 3)
    ours, theirs = (model["norm"](model["lstm"](x)[0][-1]) for model in (found, wanted))
    assert torch.equal(ours, theirs)
    assert found["norm"].bias.dtype == torch.float32
    assert found["norm"].num_batches_tracked == 0
    assert all(parameter.requires_grad for parameter in found.parameters())


def test_beginnings_of_names_are_whole_parts_and_the_longest_counts():
    weights = dict.fromkeys(["fc.weight", "fc1.weight", "core.i2h.bias", "core.x"], torch.ones(1))
    table = {"fc": "readout", "core": "cell", "core.i2h": "gates"}
    assert list(renamed(weights, table)) == ["readout.weight", "fc1.weight", "gates.bias", "cell.x"]
    assert list(group(weights, "core.")) == ["i2h.bias", "x"]
    assert list(state_dict_in({"state_dict": weights, "epoch": 3}, "file")) == list(weights)
