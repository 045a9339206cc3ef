"""Hugging Face's image classifiers: the right layer, tokens before the grid, maps where the picture changes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from classification.hf import HFClassificationTask
from mmcam import explain
from mmcam.config import instantiate
from mmcam.errors import UserError
from mmcam.huggingface.task import Source
from mmcam.task import Sample, Task
from tests.huggingface import tiny

transformers = pytest.importorskip("transformers")

# The layer by hand: of class tokens the norm before the last attention, of means the last map.
LAYERS = {
    "vit": ("vit.layers.1.layernorm_before", 1),
    "deit": ("deit.layers.1.layernorm_before", 2),
    "swin": ("swin.layernorm", None),
    "convnext": ("convnext.encoder", None),
    "resnet": ("resnet.encoder", None),
    "dinov2": ("dinov2", 1),
}
# The whole (30, 44); 24 out of 28 squashed; 32 out of 36 x 52 (36 * 44 / 30 = 52.8), and 24 out of 28 x 41.
CROPPED = (30 * 2 / 36, 44 * 10 / 52, 30 * 34 / 36, 44 * 42 / 52)
WINDOWS = {
    "vit": (0, 0, 30, 44),
    "deit": (30 * 2 / 28, 44 * 2 / 28, 30 * 26 / 28, 44 * 26 / 28),
    "swin": (0, 0, 30, 44),
    "convnext": CROPPED,
    "resnet": CROPPED,
    "dinov2": (30 * 2 / 28, 44 * 8 / 41, 30 * 26 / 28, 44 * 32 / 41),
}


def picture(size=(30, 44), seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8))


@pytest.fixture(scope="module", params=LAYERS)
def case(request):
    name = request.param
    made = tiny.build(name)
    return name, made, HFClassificationTask(made.model, made.processor, top_k=2)


def test_the_layer_is_the_last_one_that_the_class_is_read_from(case):
    name, _, task = case
    assert (task.layer, task.prefix) == LAYERS[name]


def test_the_window_is_what_the_processor_shows(case):
    name, _, task = case
    batch = task.collate([Sample(picture(), "a"), Sample(picture((30, 44), 1), "b")])
    assert batch.windows[0] == batch.windows[1] == pytest.approx(WINDOWS[name], abs=0.05)


def test_classes_are_those_of_the_model_on_its_own_processors_input(case):
    _, made, task = case
    image = picture(seed=3)
    with torch.no_grad():
        logits = made.model(made.processor(image)["pixel_values"]).logits[0]
    (e,) = explain(task, task.collate([Sample(image, "a")]))
    best = logits.topk(2).indices.tolist()
    assert e.words == tuple(made.model.config.id2label[number] for number in best)
    torch.testing.assert_close(e.scores, logits[best], atol=1e-5, rtol=1e-5)


def test_maps_are_those_of_hooks_on_the_whole_model(case):
    """Grad-CAM by hand: activations and their gradient caught in the uncut model, tokens laid out row by row."""
    name, made, task = case
    batch = task.collate([Sample(picture(seed=4), "a")])
    (e,) = explain(task, batch)
    kept = []

    def keep(module, arguments, output):
        first = output if isinstance(output, torch.Tensor) else next(x for x in output.values() if x is not None)
        first.retain_grad()
        kept.append(first)

    hook = made.model.get_submodule(task.layer).register_forward_hook(keep)
    logits = made.model(batch.images.clone().requires_grad_()).logits
    hook.remove()
    logits[0].max().backward()
    maps = []
    for x in (kept[0].detach(), kept[0].grad):
        tokens = x[:, LAYERS[name][1] or 0 :].transpose(1, 2).unflatten(2, (4, 4)) if x.ndim == 3 else x
        maps.append(tokens)
    made.model.zero_grad()
    (wanted,) = (maps[1].mean((2, 3), keepdim=True) * maps[0]).sum(1)
    torch.testing.assert_close(e.signed[0], wanted, atol=1e-5 * float(wanted.abs().max()), rtol=1e-4)


def test_what_changes_in_the_picture_moves_the_map_there(case):
    """A place's own part of the picture is painted over: among the tokens that move, its own moves most.

    Of ResNet, whose 3 x 3 and 7 x 7 convolutions overlap, a neighbour may.
    """
    name, _, task = case
    plain = picture(seed=5)
    batch = task.collate([Sample(plain, "a")])
    top, left, bottom, right = batch.windows[0]
    # Attention before the layer mixes all places; the first layer's norm has each token's own patch only.
    early = {"vit": "vit.layers.0.layernorm_before", "deit": "deit.layers.0.layernorm_before"}
    early |= {"dinov2": "dinov2.encoder.layer.0.norm1"}
    layer = next((x for x in (early.get(name),) if x and x in dict(task.model.named_modules())), task.layer)
    cut = HFClassificationTask(task.model, task.processor, layer=layer)
    before = cut.trunk(batch)
    hits = 0
    for row in range(4):
        for column in range(4):
            box = [
                left + (right - left) * column / 4,
                top + (bottom - top) * row / 4,
                left + (right - left) * (column + 1) / 4,
                top + (bottom - top) * (row + 1) / 4,
            ]
            painted = plain.copy()
            painted.paste((255, 0, 0), tuple(round(x) for x in box))
            moved = (cut.trunk(cut.collate([Sample(painted, "b")])) - before).norm(dim=1)[0]
            assert moved.shape == (4, 4)
            found = divmod(int(moved.argmax()), 4)
            hits += max(abs(found[0] - row), abs(found[1] - column)) <= (name == "resnet")
    assert hits >= 15


def test_registers_come_before_the_grid():
    """4 registers and a class token before 2 x 2 places: 9 tokens, which would also fill 3 x 3."""
    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=12, patch_size=6, num_labels=3
    )
    model = transformers.Dinov2WithRegistersForImageClassification(config)
    processor = transformers.ViTImageProcessor(size={"height": 12, "width": 12})
    task = HFClassificationTask(model, processor)
    assert task.prefix == 5
    (e,) = explain(task, task.collate([Sample(picture(), "a")]))
    assert e.signed.shape == (1, 2, 2)


def test_a_pooled_vector_is_no_grid():
    """Swin's pooler gives (1, 16, 1): 16 channels, as many as there are places."""
    made = tiny.build("swin")
    pooled = made.model.swin(torch.zeros(1, 3, 32, 32)).pooler_output
    assert pooled.shape == (1, 16)
    assert HFClassificationTask(made.model, made.processor).layer != "swin.pooler"


