import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import resnet

from mmcam import explain, load_task
from mmcam.checkpoint import load_model
from mmcam.engine import explain_activations
from mmcam.errors import UserError
from mmcam.importing.resnet import ResNet
from mmcam.task import Sample
from tests.vqa.importers.verb import through_the_verb
from vqa.importers.pytorch_vqa import convert, read
from vqa.peers import ShowAskAttendAnswer
from vqa.task import VQATask

DATA = Path(__file__).parents[2] / "data/peer_checkpoints/cyanogenoid_pytorch_vqa"
ASKED = json.loads((DATA / "questions.json").read_text())


def caffe_resnet():
    """torchvision's, changed as Caffe's differs from it."""
    torch.manual_seed(0)
    model = resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], num_classes=2).eval()
    model.maxpool = torch.nn.MaxPool2d(3, 2, padding=0, ceil_mode=True)
    for layer in (model.layer2, model.layer3, model.layer4):
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    for name, value in model.named_buffers():
        if name.endswith(("mean", "var")):
            value.uniform_(0.5, 1.5)
    return model


@pytest.fixture(scope="module")
def cnn(tmp_path_factory):
    """The file of a CNN's weights."""
    path = tmp_path_factory.mktemp("cnn") / "resnet-caffe.pth"
    torch.save(caffe_resnet().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def model(cnn):
    return read([DATA / "tiny.pth", cnn])


@pytest.fixture(scope="module")
def task(model):
    return VQATask(model)


def samples(questions=("What animal is this?", "Is the cat awake?"), size=(60, 40)):
    noise = [Image.effect_noise((size[0] + i, size[1]), 80).convert("RGB") for i in range(len(questions))]
    return [Sample(image, f"q{i}", text) for i, (image, text) in enumerate(zip(noise, questions, strict=True))]


def checkpoint(**changes):
    """A checkpoint of the peer's form, with a narrow CNN beside it."""
    torch.manual_seed(1)
    shapes = {
        "text.embedding.weight": (4, 3),
        "text.lstm.weight_ih_l0": (20, 3),
        "text.lstm.weight_hh_l0": (20, 5),
        "text.lstm.bias_ih_l0": (20,),
        "text.lstm.bias_hh_l0": (20,),
        "attention.v_conv.weight": (6, 64, 1, 1),
        "attention.q_lin.weight": (6, 5),
        "attention.q_lin.bias": (6,),
        "attention.x_conv.weight": (2, 6, 1, 1),
        "attention.x_conv.bias": (2,),
        "classifier.lin1.weight": (7, 133),
        "classifier.lin1.bias": (7,),
        "classifier.lin2.weight": (2, 7),
        "classifier.lin2.bias": (2,),
    }
    tree = {
        "name": "small",
        "tracker": {},
        "config": {"image_size": 64, "central_fraction": 0.875},
        "weights": {f"module.{name}": torch.randn(shape) for name, shape in shapes.items()},
        "eval": {},
        "vocab": {"question": {"cat": 2, "is": 1, "dog": 3}, "answer": {"no": 1, "yes": 0}},
    }
    for key, value in changes.items():
        tree[key] = value(tree[key]) if callable(value) else value
    return tree


@pytest.fixture
def saved(tmp_path):
    """Write both files; gives their paths."""

    def write(blocks=(1, 1, 1, 1), width=2, **changes):
        torch.save(checkpoint(**changes), tmp_path / "small.pth")
        widths = [width * 2**stage for stage in range(4)]
        cnn = ResNet(blocks, widths, [4 * w for w in widths], stem=width)
        torch.save(cnn.state_dict(), tmp_path / "cnn.pth")
        return [tmp_path / "small.pth", tmp_path / "cnn.pth"]

    return write


@pytest.mark.parametrize("asked", ASKED, ids=[asked["key"] for asked in ASKED])
def test_logits_attention_and_maps_are_the_peers(task, asked):
    expected = np.load(DATA / "expected.npz")
    key, photo = asked["key"], asked["image"].removesuffix(".png")
    batch = task.collate(samples([asked["question"]], (20, 20)))
    assert batch.inputs["words"][0].tolist() == expected[f"{key}_ids"].tolist()
    features = torch.from_numpy(expected[f"{photo}_features"]).float()[None]
    targets = task.predict(features, batch)
    assert targets.words == ((asked["top_answer"],),)
    every = task.given([",".join(task.model.answers)], batch)
    logits = task.scores(features, batch, every)[0]
    torch.testing.assert_close(logits, torch.from_numpy(expected[f"{key}_logits"]), rtol=0, atol=1e-5)

    question = task.model.listen(batch.inputs["words"], batch.inputs["lengths"])
    unit = torch.nn.functional.normalize(features, dim=1).flatten(2)
    looks = torch.from_numpy(expected[f"{key}_attention"]).flatten(1)
    torch.testing.assert_close(task.model.look(unit, question)[0], looks, rtol=1e-4, atol=1e-6)

    (found,) = explain_activations(task, features, batch, targets, "grad_cam", keep_weights=True)
    weights = torch.from_numpy(expected[f"{key}_grad_channel_mean"])
    torch.testing.assert_close(found.weights[0], weights, rtol=1e-4, atol=1e-10)
    torch.testing.assert_close(found.maps[0], torch.from_numpy(expected[f"{key}_gradcam_14x14"]), rtol=1e-4, atol=1e-8)


def test_old_files_hold_the_same(model, cnn):
    old = read([cnn, DATA / "tiny_legacy.pth"]).state_dict()
    assert all(torch.equal(value, old[name]) for name, value in model.state_dict().items())


def test_the_cnn_is_caffes(model):
    peer, seen = caffe_resnet(), []
    peer.layer4.register_forward_hook(lambda *given: seen.append(given[2]))
    images = torch.randn(2, 3, 97, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        peer(images)
        ours, _ = model.backbone.trunk(images)
        torch.testing.assert_close(ours, seen[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model.backbone.vector(ours, {}), seen[0].mean((2, 3)), rtol=1e-5, atol=1e-5)


def test_what_is_written_is_read_again(model, cnn, tmp_path):
    assert convert([DATA / "tiny.pth", cnn], tmp_path / "saved") == tmp_path / "saved"
    again = load_model(str(tmp_path / "saved"), (ShowAskAttendAnswer,))
    assert model.state_dict().keys() == again.state_dict().keys()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert again.vocabulary.words == model.vocabulary.words
    assert again.answers == model.answers
    assert (again.resize, again.backbone.size) == (512, (448, 448))
    config = json.loads((tmp_path / "saved/config.json").read_text())
    assert config["source"]["peer"] == "Cyanogenoid/pytorch-vqa"
    assert len(config["source"]["files"]["tiny.pth"]) == 64
    assert not [path for path in (tmp_path / "saved").iterdir() if path.suffix not in (".json", ".safetensors", ".md")]


def test_it_explains_from_the_picture_on(saved, tmp_path):
    task = load_task(convert(saved(), tmp_path / "saved"), device="cpu")
    assert task.layer == "backbone.layer4"
    batch = task.collate(samples(["is cat?", "cat is dog?"], (146, 73)))
    assert batch.images.shape == (2, 3, 64, 64)
    # The short side of 73 becomes 73 pixels (64 / 0.875), of which the central 64 are kept.
    assert batch.windows[0] == (4.0, 41.0, 68.0, 105.0)
    assert batch.inputs["words"].tolist() == [[1, 2, 0], [2, 1, 3]]
    for explanation, image, words, length in zip(
        explain(task, batch), batch.images, batch.inputs["words"], (2, 3), strict=True
    ):
        logits, maps = by_hand(task.model, image[None], words[None, :length])
        best = int(logits.argmax())
        assert explanation.words == (task.model.answers[best],)
        torch.testing.assert_close(explanation.scores[0], logits[best], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(explanation.signed[0], maps[best], rtol=1e-3, atol=1e-5)
        assert explanation.flags != ("zero",)


def by_hand(model, images, words):
    """Logits and maps before ReLU of all answers, with loops over answers, glimpses and places."""
    activations, _ = model.backbone.trunk(images)
    activations = activations.detach().requires_grad_()
    _, (_, cell) = model.lstm(model.hear[0].weight[words].tanh())
    asked = model.ask.weight @ cell[0, 0] + model.ask.bias
    height, width = activations.shape[2:]
    places = [(y, x) for y in range(height) for x in range(width)]
    units = [activations[0, :, y, x] / (activations[0, :, y, x].square().sum().sqrt() + 1e-8) for y, x in places]
    seen = []
    for glimpse in range(2):
        votes = [
            model.attend.weight[glimpse, :, 0] @ (model.show.weight[:, :, 0] @ unit + asked).clamp(min=0)
            for unit in units
        ]
        look = (torch.stack(votes) + model.attend.bias[glimpse]).softmax(0)
        seen.append(sum(a * unit for a, unit in zip(look, units, strict=True)))
    logits = model.readout(torch.cat([*seen, cell[0, 0]]))
    maps = []
    for logit in logits:
        (gradient,) = torch.autograd.grad(logit, activations, retain_graph=True)
        maps.append((gradient.mean((2, 3), keepdim=True) * activations).sum(1)[0].detach())
    return logits.detach(), maps


def test_several_questions_share_a_picture(saved):
    model = read(saved()).double()
    activations = torch.rand(2, 64, 3, 2, dtype=torch.float64)
    words, lengths = model.number(["is?", "cat is dog?", "dog dog?", "dog?"])
    question = model.listen(words, lengths)
    together = model.answer(activations, {}, question)
    alone = [model.answer(activations[i // 2][None], {}, question[i][None])[0] for i in range(4)]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-12, atol=1e-12)


def test_questions_are_cut_as_the_peer_cuts_them(saved, caplog):
    model = read(saved())
    words, lengths = model.number(["Is  Cat?", "?", "cat zebra dogs", "zebra cat?"])
    assert words.tolist() == [[1, 0, 2], [0, 0, 0], [2, 0, 3], [0, 2, 0]]
    assert lengths.tolist() == [3, 1, 3, 2]
    told = [record.getMessage() for record in caplog.records]
    assert sum("'cat zebra dog' is heard; end it with '?'" in line for line in told) == 1
    assert sum("does not know the word 'zebra'" in line for line in told) == 1  # once, not twice
    with pytest.raises(UserError, match="got an empty one"):
        model.number([" "])


def test_expanded_tensors_become_their_own(cnn, tmp_path):
    tree = torch.load(DATA / "default_sizes.allkeys_expanded.pth", weights_only=True)
    with pytest.raises(UserError, match=r"weights have, 24 and 3000; the vocabulary has 24 and 14; is it another"):
        read([DATA / "default_sizes.allkeys_expanded.pth", cnn])
    tree["vocab"]["answer"] = {f"answer {i}": i for i in range(3000)}
    torch.save(tree, tmp_path / "large.pth")
    model = read([tmp_path / "large.pth", cnn])
    assert (model.lstm.hidden_size, len(model.answers), model.readout[0].in_features) == (1024, 3000, 5120)
    assert all(value.is_contiguous() for value in model.state_dict().values())


def test_without_a_cnn_it_says_which(saved):
    small, cnn = saved()
    with pytest.raises(UserError, match=r"small.pth holds no CNN: .* give also .*resnet152-caffe.pth"):
        read([small])
    with pytest.raises(UserError, match="none of the files is one"):
        read([cnn])
    with pytest.raises(UserError, match="expected one checkpoint of Cyanogenoid"):
        read([small, small, cnn])
    with pytest.raises(UserError, match="is neither"):
        read([small, cnn, cnn])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"weights": lambda w: {k: v for k, v in w.items() if "q_lin.weight" not in k}},
            "tensor 'attention.q_lin.weight'",
        ),
        ({"weights": lambda w: {k: v for k, v in w.items() if "q_lin.bias" not in k}}, "lacks ask.bias"),
        ({"weights": lambda w: {**w, "module.more": torch.ones(1)}}, "has also more"),
        (
            {"weights": lambda w: {**w, "module.classifier.lin1.weight": torch.ones(7, 9)}},
            r"\(7, 9\) instead of \(7, 133\)",
        ),
        (
            {"weights": lambda w: {**w, "module.classifier.lin1.bias": torch.full((7,), torch.nan)}},
            "NaN or infinity at",
        ),
        ({"weights": 3}, "expected a state dict"),
        (
            {"vocab": {"question": {"a": 1, "b": 2}, "answer": {"yes": 0, "no": 1}}},
            "3 and 2; the vocabulary has 2 and 2",
        ),
        (
            {"vocab": {"question": {"a": 1, "b": 1, "c": 3}, "answer": {"yes": 0}}},
            "from 1 to 3, each once, got 3 numbers",
        ),
        ({"vocab": {"question": {"a": 1}, "answer": {"yes": "0"}}}, r"vocab\['answer'\]: expected a dictionary"),
        ({"vocab": ["a"]}, "expected a vocabulary with 'question' and 'answer', got list"),
        ({"config": {"image_size": 64, "central_fraction": 0.0}}, "expected image_size and central_fraction"),
        ({"config": {"image_size": 10**9}}, "expected image_size and central_fraction"),
        ({"config": {"image_size": "64"}}, "expected image_size and central_fraction"),
    ],
)
def test_what_does_not_fit_is_named(saved, changes, message):
    with pytest.raises(UserError, match=message):
        read(saved(**changes))


def test_another_cnn_is_refused(saved, tmp_path):
    with pytest.raises(UserError, match=r"last map has 64 channels, which .* looks at, got 128"):
        read(saved(width=4))
    small, _ = saved()
    torch.save({"features.0.weight": torch.ones(2, 3, 3, 3)}, tmp_path / "cnn.pth")
    with pytest.raises(UserError, match=r"cnn.pth: expected a tensor 'conv1.weight', got features.0.weight"):
        read([small, tmp_path / "cnn.pth"])


def test_depth_is_read_off_the_weights(saved):
    model = read(saved(blocks=(2, 1, 3, 1)))
    assert [len(getattr(model.backbone, f"layer{i}")) for i in range(1, 5)] == [2, 1, 3, 1]


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("place", ["checkpoint", "cnn"])
def test_nothing_in_a_file_is_run(saved, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    files = saved()
    bad = files[place == "cnn"]
    torch.save({"weights": Hostile(), "vocab": {}, "conv1.weight": torch.ones(1)}, bad)
    with pytest.raises(UserError, match=r"names (posix|nt|os)\.mkdir, .* nothing was run"):
        read(files)
    assert not (tmp_path / "executed").exists()


def test_the_verb_writes_a_folder_that_explains(saved, tmp_path, capsys):
    through_the_verb("cyanogenoid", saved(), "is cat?", tmp_path, capsys)
