import json
import sys
from types import ModuleType

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

import mmcam
from captioning import CaptioningTask
from captioning.importers import sgrvinod
from captioning.load import load
from mmcam.cli import main
from mmcam.errors import UserError
from mmcam.task import Sample
from tests.captioning.importers.peers import FILES, SHARED, expected, explained, logits, near

PEER = FILES / "sgrvinod_show_attend_tell"
NAME = "coco_5_cap_per_img_0_min_word_freq"
WORDMAP = PEER / f"WORDMAP_{NAME}.json"
CHECKPOINT = SHARED / PEER.name / f"BEST_checkpoint_{NAME}.pth.tar"


@pytest.fixture(scope="module")
def model():
    if not CHECKPOINT.exists():
        pytest.skip(f"{CHECKPOINT} is not here: with its 15 MB it is too large for the repository")
    return sgrvinod.captioner(sgrvinod.read_models(CHECKPOINT), sgrvinod.read_words(WORDMAP))


def ours():
    """For each number of the peer's, ours."""
    names, numbers = sgrvinod.read_words(WORDMAP)
    return [numbers.index(number) for number in range(len(names))]


def test_the_whole_way_from_the_photo_is_the_peers(model):
    data = pytest.importorskip("skimage.data")
    task = CaptioningTask(model)
    for photo, name in ((data.chelsea(), "cat"), (data.coffee(), "coffee")):
        wanted = expected(PEER.name)
        batch = task.collate([Sample(Image.fromarray(photo), name)])
        near(batch.images[0], wanted[f"{name}_input"])
        near(task.trunk(batch)[0].detach(), wanted[f"{name}_layer4"])


@pytest.mark.parametrize("photo", ["cat", "coffee"])
def test_scores_and_maps_are_the_peers(model, photo):
    wanted, order = expected(PEER.name), ours()
    caption = [order[number] for number in wanted[f"{photo}_caption_ids"].tolist()[1:]]
    maps = wanted[f"{photo}_layer4"][None]
    near(logits(model, maps, caption)[:, order], wanted[f"{photo}_logits"])
    found = explained(model, maps, caption)
    near(found.scores, wanted[f"{photo}_token_logprobs"])
    assert found.weights is not None
    near(found.weights, wanted[f"{photo}_grad_channel_mean"])
    near(found.signed.relu(), wanted[f"{photo}_gradcam_8x8"])


@pytest.mark.parametrize("photo", ["cat", "coffee"])
def test_greedy_words_are_the_peers(model, photo):
    wanted, order = expected(PEER.name), ours()
    said = model.decode(wanted[f"{photo}_layer4"][None], {}, 1, 20)[0]
    words = [order[number] for number in wanted[f"{photo}_greedy_ids"].tolist()]
    assert said == [number for number in words if number != 2]


# The peer's classes, by the names of their parts alone: a small checkpoint of the same form as a real one.


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        cnn = ResNet(Bottleneck, [1, 1, 1, 1], width_per_group=2)
        self.resnet = nn.Sequential(*list(cnn.children())[:-2])
        self.adaptive_pool = nn.AdaptiveAvgPool2d((6, 6))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder_att, self.decoder_att, self.full_att = nn.Linear(2048, 3), nn.Linear(4, 3), nn.Linear(3, 1)


class DecoderWithAttention(nn.Module):
    def __init__(self, words):
        super().__init__()
        self.attention = Attention()
        self.embedding = nn.Embedding(words, 5)
        self.decode_step = nn.LSTMCell(5 + 2048, 4)
        self.init_h, self.init_c = nn.Linear(2048, 4), nn.Linear(2048, 4)
        self.f_beta, self.fc = nn.Linear(4, 2048), nn.Linear(4, words)


