"""Classification: any layer of any classifier, named classes, the form of the input, photographs with real weights."""

import copy

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision import models
from torchvision.models import EfficientNet_B0_Weights, ResNet50_Weights

from classification import ClassificationTask
from classification.labels import imagenet_labels, read_labels
from classification.models import Form, classifier
from mmcam.config import instantiate, read_config
from mmcam.engine import explain
from mmcam.errors import UserError
from mmcam.gradients import looped
from mmcam.task import Sample, Task

LABELS = ["tabby", "tiger cat", "Cardigan", "cardigan", "tench, Tinca tinca", "crane", "crane, bird"]


class Net(nn.Module):
    """Global average pooling and a linear layer, after two convolutions."""

    def __init__(self, classes=7):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1, stride=2), nn.Conv2d(4, 6, 3, padding=1)
        self.fc = nn.Linear(6, classes)

    def forward(self, x):
        return self.fc(self.conv2(self.conv1(x).relu()).relu().mean((2, 3)))


def net(**options):
    return ClassificationTask(Net(), "conv2", labels=LABELS, size=(16, 24), **options)


def samples(*sizes):
    pixels = np.random.default_rng(0)
    return [
        Sample(Image.fromarray(pixels.integers(0, 255, (h, w, 3), dtype=np.uint8)), f"p{i}")
        for i, (h, w) in enumerate(sizes)
    ]


def two(task):
    return task.collate(samples((20, 30), (40, 25)))


def named(task, *texts):
    batch = two(task)
    return task.given(texts, batch)


def test_the_whole_picture_is_squashed_or_its_centre_cut_out():
    task = net()
    assert two(task).images.shape == (2, 3, 16, 24)
    assert two(task).windows == ((0, 0, 20, 30), (0, 0, 40, 25))
    batch = two(ClassificationTask(Net(), "conv2", size=16, resize=20))
    assert batch.images.shape == (2, 3, 16, 16)
    assert batch.windows == ((2, 7, 18, 23), (10, 2.5, 30, 22.5))


def test_the_likeliest_classes_are_explained():
    task = net(top_k=3)
    batch = two(task)
    logits = task.model(batch.images)
    for explanation, row in zip(explain(task, batch), logits, strict=True):
        best = row.argsort(descending=True)[:3].tolist()
        assert explanation.words == tuple(LABELS[number] for number in best)
        torch.testing.assert_close(explanation.scores, row[best].detach())
    fixed = ClassificationTask(task.model, "conv2", ["tabby", "1"], labels=LABELS, size=(16, 24))
    assert explain(fixed, batch)[1].words == ("tabby", "tiger cat")


def test_classes_by_name_and_number():
    task = net()
    targets = named(task, "Tiger_Cat, 0", "tench, Tinca tinca,  TABBY")
    assert targets.words == (("tiger cat", "tabby"), ("tench, Tinca tinca", "tabby"))
    assert targets.ids.tolist() == [[1, 0], [4, 0]]
    assert named(task, "tinca tinca", "Cardigan, cardigan, bird").ids.tolist() == [[4, 0, 0], [2, 3, 6]]


def test_contrast_is_a_difference_of_logits():
    task = net()
    batch = two(task)
    targets = task.given(["tabby rather than tiger cat, 4", "tench, Tinca tinca rather than crane"], batch)
    assert targets.words == (
        ("tabby rather than tiger cat", "tench, Tinca tinca"),
        ("tench, Tinca tinca rather than crane",),
    )
    plain = explain(task, batch, task.given(["0, 1, 4", "4, 5"], batch))
    first, second = explain(task, batch, targets)
    torch.testing.assert_close(first.scores, torch.stack([plain[0].scores[0] - plain[0].scores[1], plain[0].scores[2]]))
    torch.testing.assert_close(first.signed[0], plain[0].signed[0] - plain[0].signed[1])
    torch.testing.assert_close(second.signed[0], plain[1].signed[0] - plain[1].signed[1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tigercat", "unknown class 'tigercat': did you mean 'tiger cat'"),
        ("tabby rather than dog", "unknown class 'dog'"),
        ("CARDIGAN", "class 'CARDIGAN' may be 2 or 3; give the number"),
        ("7", "unknown class '7': the model's classes are 0 to 6"),
        ("", "got an empty one"),
        ("tabby,", "got an empty one"),
        ("tabby rather than ", "got an empty one"),
        ("tabby rather than 1 rather than 2", "unknown class"),
    ],
)
def test_classes_that_are_not_known(text, message):
    with pytest.raises(UserError, match=message):
        named(net(), text, "tabby")


