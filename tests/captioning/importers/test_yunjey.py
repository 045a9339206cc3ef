import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import mmcam
from captioning import CaptioningTask
from captioning.importers import yunjey
from captioning.load import load
from mmcam.checkpoint import save_model
from mmcam.cli import main
from mmcam.errors import UserError
from mmcam.importing.weights import read_weights
from mmcam.task import Sample
from tests.captioning.importers.peers import FILES, expected, explained, in_sequence, logits, near, tiny_resnet

PEER = FILES / "yunjey_image_captioning"
HEADS = {
    "zip": (PEER / "encoder-10-2.head_only.ckpt", PEER / "decoder-10-2.ckpt"),
    "legacy": (
        PEER / "legacy_format" / "encoder-10-2.head_only.pkl",
        PEER / "legacy_format" / "decoder-10-2.pkl",
    ),
}


def make(age="zip"):
    """The peer's head behind a tiny CNN: the fixture leaves the peer's out for its size."""
    head, decoder = (read_weights(path) for path in HEADS[age])
    return yunjey.captioner(head | in_sequence(tiny_resnet()), decoder, yunjey.read_words(PEER / "vocab.pkl"))


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.fixture
def files(tmp_path):
    encoder = torch.load(HEADS["zip"][0], weights_only=True) | in_sequence(tiny_resnet())
    torch.save(encoder, tmp_path / "encoder-10-2.pkl")
    shutil.copy(HEADS["zip"][1], tmp_path / "any.name")
    shutil.copy(PEER / "vocab.pkl", tmp_path / "words.ckpt")
    return [tmp_path / name for name in ("words.ckpt", "encoder-10-2.pkl", "any.name")]


@pytest.mark.parametrize("photo", ["cat", "coffee"])
@pytest.mark.parametrize("age", ["zip", "legacy"])
def test_scores_and_gradients_are_the_peers(photo, age):
    model, wanted = make(age), {name: value for name, value in expected(PEER.name).items() if name.startswith(photo)}
    caption = wanted[f"{photo}_caption_ids"].tolist()[1:]  # row 0 of the peer's says the start mark
    features = wanted[f"{photo}_pooled"][None, :, None, None]
    near(model.see(features[:, :, 0, 0])[0].detach(), wanted[f"{photo}_features"])
    near(logits(model, features, caption), wanted[f"{photo}_logits"][1:])
    found = explained(model, features, caption)
    near(found.scores, wanted[f"{photo}_token_logprobs"][1:])
    assert found.weights is not None
    near(found.weights, wanted[f"{photo}_grad_logprob_wrt_pooled"][1:])


@pytest.mark.parametrize("photo", ["cat", "coffee"])
def test_greedy_steps_are_the_peers(model, photo):
    """The peer goes on from what the picture's step says, the start mark if it was trained for longer than this one."""
    wanted = expected(PEER.name)
    features, said = wanted[f"{photo}_pooled"][None, :, None, None], []
    with torch.no_grad():
        state = model.start(features, {})
        out = state[0]
        for _ in range(20):
            said.append(int(model.readout(out).argmax()))
            state, out = model.step(state, torch.tensor(said[-1:]))
    assert said == wanted[f"{photo}_greedy_ids"].tolist()


@pytest.mark.parametrize("photo", ["cat", "coffee"])
def test_what_is_decoded_is_the_likeliest_after_the_same_words(model, photo):
    features = expected(PEER.name)[f"{photo}_pooled"][None, :, None, None]
    (caption,) = model.decode(features, {}, beam=1, length=yunjey.LENGTH)
    assert logits(model, features, [*caption, 2]).argmax(1).tolist()[: len(caption)] == caption


def test_grad_cam_of_the_whole_encoder_is_autograds(model):
    """The trunk is in the graph: the peer's own modules, composed without its no_grad, give the same map."""
    task = CaptioningTask(model)
    picture = Image.effect_noise((50, 40), 90).convert("RGB")
    batch = task.collate([Sample(picture, "noise")])
    assert batch.images.shape == (1, 3, 224, 224)
    red = torch.from_numpy(np.array(picture.resize((224, 224), Image.Resampling.LANCZOS)))[..., 0]
    near(batch.images[0, 0], (red / 255 - 0.485) / 0.229)
    (found,) = mmcam.explain(task, batch, task.given(["a cat with green eyes"], batch), "grad_cam")

    encoder, decoder = (torch.load(path, weights_only=True) for path in HEADS["zip"])
    cnn = tiny_resnet()
    maps, _ = cnn.trunk(batch.images)
    maps = maps.detach().requires_grad_()
    vector = torch.nn.functional.linear(maps.mean((2, 3)), encoder["linear.weight"], encoder["linear.bias"])
    statistics = encoder["bn.running_mean"], encoder["bn.running_var"], encoder["bn.weight"], encoder["bn.bias"]
    vector = torch.nn.functional.batch_norm(vector, *statistics)
    lstm = torch.nn.LSTM(32, 48, batch_first=True)
    lstm.load_state_dict({name[5:]: value for name, value in decoder.items() if name.startswith("lstm.")})
    ids = [1, *model.vocabulary.encode(["a", "cat", "with", "green", "eyes"])]
    words = decoder["embed.weight"][torch.tensor([ids[:-1]])]
    out, _ = lstm(torch.cat([vector[:, None], words], 1))
    scores = (out[0] @ decoder["linear.weight"].T + decoder["linear.bias"]).log_softmax(1)
    for row, word in enumerate(ids[1:]):
        (gradient,) = torch.autograd.grad(scores[row + 1, word], maps, retain_graph=True)
        wanted = (gradient.mean((2, 3), keepdim=True) * maps).sum(1)[0].detach()
        near(found.scores[row], scores[row + 1, word].detach())
        near(found.signed[row] / wanted.abs().max(), wanted / wanted.abs().max())


