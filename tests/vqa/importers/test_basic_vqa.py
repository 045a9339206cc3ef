import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from torchvision.models.vgg import make_layers

from mmcam import explain, load_task
from mmcam.checkpoint import load_model
from mmcam.cli import main
from mmcam.errors import UserError
from mmcam.importing.weights import group, renamed
from mmcam.task import Sample
from tests.vqa.importers.verb import through_the_verb
from vqa.importers.basic_vqa import NAMES, convert, read
from vqa.importers.parts import vgg_stages
from vqa.peers import BasicVQA

DATA = Path(__file__).parents[2] / "data/peer_checkpoints/tbmoon_basic_vqa"
LISTS = [DATA / "vocab_questions.txt", DATA / "vocab_answers.txt"]
ASKED = json.loads((DATA / "questions.json").read_text())
WORDS = ["<pad>", "<unk>", "?", "cat", "is", "'", "s"]
SAID = ["<unk>", "yes", "no"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The fixture's head; its CNN is not what it was trained on."""
    path = tmp_path_factory.mktemp("vgg") / "vgg.pth"
    shapes = {
        "features.0.weight": (2, 3, 3, 3),
        "features.0.bias": (2,),
        "classifier.0.weight": (4096, 98),
        "classifier.0.bias": (4096,),
        "classifier.3.weight": (4096, 4096),
        "classifier.3.bias": (4096,),
        "classifier.6.weight": (1000, 4096),
        "classifier.6.bias": (1000,),
    }
    torch.save({name: torch.full((1,), 0.01).expand(shape) for name, shape in shapes.items()}, path)
    return read([*LISTS, DATA / "model-epoch-06.without_vgg19.ckpt", path], length=8)


def weights(convolutions=("0", "2", "5"), channels=(2, 3, 4), **changes):
    """A narrow model of the peer's form, by its names: two convolutions, pooling, one convolution."""
    torch.manual_seed(2)
    shapes = {
        "img_encoder.model.classifier.0.weight": (6, 49 * channels[-1]),
        "img_encoder.model.classifier.0.bias": (6,),
        "img_encoder.model.classifier.3.weight": (6, 6),
        "img_encoder.model.classifier.3.bias": (6,),
        "img_encoder.fc.weight": (5, 6),
        "img_encoder.fc.bias": (5,),
        "qst_encoder.word2vec.weight": (7, 3),
        "qst_encoder.fc.weight": (5, 16),
        "qst_encoder.fc.bias": (5,),
        "fc1.weight": (3, 5),
        "fc1.bias": (3,),
        "fc2.weight": (3, 3),
        "fc2.bias": (3,),
    }
    for place, ins, outs in zip(convolutions, (3, *channels), channels, strict=False):
        shapes[f"img_encoder.model.features.{place}.weight"] = (outs, ins, 3, 3)
        shapes[f"img_encoder.model.features.{place}.bias"] = (outs,)
    for layer, ins in ((0, 3), (1, 4)):
        shapes |= {f"qst_encoder.lstm.weight_ih_l{layer}": (16, ins), f"qst_encoder.lstm.weight_hh_l{layer}": (16, 4)}
        shapes |= {f"qst_encoder.lstm.bias_{kind}_l{layer}": (16,) for kind in ("ih", "hh")}
    made = {name: torch.randn(shape) * (0.4 if len(shape) == 4 else 0.7) for name, shape in shapes.items()}
    return {name: value for name, value in {**made, **changes}.items() if value is not None}


@pytest.fixture
def saved(tmp_path):
    """Write all three files; gives their paths."""

    def write(state=None, words=WORDS, said=SAID):
        torch.save({"epoch": 1, "state_dict": weights() if state is None else state}, tmp_path / "model-epoch-01.ckpt")
        for name, lines in (("vocab_questions.txt", words), ("vocab_answers.txt", said)):
            (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
        return [tmp_path / name for name in ("model-epoch-01.ckpt", "vocab_questions.txt", "vocab_answers.txt")]

    return write


@pytest.mark.parametrize("asked", ASKED, ids=[asked["key"] for asked in ASKED])
def test_logits_and_gradients_are_the_peers(model, asked):
    expected = {name: torch.from_numpy(value) for name, value in np.load(DATA / "expected.npz").items()}
    key, photo = asked["key"], asked["image"].removesuffix(".png")
    words, lengths = model.number([asked["question"]])
    assert words[0].tolist() == expected[f"{key}_ids"].tolist()
    assert lengths.tolist() == [len(asked["tokens"])]
    vector = expected[f"{photo}_vgg_fc7"][None].requires_grad_()
    logits = model.join(vector, model.listen(words, lengths))[0]
    torch.testing.assert_close(logits, expected[f"{key}_logits"], rtol=0, atol=1e-5)
    assert model.answers[int(logits.argmax())] == asked["top_answer"]
    (gradient,) = torch.autograd.grad(logits[int(expected[f"{key}_top"])], vector)
    torch.testing.assert_close(gradient[0], expected[f"{key}_grad_top_logit_wrt_fc7"], rtol=1e-4, atol=1e-7)


def by_hand(state, images, words):
    """Logits and maps before ReLU of all answers, by functions of torch's alone."""
    lower = make_layers([2, 3, "M", 4])
    lower.load_state_dict(group(state, "img_encoder.model.features."))
    activations = lower(images).detach().requires_grad_()

    def linear(x, name):
        return functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    x = functional.adaptive_avg_pool2d(functional.max_pool2d(activations, 2, 2), (7, 7)).flatten(1)
    x = linear(linear(x, "img_encoder.model.classifier.0").relu(), "img_encoder.model.classifier.3").relu()
    x = linear(x, "img_encoder.fc")
    x = x / x.square().sum().sqrt().item()
    lstm = torch.nn.LSTM(3, 4, 2)
    lstm.load_state_dict(group(state, "qst_encoder.lstm."))
    _, (h, c) = lstm(state["qst_encoder.word2vec.weight"][words].tanh()[:, None])
    q = linear(torch.cat([h[0], c[0], h[1], c[1]], 1).tanh(), "qst_encoder.fc")
    logits = linear(linear((x * q).tanh(), "fc1").tanh(), "fc2")[0]
    maps = []
    for logit in logits:
        (gradient,) = torch.autograd.grad(logit, activations, retain_graph=True)
        maps.append((gradient.mean((2, 3), keepdim=True) * activations).sum(1)[0].detach())
    return logits.detach(), maps


def test_it_explains_from_the_picture_on(saved, tmp_path):
    task = load_task(convert(saved(), tmp_path / "out", length=9), device="cpu")
    assert task.layer == "backbone.features"
    image = Image.effect_noise((50, 40), 90).convert("RGB")
    asked = {"Is cat?": [4, 3, 2], "IS this the cat's": [4, 1, 1, 3, 5, 6]}
    batch = task.collate([Sample(image, f"q{i}", text) for i, text in enumerate(asked)])
    pixels = np.asarray(image.resize((224, 224), Image.Resampling.LANCZOS), dtype=np.float64).transpose(2, 0, 1) / 255
    mean, std = (np.array(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    np.testing.assert_allclose(batch.images[1].numpy(), (pixels - mean) / std, atol=1e-5)
    for explanation, words in zip(explain(task, batch), asked.values(), strict=True):
        padded = torch.tensor(words + [0] * (9 - len(words)))
        logits, maps = by_hand(weights(), batch.images[:1], padded)
        best = int(logits.argmax())
        assert explanation.words == (SAID[best],)
        torch.testing.assert_close(explanation.scores[0], logits[best], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(explanation.signed[0], maps[best], rtol=1e-3, atol=1e-6)
        assert explanation.signed.shape == (1, 112, 112)
        assert explanation.flags != ("zero",)


def test_what_is_written_is_read_again(saved, tmp_path):
    model = read(saved(), length=7)
    again = load_model(str(convert(saved(), tmp_path / "out", length=7)), (BasicVQA,))
    assert model.state_dict().keys() == again.state_dict().keys()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert (again.length, again.answers, again.vocabulary.words) == (7, tuple(SAID), tuple(WORDS))
    with pytest.raises(UserError, match="which has one; choose another"):
        convert(saved(), tmp_path / "out")


def test_words_are_those_of_the_peer(saved, caplog):
    model = read(saved(), length=6)
    words, lengths = model.number(["is  it a ca", "?? cat"])
    assert words.tolist() == [[4, 1, 1, 1, 0, 0], [1, 3, 0, 0, 0, 0]]  # "??" is one token, and no word
    assert lengths.tolist() == [4, 2]
    assert sum("does not know the word '??': it hears '<unk>'" in r.getMessage() for r in caplog.records) == 1
    with pytest.raises(UserError, match="at most 6 words, got 7"):
        model.number(["is is is is is is is"])


def test_every_key_of_the_real_file_has_its_place():
    state = torch.load(DATA / "model-epoch-06.allkeys_expanded.ckpt", weights_only=True)["state_dict"]
    stages = vgg_stages(group(state, "img_encoder.model."), "here")
    assert stages == [[64, 64], [128, 128], [256] * 4, [512] * 4, [512] * 4]  # VGG-19
    with torch.device("meta"):
        model = BasicVQA(["<unk>"] * 27, ["yes"] * 14, stages, embedding=20, hidden=24, common=48)
    ours = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert {name: tuple(value.shape) for name, value in renamed(state, NAMES).items()} == ours


@pytest.mark.slow
def test_the_real_file_is_read():
    model = read([*LISTS, DATA / "model-epoch-06.allkeys_expanded.ckpt"])
    assert sum(value.numel() for value in model.backbone.state_dict().values()) == 139_570_240


def test_the_cnn_may_be_torchvisions_file(saved, tmp_path):
    state = weights()
    cnn = group(state, "img_encoder.model.")
    torch.save(
        {**cnn, "classifier.6.weight": torch.ones(9, 6), "classifier.6.bias": torch.ones(9)}, tmp_path / "vgg.pth"
    )
    head = {name: value for name, value in state.items() if not name.startswith("img_encoder.model.")}
    with pytest.raises(
        UserError, match=r"saved without VGG-19; give torchvision's weights of it, too: vgg19-dcbb9e9d.pth"
    ):
        read(saved(head))
    apart, whole = read([tmp_path / "vgg.pth", *saved(head)]), read(saved())
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in apart.state_dict().items())
    with pytest.raises(UserError, match="expected VGG's weights once"):
        read([*saved(), tmp_path / "vgg.pth"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"words": WORDS[:-1]}, "expected 7 words of questions, got 6 lines; is the list another training's"),
        ({"said": [*SAID, "maybe"]}, "expected 3 answers, got 4 lines"),
        ({"words": ["a", *WORDS[1:]]}, "got 0 and 2 of them"),
        ({"words": [WORDS[1], WORDS[0], *WORDS[2:]]}, "begin with '<pad>', got '<unk>'"),
        ({"words": ["<pad>", "x", *WORDS[2:]]}, "expected '<unk>' among the words"),
        ({"state": weights(**{"fc1.weight": None})}, "expected a tensor 'fc1.weight'"),
        ({"state": weights(**{"fc1.bias": None})}, "lacks readout.0.bias"),
        ({"state": weights(**{"fc3.bias": torch.ones(1)})}, "has also fc3.bias"),
        ({"state": weights(**{"fc1.weight": torch.ones(3, 4)})}, r"\(3, 4\) instead of \(3, 5\)"),
        ({"state": weights(("0", "3", "7"))}, r"VGG without batch norm, got weights at features \[0, 3, 7\]"),
        ({"state": weights(**{"fc1.bias": torch.full((3,), torch.inf)})}, "NaN or infinity at 'fc1.bias'"),
        ({"state": {"decoder.weight": torch.ones(1)}}, "is neither"),
        ({"state": {}}, "expected a state dict"),
    ],
)
def test_what_does_not_fit_is_named(saved, changes, message):
    with pytest.raises(UserError, match=message):
        read(saved(**changes))


def test_files_are_known_by_content(saved, tmp_path):
    model, words, said = saved()
    renamed = [path.rename(tmp_path / name) for path, name in ((said, "a.pkl"), (model, "b.txt"), (words, "c"))]
    assert read(renamed).answers == tuple(SAID)
    with pytest.raises(UserError, match="got 1 and 0 of them"):
        read(renamed[1:])
    with pytest.raises(UserError, match="expected a checkpoint of tbmoon/basic_vqa"):
        read([renamed[0], renamed[2]])


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_nothing_in_a_file_is_run(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = saved({**weights(), "fc1.bias": Hostile()})
    with pytest.raises(UserError, match=r"names (posix|nt|os)\.mkdir, .* nothing was run"):
        read(files)
    assert not (tmp_path / "executed").exists()


def test_the_verb_writes_a_folder_that_explains(saved, tmp_path, capsys):
    through_the_verb("tbmoon", saved(), "is cat?", tmp_path, capsys)


def test_the_verb_is_told_how_long_questions_are(saved, tmp_path, capsys):
    command = ["import", "tbmoon", *map(str, saved()), "--out", str(tmp_path / "out")]
    assert main([*command, "--grid", "7"]) == 2
    assert "the files of tbmoon need no --grid; leave it out" in capsys.readouterr().err
    assert main([*command, "--length", "0"]) == 2
    assert "expected a length of questions of 1 or more, got 0" in capsys.readouterr().err
    assert main([*command, "--length", "7"]) == 0
    assert load_task(tmp_path / "out", device="cpu").model.length == 7
