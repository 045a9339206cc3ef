import subprocess
import sys
from threading import Event, Thread

import pytest
import torch
from torch import nn

from captioning.models import AttendAndTell, ShowAndTell
from mmcam.errors import UserError
from mmcam.networks.weightless import weightless
from vqa.models import NormProduct, StackedAttention


@pytest.mark.parametrize("name", ["scenes", "resnet18", "vgg11", "mobilenet_v3_small"])
def test_our_models_are_made_without_numbers_in_the_shapes_that_they_have(name):
    for make in (
        lambda: ShowAndTell(["cat"], name, 4, 4),
        lambda: AttendAndTell(["cat"], name, 4, 4),
        lambda: NormProduct(["cat"], ["yes"], name, 4, 4, 4),
        lambda: StackedAttention(["cat"], ["yes"], name, 4),
    ):
        state = weightless(make).state_dict()
        assert all(value.is_meta for value in state.values())
    if name == "scenes":
        shapes = {name: value.shape for name, value in make().state_dict().items()}
        assert {name: value.shape for name, value in state.items()} == shapes


def test_parts_are_counted_of_this_thread_alone():
    """A linear layer registers two parameters, and is registered itself."""
    made = Event()

    def beside():
        nn.ModuleList(nn.Linear(1, 1) for _ in range(20))
        made.set()

    def make():
        Thread(target=beside).start()
        assert made.wait(10)
        return nn.ModuleList(nn.Linear(1, 1) for _ in range(4))

    assert len(weightless(make, most=12)) == 4
    with pytest.raises(UserError, match="expected a model of 11 parts at most"):
        weightless(lambda: nn.ModuleList(nn.Linear(1, 1) for _ in range(4)), most=11)
    assert len(nn.ModuleList(nn.Linear(1, 1) for _ in range(20))) == 20  # nobody counts any more
    assert torch.empty(1).device.type == "cpu"


def test_nothing_is_drawn():
    """Neither torch's random numbers nor a second is spent on them."""
    before = torch.random.get_rng_state()
    names = ("normal_", "kaiming_normal_", "xavier_uniform_", "orthogonal_", "trunc_normal_")
    draws = [getattr(nn.init, name) for name in names]

    def make():
        module = nn.Linear(3, 4)
        for draw in draws:
            assert draw(module.weight) is module.weight
        assert draws[0](tensor=module.bias) is module.bias
        return module

    assert weightless(make).weight.is_meta
    assert torch.equal(torch.random.get_rng_state(), before)


def test_no_compiler_is_imported():
    program = "import sys, mmcam; mmcam.load_task('captioning/scenes'); print('torch._dynamo' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert said.stdout.strip() == "False"