def test_a_model_without_labels_has_numbers():
    task = ClassificationTask(Net(), "conv2", size=16)
    assert named(task, "6", "0, 1 rather than 2").words == (("6",), ("0", "1 rather than 2"))
    with pytest.raises(UserError, match="classes are 0 to 6; give labels"):
        named(task, "7", "0")
    with pytest.raises(UserError, match="expected classes for 2 pictures, got them for 1"):
        named(task, "0")


def test_grad_cam_of_pooling_and_a_linear_layer_is_cam():
    task = ClassificationTask(Net().double(), "conv2", size=(16, 24), crop=False)
    batch = two(task)
    pixels = batch.images.double()
    a = task.model.conv2(task.model.conv1(pixels).relu())
    slope = task.model.fc.weight[:, :, None, None] * (a > 0)[:, None] / a[0, 0].numel()  # (b, c, k, h, w)
    expected = (slope.mean((3, 4), keepdim=True) * a[:, None]).sum(2)
    for explanation, row in zip(explain(task, batch, task.given(["0,1,2,3,4,5,6"] * 2, batch)), expected, strict=True):
        torch.testing.assert_close(explanation.signed.double(), row.detach())


def reference(model, layer, x, number, spread=lambda a: a):
    """Grad-CAM of one class by a hook on the whole model."""
    kept = []
    handle = model.get_submodule(layer).register_forward_hook(
        lambda module, args, output: (kept.append(output), output.clone())[1]
    )
    y = model(x)[:, number].sum()
    handle.remove()
    weights = spread(torch.autograd.grad(y, kept[0])[0]).mean((2, 3), keepdim=True)
    return (weights * spread(kept[0])).sum(1).detach()


def vit():
    return timm.create_model("vit_tiny_patch16_224", img_size=(64, 96), num_classes=7)


@pytest.mark.parametrize(
    ("make", "layer", "spread"),
    [
        (lambda: torchvision.models.resnet18(num_classes=7), "layer3.0.bn2", lambda a: a),
        (lambda: torchvision.models.resnet18(num_classes=7), None, lambda a: a),
        (lambda: torchvision.models.densenet121(num_classes=7), None, lambda a: a),
        (lambda: torchvision.models.swin_t(num_classes=7), "features.6", lambda a: a.movedim(3, 1)),
        (lambda: timm.create_model("convnext_atto", num_classes=7), "stages.2", lambda a: a),
        (vit, None, lambda a: a[:, 1:].movedim(2, 1).unflatten(2, (4, 6))),
        (vit, "blocks.3.attn", lambda a: a[:, 1:].movedim(2, 1).unflatten(2, (4, 6))),
    ],
)
def test_any_layer_on_a_picture_that_is_not_square(make, layer, spread):
    model = make().double().eval()
    task = ClassificationTask(model, layer, size=(64, 96))
    batch = two(task)
    explanations = explain(task, batch, task.given(["3, 5"] * 2, batch))
    for row, number in enumerate((3, 5)):
        expected = reference(model, task.layer, batch.images.double(), number, spread)
        torch.testing.assert_close(torch.stack([e.signed[row] for e in explanations]).double(), expected)
    assert all(e.layer == task.layer for e in explanations)


def test_every_place_counts_alike_for_hires_cam_where_layers_overwrite():
    model = torchvision.models.densenet121(num_classes=7).double().eval()
    task = ClassificationTask(model, size=64)
    batch = two(task)
    kept = []
    handle = model.features.register_forward_hook(lambda module, args, output: (kept.append(output), output.clone())[1])
    y = model(batch.images.double())[:, 2].sum()
    handle.remove()
    expected = (torch.autograd.grad(y, kept[0])[0] * kept[0]).sum(1).detach()
    found = explain(task, batch, task.given(["2"] * 2, batch), "hires_cam")
    torch.testing.assert_close(torch.stack([e.signed[0] for e in found]).double(), expected)


def maps(task, batch):
    return torch.stack([e.signed for e in explain(task, batch, task.given(["0, 3, 6"] * len(batch), batch))])