def naive(encoder, decoder, images, words):
    """By the peer's `DecoderWithAttention.forward`, for one caption."""
    out = encoder.adaptive_pool(encoder.resnet(images)).permute(0, 2, 3, 1).flatten(1, 2)
    h, c = decoder.init_h(out.mean(1)), decoder.init_c(out.mean(1))
    rows = []
    for word in words:
        att = decoder.attention.encoder_att(out) + decoder.attention.decoder_att(h)[:, None]
        alpha = decoder.attention.full_att(att.relu()).squeeze(2).softmax(1)
        seen = decoder.f_beta(h).sigmoid() * (out * alpha[..., None]).sum(1)
        h, c = decoder.decode_step(torch.cat([decoder.embedding(torch.tensor([word])), seen], 1), (h, c))
        rows.append(decoder.fc(h)[0])
    return torch.stack(rows)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A checkpoint as the peer saves it, whose classes are gone when it is read."""
    torch.manual_seed(1)
    module = ModuleType("copied_models")
    module.__file__ = __file__  # old files carry their classes' source
    monkeypatch.setitem(sys.modules, "copied_models", module)
    for cls in (Encoder, Attention, DecoderWithAttention):
        monkeypatch.setattr(cls, "__module__", "copied_models")
        setattr(module, cls.__name__, cls)
    words = {"a": 1, "cat": 2, "dog": 3, "<unk>": 4, "<start>": 5, "<end>": 6, "<pad>": 0}
    (tmp_path / "WORDMAP_tiny.json").write_text(json.dumps(words))
    encoder, decoder = Encoder().eval(), DecoderWithAttention(7)
    optimizer = torch.optim.Adam(decoder.parameters())
    decoder.fc.bias.sum().backward()
    optimizer.step()
    content = {"epoch": 1, "encoder": encoder, "decoder": decoder, "encoder_optimizer": None}
    content |= {"decoder_optimizer": optimizer, "bleu-4": 0.1}
    torch.save(content, tmp_path / "new.pth.tar")
    torch.save(content, tmp_path / "old.pth.tar", _use_new_zipfile_serialization=False)
    monkeypatch.delitem(sys.modules, "copied_models")
    return tmp_path, encoder, decoder


@pytest.mark.parametrize("age", ["new", "old"])
def test_a_checkpoint_becomes_a_folder_that_the_command_line_explains(made, age):
    folder, encoder, decoder = made
    out = folder / age
    command = ["import", "sgrvinod", str(folder / f"{age}.pth.tar"), str(folder / "WORDMAP_tiny.json")]
    assert main([*command, "--out", str(out)]) == 0
    assert "copied_models" not in sys.modules
    task = mmcam.load_task(out, device="cpu")
    assert (task.beam, task.length, task.model.grid) == (5, 50, 6)
    picture = Image.effect_noise((80, 60), 90).convert("RGB")
    batch = task.collate([Sample(picture, "noise")])
    assert batch.images.shape == (1, 3, 256, 256)
    with torch.no_grad():
        wanted = naive(encoder, decoder, batch.images, [5, 1, 2])
        found = task.model(batch.images, torch.tensor([[1, 4, 5]]))[0]
    near(found[:, [0, 4, 5, 6, 3, 1, 2]], wanted)
    picture.save(folder / "photo.png")
    command = ["explain", str(folder / "photo.png"), "--config", str(out), "--caption", "a cat", "--device", "cpu"]
    assert main([*command, "--out", str(folder / "maps")]) == 0
    again = load(str(out))
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), task.model.parameters(), strict=True))


def test_what_does_not_fit_is_named(made, tmp_path):
    folder, *_ = made
    checkpoint, words = folder / "new.pth.tar", folder / "WORDMAP_tiny.json"
    with pytest.raises(UserError, match=r"expected the checkpoint .* and the WORDMAP"):
        sgrvinod.convert([checkpoint], tmp_path / "out")
    with pytest.raises(UserError, match=r"expected the 7 words that .* was trained on, got 52"):
        sgrvinod.convert([checkpoint, WORDMAP], tmp_path / "out")
    torch.save({"epoch": 3}, folder / "other.pth.tar")
    with pytest.raises(UserError, match="expected a checkpoint with encoder and decoder, got epoch"):
        sgrvinod.convert([folder / "other.pth.tar", words], tmp_path / "out")
    words.write_text(json.dumps({"a": 1, "<pad>": 0}))
    with pytest.raises(UserError, match="got one without <start>, <end>, <unk>"):
        sgrvinod.convert([checkpoint, words], tmp_path / "out")
    words.write_text(json.dumps({"a": 9, "<unk>": 1, "<start>": 2, "<end>": 3, "<pad>": 0}))
    with pytest.raises(UserError, match="numbered without gaps, got none with the number 4"):
        sgrvinod.convert([checkpoint, words], tmp_path / "out")
