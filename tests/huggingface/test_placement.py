"""Models that are spread over devices by hooks, offloaded, or quantised: right maps, or one line."""

from functools import partial, update_wrapper

import pytest
import torch
from torch import Tensor, nn

from captioning.hf import HFCaptioningTask
from classification.hf import HFClassificationTask
from mmcam import Sample, UserError, explain
from mmcam.huggingface.task import Generation
from mmcam.load import check_weights, weights_sha256
from tests.huggingface import tiny
from tests.huggingface.test_speaker import picture

pytestmark = [pytest.mark.filterwarnings(w) for w in tiny.UNAVOIDABLE]


class Hook:
    """Counts what accelerate's hooks do: they move inputs before a forward, and outputs after it."""

    def __init__(self):
        self.calls = 0


def hooked(module):
    """Put a hook on a module as `accelerate.hooks.add_hook_to_module` does: into its own `forward`."""

    def new_forward(module, *args, **kwargs):
        module._hf_hook.calls += 1
        return module._old_forward(*args, **kwargs)

    old = module.forward
    module._old_forward, module._hf_hook = old, Hook()
    module.forward = update_wrapper(partial(new_forward, module), old)


def hook_all(model):
    for module in model.modules():
        hooked(module)


def dispatch(model):
    accelerate = pytest.importorskip("accelerate")
    parts = dict.fromkeys([n for n, _ in (*model.named_children(), *model.named_parameters(recurse=False))], "cpu")
    accelerate.dispatch_model(model, parts, main_device="cpu", force_hooks=True)


def explained(built):
    """Task and maps of what the model says by itself."""
    if built.kind == "classes":
        task = HFClassificationTask(built.model, built.processor)
    else:
        task = HFCaptioningTask(built.model, built.processor, generation=Generation(length=3))
    asked = "" if built.kind in ("caption", "classes") else "what is left of the dog?"
    (found,) = explain(task, task.collate([Sample(picture(built.size, 0), "a", asked)]))
    return task, found


@pytest.mark.parametrize("name", ["blip", "vit-gpt2", "llava", "qwen2.5-vl", "blip-2-t5", "vit"])
@pytest.mark.parametrize("spread", [hook_all, dispatch])
@pytest.mark.filterwarnings("ignore:The following device_map keys do not match:UserWarning")  # BLIP-2's query_tokens
def test_a_dispatched_model_has_the_maps_of_a_plain_one(name, spread):
    built, plain = tiny.build(name), tiny.build(name)
    spread(built.model)
    before = {name: dict(module.__dict__) for name, module in built.model.named_modules()}
    (task, found), (_, wanted) = explained(built), explained(plain)
    assert found.words == wanted.words
    assert torch.equal(found.scores, wanted.scores)
    assert torch.equal(found.signed, wanted.signed)
    for name, module in built.model.named_modules():
        assert all(module.__dict__[key] is value for key, value in before[name].items())
    dtype = next(built.model.parameters()).dtype
    task.to(torch.float64)  # it stays as it was put
    assert next(built.model.parameters()).dtype == dtype


def test_the_tower_of_a_dispatched_model_works_once():
    built = tiny.build("llava")
    hook_all(built.model)
    task = HFCaptioningTask(built.model, built.processor, generation=Generation(length=3))
    batch = task.collate([Sample(picture(built.size, 0), "a", "what?")])
    explain(task, batch)
    assert built.model.model.vision_tower._hf_hook.calls == 1
    assert built.model.model.language_model._hf_hook.calls > 1


@pytest.mark.parametrize("name", ["llava", "vit"])
def test_an_offloaded_model_is_one_line(name):
    """Its weights are on the meta device, and come when a module runs."""
    built = tiny.build(name)
    part = next(module for module in built.model.modules() if isinstance(module, nn.Linear))
    part.weight = nn.Parameter(part.weight.to("meta"), requires_grad=False)
    with pytest.raises(UserError, match=r"in memory, but 1 of \d+ tensors are offloaded; choose a device_map"):
        explained(built)


class Packed(nn.Linear):
    """Like a layer of bitsandbytes: whole numbers in a row, and scales; a forward and a backward of its own."""

    def __init__(self, linear):
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        scale = linear.weight.detach().abs().amax(1, keepdim=True).clamp(min=1e-6) / 127
        whole = (linear.weight.detach() / scale).round().to(torch.int8)
        self.weight = nn.Parameter(whole.reshape(-1, 1), requires_grad=False)
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    @property
    def written_out(self):
        return self.weight.view(self.out_features, self.in_features) * self.scale

    def forward(self, x):
        return Product.apply(x, self.written_out) + (0 if self.bias is None else self.bias)


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return gradient @ ctx.saved_tensors[0], None


class Forward(Product):
    @staticmethod
    def backward(ctx, gradient: Tensor):
        raise NotImplementedError("no backward of int8")


class ForwardOnly(Packed):
    def forward(self, x):
        return Forward.apply(x, self.written_out) + (0 if self.bias is None else self.bias)


class Frozen(Packed):
    def forward(self, x):
        return super().forward(x).detach()


def packed(model, kind):
    """All linear layers by packed ones; the plain model gets the weights that these have."""
    for module in list(model.modules()):
        for key, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, key, kind(child))


def unpacked(model):
    for module in model.modules():
        if type(module) is nn.Linear:
            module.weight = nn.Parameter(Packed(module).written_out, requires_grad=False)


@pytest.mark.parametrize("name", ["llava", "vit-gpt2", "qwen2-vl"])
def test_layers_of_whole_numbers_have_the_maps_of_the_weights_that_they_stand_for(name):
    built, plain = tiny.build(name), tiny.build(name)
    packed(built.model, Packed)
    unpacked(plain.model)
    (task, found), (_, wanted) = explained(built), explained(plain)
    assert found.words == wanted.words
    torch.testing.assert_close(found.scores, wanted.scores)
    torch.testing.assert_close(found.signed, wanted.signed, atol=1e-6, rtol=1e-4)
    check_weights(task)
    assert len(weights_sha256(task)) == 64


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (ForwardOnly, "cannot be differentiated: no backward of int8; load it without quantisation"),
        (Frozen, "no answer of LlavaForConditionalGeneration depends on the picture"),
    ],
)
def test_layers_without_a_gradient_are_one_line(kind, message):
    built = tiny.build("llava")
    packed(built.model, kind)
    with pytest.raises(UserError, match=message) as caught:
        explained(built)
    assert "\n" not in str(caught.value)