@pytest.mark.parametrize("name", ["resnet18", "vit"])
def test_storage_and_precision(name):
    model = (torchvision.models.resnet18(num_classes=7) if name == "resnet18" else vit()).eval()
    task = ClassificationTask(model, size=(64, 96))
    batch = two(task)
    expected = maps(task, batch)
    frozen = copy.deepcopy(task).requires_grad_(False)
    assert torch.equal(maps(frozen, batch), expected)
    strided = copy.deepcopy(task).to(memory_format=torch.channels_last)
    torch.testing.assert_close(maps(strided, batch), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    half = maps(copy.deepcopy(task).to(torch.bfloat16), batch)
    assert half.dtype == torch.float32
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        cast = maps(task, batch)
    for rough in (half, cast):
        similar = torch.nn.functional.cosine_similarity(rough.flatten(2), expected.flatten(2), dim=2)
        assert float(similar.min()) > 0.97


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_found(fails):
    model = torchvision.models.resnet18(num_classes=7).train()
    model.layer2.eval()
    task = ClassificationTask(model, size=64)
    modes = [module.training for module in model.modules()]
    numbers = copy.deepcopy(model.state_dict())
    batch = two(task)
    if fails:
        with pytest.raises(UserError):
            explain(task, batch, method="grad_camm")
        model.fc = nn.Linear(3, 7)
        with pytest.raises(RuntimeError):
            explain(task, batch)
    else:
        explain(task, batch)
    assert modes == [module.training for module in model.modules()]
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(x, numbers[name]) for name, x in model.state_dict().items() if not (fails and "fc" in name))


def test_a_layer_that_the_score_does_not_depend_on_has_maps_of_zeros():
    task = ClassificationTask(vit(), "blocks.11", size=(64, 96))  # read at the class token, which is no place
    assert {flag for e in explain(task, two(task)) for flag in e.flags} == {"zero"}


def test_all_classes_at_once_are_each_alone():
    task = ClassificationTask(torchvision.models.vgg11(num_classes=7, init_weights=False).eval(), size=64)
    batch = two(task)
    together = maps(task, batch)

    class Looped(ClassificationTask):
        vjp = staticmethod(looped)

    torch.testing.assert_close(maps(Looped(task.model, task.layer, size=64), batch), together, rtol=1e-4, atol=1e-7)


def test_outputs_other_than_logits_are_refused():
    class Maps(Net):
        def forward(self, x):
            return self.conv2(self.conv1(x))

    task = ClassificationTask(Maps(), "conv1", size=16)
    with pytest.raises(UserError, match=r"expected a classifier, .* Maps gives \(2, 6, 8, 8\)"):
        explain(task, two(task))
    task = ClassificationTask(Net(3), "conv2", labels=LABELS, size=16)
    with pytest.raises(UserError, match="expected 3 labels, as many as the model has classes; got 7"):
        explain(task, two(task))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "resnet51"}, "unknown model .* 'resnet51': did you mean 'resnet50'"),
        ({"model": "timm/eva02_tiny_patch14_224"}, "is an encoder and knows no classes; give num_classes="),
        ({"model": "timm/vit_tinny_patch16_224"}, "unknown timm model 'vit_tinny_patch16_224'"),
        ({"model": "resnet18", "weights": "IMAGENET"}, "unknown weights of resnet18"),
        ({"model": "resnet18", "weights": "nothing.pth"}, "'nothing.pth': expected a state dict of ResNet"),
        ({"model": "resnet18", "layer": "layer5"}, "unknown layer 'layer5': did you mean 'layer4'"),
        ({"model": "resnet18", "labels": "nothing.txt"}, "'nothing.txt', which is no file"),
        ({"model": Net(), "weights": "DEFAULT"}, "weights by name and num_classes go with a model's name"),
        ({"model": Net(), "layer": "conv2", "size": (16, 24), "crop": True}, "expected a square size"),
        ({"model": Net(), "layer": "conv2", "crop": False, "resize": 20}, "resize is the short side"),
        ({"model": Net(), "layer": "conv2", "top_k": 0}, "expected top_k of at least 1"),
        ({"model": "efficientnet_lite0", "weights": "V2"}, "efficientnet_lite0 has weights DEFAULT"),
        ({"model": "resnet18", "size": 0}, "expected a size of 1 x 1 at least, got 0 x 0"),
        ({"model": Net(), "layer": "conv2", "size": (16, -3)}, "expected a size of 1 x 1 at least, got 16 x -3"),
        ({"model": "resnet18", "num_classes": -1}, "expected num_classes of 1 at least, got -1"),
        ({"model": "vit_b_16", "size": (64, 96)}, "expected a square size for vit_b_16, got 64 x 96"),
        ({"model": "vit_b_16", "size": 60}, "Input shape indivisible by patch size!; give another size"),
    ],
)
def test_arguments_that_are_wrong(arguments, message):
    with pytest.raises(UserError, match=message):
        ClassificationTask(**arguments)


def test_broken_weights_are_refused():
    model = Net()
    model.conv1.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(UserError, match="finite weights, got NaN"):
        ClassificationTask(model)