def test_files_become_a_folder_that_the_command_line_explains(files, tmp_path, capsys):
    out = tmp_path / "model"
    assert main(["import", "yunjey", *map(str, files), "--out", str(out)]) == 0
    assert {"config.json", "model.safetensors"} <= {file.name for file in out.iterdir()}
    config = json.loads((out / "config.json").read_text())
    assert config["vocabulary"] == json.loads((PEER / "vocab_expected.json").read_text())
    assert config["source"]["peer"] == "yunjey/pytorch-tutorial"
    assert set(config["source"]["files"]) == {file.name for file in files}
    Image.effect_noise((50, 40), 90).convert("RGB").save(tmp_path / "photo.png")
    command = ["explain", str(tmp_path / "photo.png"), "--config", str(out), "--caption", "a cat", "--device", "cpu"]
    assert main([*command, "--out", str(tmp_path / "maps")]) == 0
    task = mmcam.load_task(out, device="cpu")
    assert (task.beam, task.length, task.layer) == (1, 19, "backbone.layer4")
    out.rename(tmp_path / "moved")
    assert mmcam.load_task(tmp_path / "moved", device="cpu").layer == "backbone.layer4"


def test_saved_and_loaded_it_is_exactly_the_same(model, tmp_path):
    save_model(model, tmp_path)
    again = load(str(tmp_path))
    features = torch.rand(1, 2048, 2, 3)
    assert torch.equal(logits(again, features, [4, 5, 6]), logits(model, features, [4, 5, 6]))
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


def test_every_layer_of_several_is_taken():
    torch.manual_seed(0)
    head, decoder = (read_weights(path) for path in HEADS["zip"])
    lstm = torch.nn.LSTM(32, 48, 2, batch_first=True)
    decoder = {k: v for k, v in decoder.items() if not k.startswith("lstm.")}
    decoder |= {f"lstm.{name}": value.detach() for name, value in lstm.state_dict().items()}
    model = yunjey.captioner(head | in_sequence(tiny_resnet()), decoder, yunjey.read_words(PEER / "vocab.pkl"))
    features = torch.rand(1, 2048, 1, 1)
    words = torch.cat([model.see(features[:, :, 0, 0])[:, None], model.hear(torch.tensor([[1, 9]]))], 1)
    out = lstm(words)[0][0, 1:] @ decoder["linear.weight"].T + decoder["linear.bias"]
    near(logits(model, features, [9, 7]), out.detach())


def test_all_keys_of_a_resnet152_are_known():
    weights = read_weights(PEER / "encoder-10-2.allkeys_expanded.ckpt")
    assert all(value.is_contiguous() for value in weights.values())
    sizes = yunjey.sizes_of(yunjey.named_like_torchvision(weights, "resnet."), "encoder")
    assert sizes["blocks"] == [3, 8, 36, 3]
    assert (sizes["widths"], sizes["outs"]) == ([64, 128, 256, 512], [256, 512, 1024, 2048])


@pytest.mark.parametrize("name", ["vocab.pkl", "vocab_imported_class.pkl"])
def test_vocabulary_of_any_module(name):
    assert yunjey.read_words(PEER / name)[0] == json.loads((PEER / "vocab_expected.json").read_text())


def test_what_does_not_fit_is_named(files, tmp_path):
    words, encoder, decoder = files
    with pytest.raises(UserError, match=r"vocab\.pkl is not among the 2 files"):
        yunjey.convert([encoder, decoder], tmp_path / "out")
    with pytest.raises(UserError, match=r"the encoder is not among the 2 files"):
        yunjey.convert([words, decoder], tmp_path / "out")
    with pytest.raises(UserError, match=r"expected a tensor 'resnet\.0\.weight', got linear\.weight"):
        yunjey.convert([words, HEADS["zip"][0], decoder], tmp_path / "out")
    with pytest.raises(UserError, match=r"README\.md: expected the encoder's .*, got text"):
        yunjey.convert([words, encoder, decoder, PEER / "README.md"], tmp_path / "out")
    less = read_weights(decoder)
    del less["lstm.bias_hh_l0"], less["linear.bias"]
    with pytest.raises(UserError, match=r"expected the weights of ImageFirst, but it lacks readout\.bias"):
        yunjey.captioner(read_weights(encoder), less, yunjey.read_words(words))
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_of_another_size_is_refused(files):
    words, encoder, decoder = files
    names, numbers = yunjey.read_words(words)
    with pytest.raises(UserError, match=r"expected the 52 words that .* was trained on, got 51"):
        yunjey.captioner(read_weights(encoder), read_weights(decoder), (names[:-1], numbers[:-1]))