def test_a_folder_gives_what_the_model_gives(tmp_path):
    made = tiny.save("vit", tmp_path)
    config = {"task": {"class_path": "classification.hf.HFClassificationTask", "init_args": {"model": str(tmp_path)}}}
    task = instantiate(config, "task", Task)
    sample = [Sample(picture(), "a")]
    (e,) = explain(task, task.collate(sample))
    own = HFClassificationTask(made.model, made.processor)
    (wanted,) = explain(own, own.collate(sample))
    assert e.words == wanted.words
    torch.testing.assert_close(e.signed, wanted.signed)


def test_bfloat16():
    made = tiny.build("vit")
    task = HFClassificationTask(made.model.to(torch.bfloat16), made.processor)
    (e,) = explain(task, task.collate([Sample(picture(), "a")]))
    assert e.flags == ("",)
    assert e.signed.isfinite().all()


def test_a_foil_and_a_class_that_is_not_there(case):
    _, _, task = case
    batch = task.collate([Sample(picture(), "a")])
    plain = explain(task, batch, task.given(["cat, dog"], batch))[0]
    contrast = explain(task, batch, task.given(["cat rather than dog"], batch))[0]
    torch.testing.assert_close(contrast.scores[0], plain.scores[0] - plain.scores[1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(contrast.signed[0], plain.signed[0] - plain.signed[1], atol=1e-4, rtol=1e-3)
    with pytest.raises(UserError, match="'ct': did you mean 'cat'"):
        task.given(["ct"], batch)


def test_of_labels_that_may_all_be_true_each_has_its_own_probability():
    made = tiny.build("vit")
    made.model.config.problem_type = "multi_label_classification"
    task = HFClassificationTask(made.model, made.processor)
    batch = task.collate([Sample(picture(), "a")])
    targets = task.given(["cat, dog"], batch)
    activations = task.trunk(batch)
    y = task.scores(activations, batch, targets)
    torch.testing.assert_close(task.probabilities(activations, batch, targets), 1 / (1 + (-y).exp()))


def test_a_backbone_without_a_head_is_refused(tmp_path):
    tiny.save("vit", tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({k: x for k, x in load_file(file).items() if "classifier" not in k}, file, {"format": "pt"})
    with pytest.raises(
        UserError, match=r"without a trained head: classifier\.bias, classifier\.weight would be random"
    ):
        HFClassificationTask(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "source", "message"),
    [
        ({"model_type": "blip"}, None, "expected an image classifier, got one of kind 'blip'; for captions"),
        ({"auto_map": {"AutoConfig": "mine.Config"}, "model_type": "mine"}, None, "wants to run code of its own"),
        ({}, Source(dtype="flot32"), "unknown dtype 'flot32': did you mean 'float32'"),
        (None, None, "'nobody/nothing' is not on this machine.*hf download nobody/nothing"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(tmp_path, monkeypatch, change, source, message):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    name = "nobody/nothing"
    if change is not None:
        tiny.save("vit", tmp_path)
        file, name = tmp_path / "config.json", str(tmp_path)
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=message) as caught:
        HFClassificationTask(name, source=source)
    assert "\n" not in str(caught.value)


def test_a_processor_belongs_to_a_model_that_is_given():
    with pytest.raises(UserError, match="give processor="):
        HFClassificationTask(nn.Identity())


def test_inputs_of_several_sizes_go_one_at_a_time():
    made = tiny.build("resnet")

    class Sides:
        """A processor that makes pictures a multiple of 8."""

        def __call__(self, images, return_tensors):
            size = (images.width // 8 * 8, images.height // 8 * 8)
            pixels = torch.from_numpy(np.asarray(images.resize(size), np.float32) / 255)
            return {"pixel_values": pixels.permute(2, 0, 1)[None]}

    task = HFClassificationTask(made.model, Sides())
    (e,) = explain(task, task.collate([Sample(picture((40, 60)), "a")]))
    assert e.signed.shape[1:] == (5, 7)
    with pytest.raises(UserError, match="makes 24 x 40 and 40 x 56 of these pictures; explain them one at a time"):
        task.collate([Sample(picture((40, 60)), "a"), Sample(picture((30, 44)), "b")])