@pytest.mark.parametrize("kind", ["plain.safetensors", "plain.pth", "checkpoint.pt"])
def test_weights_out_of_a_file(tmp_path, kind):
    model, path = Net(), tmp_path / kind
    state = {f"module.{name}": x for name, x in model.state_dict().items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if kind.startswith("checkpoint") else state, path)
    task = ClassificationTask(Net(), "conv2", weights=str(path))
    assert all(torch.equal(x, model.state_dict()[name]) for name, x in task.model.state_dict().items())
    with pytest.raises(UserError, match=r"expected a state dict of ResNet; .*Missing key"):
        ClassificationTask("resnet18", "layer4", weights=str(path))


def test_a_pickle_with_code_is_not_executed(tmp_path):
    torch.save({"fc.weight": print}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match="expected a state dict of Net"):
        ClassificationTask(Net(), "conv2", weights=str(tmp_path / "bad.pth"))


def test_the_form_of_the_input():
    own = Net()
    own.size, own.mean, own.std = (32, 48), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    assert classifier(own).form == Form((32, 48), None, (0.5,) * 3, (0.25,) * 3)
    own.mean = torch.zeros(1, 3, 1, 1)  # something else of the same name
    assert classifier(own).form == Form()
    assert ClassificationTask(Net(), "conv2", size=112).form == Form((112, 112), 128)
    assert ClassificationTask(Net(), "conv2", size=(64, 96)).form == Form((64, 96), None)
    assert ClassificationTask(Net(), "conv2", crop=False, mean=(0.0, 0.0, 0.0)).form == Form(
        (224, 224), None, (0.0,) * 3
    )
    found = classifier("timm/vit_tiny_patch16_224", size=(32, 32), num_classes=4)
    assert found.form == Form((32, 32), int(32 / 0.9), (0.5,) * 3, (0.5,) * 3, "bicubic")
    assert found.labels is None
    assert not found.model.training


@pytest.mark.parametrize("weights", [ResNet50_Weights.IMAGENET1K_V2, EfficientNet_B0_Weights.IMAGENET1K_V1])
@pytest.mark.parametrize("size", [(300, 400), (150, 230)])
def test_pictures_are_prepared_as_the_weights_of_torchvision_say(monkeypatch, weights, size):
    """Bilinear for ResNet, bicubic for EfficientNet: the very pixels that torchvision's own transforms give."""
    monkeypatch.setattr(models, "get_model", lambda name, **options: Net())
    name = type(weights).__name__.lower().removesuffix("_weights")
    task = ClassificationTask(name, "conv2", weights=weights.name, labels=LABELS)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    (ours,) = task.collate([Sample(picture, "noise")]).images
    torch.testing.assert_close(ours, weights.transforms()(picture))


def test_the_interpolation_can_be_chosen():
    assert ClassificationTask(Net(), "conv2").form.interpolation == "bilinear"
    assert ClassificationTask(Net(), "conv2", interpolation="bicubic").form.interpolation == "bicubic"
    assert classifier("efficientnet_lite0").form.interpolation == "bicubic"


def test_labels_out_of_a_file(tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog\n\n", encoding="utf-8")
    assert read_labels(str(tmp_path / "names.txt")) == ("cat", "dog")
    assert read_labels("imagenet")[281:283] == ("tabby", "tiger cat")
    assert len(imagenet_labels()) == 1000
    (tmp_path / "names.bin").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match=r"expected labels as text in UTF-8, one a line; .*bin' is something else"):
        read_labels(str(tmp_path / "names.bin"))


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet50", "vgg16", "vit_b_16"])
def test_shipped_configurations_name_models_and_layers_that_exist(name):
    arguments = read_config(f"classification/{name}")["task"]["init_args"]
    assert arguments["weights"] == "DEFAULT"
    with torch.device("meta"):
        model = classifier(arguments["model"]).model
    assert arguments["layer"] in dict(model.named_modules())


def test_photographs_with_real_weights():
    data = pytest.importorskip("skimage.data")
    task = instantiate("classification/efficientnet_lite0", "task", Task, {"top_k": 2})
    pictures = {name: Image.fromarray(getattr(data, name)()) for name in ("chelsea", "coffee", "rocket")}
    batch = task.collate([Sample(picture, name) for name, picture in pictures.items()])
    cat, coffee, rocket = explain(task, batch)
    assert set(cat.words) == {"tiger cat", "Egyptian cat"}
    assert coffee.words[0] == "espresso"
    assert rocket.words == ("missile", "projectile")
    assert not {*cat.flags, *coffee.flags, *rocket.flags} - {""}
    height, width = coffee.size
    row, column = coffee.peaks()[0]  # the cup is in the upper half, in the middle
    assert row < height / 2
    assert width / 3 < column < width * 2 / 3
    row, column = rocket.peaks()[0]  # it stands upright in the middle
    assert abs(column - rocket.size[1] / 2) < 60
