import json

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import linear

import mmcam
from captioning.importers import ruotianluo
from captioning.peers.full_size import FullSizeCaptioningTask
from captioning.peers.places import adaptive_mean
from captioning.peers.search import search
from mmcam.cli import main
from mmcam.errors import UserError
from mmcam.importing.weights import read_weights
from mmcam.task import Sample
from tests.captioning.importers.peers import FILES, expected, explained, logits, near, tiny_resnet

PEER = FILES / "ruotianluo_imagecaptioning"
WORDS = 50  # of the peer's, the end among them
HIDDEN = 12


def make(kind, **options):
    run, words = ruotianluo.read_infos(PEER / kind / f"infos_{kind}.pkl")
    return ruotianluo.captioner(
        read_weights(PEER / kind / "model.pth"), run, words, tiny_resnet(caffe=True).state_dict(), **options
    )


def features(kind, photo):
    wanted = expected(f"{PEER.name}/{kind}")
    if kind == "newfc":
        return wanted[f"{photo}_fc"][None, :, None, None]
    return wanted[f"{photo}_att"].T.reshape(1, 2048, 7, 7)


def theirs(numbers):
    """The peer's numbers in ours: 0 is the end, words move up by three, UNK is the last."""
    return [{0: 2, 49: 3}.get(number, number + 3) for number in numbers]


def said(numbers):
    return theirs(numbers[: numbers.index(0)] if 0 in numbers else numbers)


@pytest.mark.parametrize("photo", ["cat", "coffee"])
@pytest.mark.parametrize("kind", ["newfc", "att2in2"])
@pytest.mark.parametrize("grid", [7, 14])
def test_scores_and_maps_are_the_peers(kind, photo, grid):
    """On a grid twice as fine every place is there four times, which changes nothing."""
    model, wanted = make(kind, grid=grid), expected(f"{PEER.name}/{kind}")
    caption = theirs(wanted[f"{photo}_target_ids"].tolist())
    given = features(kind, photo)
    ours = logits(model, given, caption).log_softmax(1)
    order = theirs(range(WORDS))
    near(ours[:, order], wanted[f"{photo}_logprobs"][: len(caption)])
    assert ours[:, :2].exp().eq(0).all()  # padding and start are never said
    found = explained(model, given, caption)
    near(found.scores, wanted[f"{photo}_token_logprobs"])
    assert found.weights is not None
    if kind == "newfc":
        near(found.weights, wanted[f"{photo}_grad_logprob_wrt_fc"])
    else:
        near(found.weights, wanted[f"{photo}_grad_channel_mean"])
        near(found.signed.relu(), wanted[f"{photo}_gradcam_7x7"])


@pytest.mark.parametrize("photo", ["cat", "coffee"])
@pytest.mark.parametrize("kind", ["newfc", "att2in2"])
def test_decoding_is_the_peers(kind, photo):
    model, wanted, given = make(kind), expected(f"{PEER.name}/{kind}"), features(kind, photo)
    assert model.decode(given, {}, 1, 12)[0] == said(wanted[f"{photo}_greedy_ids"].tolist())
    best = said(wanted[f"{photo}_beam3_ids"].tolist())
    assert model.decode(given, {}, 3, 12)[0] == best
    caption = [*best, 2] if len(best) < 12 else best
    near(explained(model, given, caption).scores.sum(), wanted[f"{photo}_beam3_score"])


def test_infos_of_python_2_are_the_same():
    folder = PEER / "newfc"
    old = ruotianluo.read_infos(folder / "infos_newfc.python2_style.pkl")
    new = ruotianluo.read_infos(folder / "infos_newfc.pkl")
    assert old[1] == new[1]
    assert old[0]["caption_model"] == new[0]["caption_model"] == "newfc"
    words = json.loads((folder / "vocab_expected.json").read_text())
    assert new[1][0] == ["<pad>", "<start>", "<end>", "<unk>", *words[:-1]]
    assert new[1][1][:4] == [None, None, 0, 49]


def random(**shapes):
    torch.manual_seed(2)
    return {name.replace("__", "."): torch.randn(shape) / shape[-1] ** 0.5 for name, shape in shapes.items()}


def of_kind(kind, weights):
    _, words = ruotianluo.read_infos(PEER / "newfc" / "infos_newfc.pkl")
    cnn = tiny_resnet(caffe=True).state_dict()
    return ruotianluo.captioner(weights, {"caption_model": kind}, words, cnn, grid=4)


def check(model, given, wanted):
    caption = theirs([5, 6, 7])
    near(logits(model, given, caption).log_softmax(1)[:, theirs(range(WORDS))], wanted.log_softmax(1).detach())


def test_show_tell_is_an_lstm_without_biases():
    """By `ShowTellModel.forward`: the picture, 0, words; what the picture's step says is dropped."""
    weights = random(
        img_embed__weight=(10, 2048),
        img_embed__bias=(10,),
        core__weight_ih_l0=(4 * HIDDEN, 10),
        core__weight_hh_l0=(4 * HIDDEN, HIDDEN),
        embed__weight=(WORDS, 10),
        logit__weight=(WORDS, HIDDEN),
        logit__bias=(WORDS,),
    )
    given = torch.rand(1, 2048, 3, 2)
    core = nn.LSTM(10, HIDDEN, bias=False, batch_first=True)
    core.load_state_dict({"weight_ih_l0": weights["core.weight_ih_l0"], "weight_hh_l0": weights["core.weight_hh_l0"]})
    image = linear(given.mean((2, 3)), weights["img_embed.weight"], weights["img_embed.bias"])
    out, _ = core(torch.cat([image[:, None], weights["embed.weight"][torch.tensor([[0, 5, 6]])]], 1))
    check(of_kind("show_tell", weights), given, linear(out[0, 1:], weights["logit.weight"], weights["logit.bias"]))


def test_fc_is_newfc_by_other_names():
    weights = read_weights(PEER / "newfc" / "model.pth")
    other = {name.replace("fc_embed", "img_embed").replace("_core", "core"): v for name, v in weights.items()}
    assert set(other) != set(weights)
    given = features("newfc", "cat")
    assert torch.equal(logits(of_kind("fc", other), given, [5, 6]), logits(of_kind("newfc", weights), given, [5, 6]))


def updown():
    return random(
        embed__0__weight=(WORDS, 10),
        fc_embed__0__weight=(HIDDEN, 2048),
        fc_embed__0__bias=(HIDDEN,),
        att_embed__0__weight=(HIDDEN, 2048),
        att_embed__0__bias=(HIDDEN,),
        ctx2att__weight=(6, HIDDEN),
        ctx2att__bias=(6,),
        core__attention__h2att__weight=(6, HIDDEN),
        core__attention__h2att__bias=(6,),
        core__attention__alpha_net__weight=(1, 6),
        core__attention__alpha_net__bias=(1,),
        core__att_lstm__weight_ih=(4 * HIDDEN, 10 + 2 * HIDDEN),
        core__att_lstm__weight_hh=(4 * HIDDEN, HIDDEN),
        core__att_lstm__bias_ih=(4 * HIDDEN,),
        core__att_lstm__bias_hh=(4 * HIDDEN,),
        core__lang_lstm__weight_ih=(4 * HIDDEN, 2 * HIDDEN),
        core__lang_lstm__weight_hh=(4 * HIDDEN, HIDDEN),
        core__lang_lstm__bias_ih=(4 * HIDDEN,),
        core__lang_lstm__bias_hh=(4 * HIDDEN,),
        logit__weight=(WORDS, HIDDEN),
        logit__bias=(WORDS,),
    )


def naive_updown(w, places, mean, words):
    """By `UpDownCore.forward`, with torch's own cells; places (n, k) are those that attention looks at."""
    first, second = nn.LSTMCell(10 + 2 * HIDDEN, HIDDEN), nn.LSTMCell(2 * HIDDEN, HIDDEN)
    for cell, name in ((first, "core.att_lstm."), (second, "core.lang_lstm.")):
        cell.load_state_dict({key.removeprefix(name): value for key, value in w.items() if key.startswith(name)})
    fc = linear(mean, w["fc_embed.0.weight"], w["fc_embed.0.bias"]).relu()[None]
    att = linear(places, w["att_embed.0.weight"], w["att_embed.0.bias"]).relu()
    keys = linear(att, w["ctx2att.weight"], w["ctx2att.bias"])
    one = two = (torch.zeros(1, HIDDEN), torch.zeros(1, HIDDEN))
    rows = []
    for word in words:
        x = w["embed.0.weight"][word][None].relu()
        one = first(torch.cat([two[0], fc, x], 1), one)
        asked = linear(one[0], w["core.attention.h2att.weight"], w["core.attention.h2att.bias"])
        dot = linear((keys + asked).tanh(), w["core.attention.alpha_net.weight"], w["core.attention.alpha_net.bias"])
        seen = (dot.softmax(0) * att).sum(0, keepdim=True)
        two = second(torch.cat([seen, one[0]], 1), two)
        rows.append(linear(two[0], w["logit.weight"], w["logit.bias"])[0])
    return torch.stack(rows)


@pytest.mark.parametrize("kind", ["updown", "topdown"])
def test_updown_is_two_lstms(kind):
    weights, given = updown(), torch.rand(1, 2048, 4, 4)
    places = given[0].flatten(1).T
    check(of_kind(kind, weights), given, naive_updown(weights, places, places.mean(0), [0, 5, 6]))


def test_normalised_features_are_folded_into_their_layer():
    """`use_bn` puts a batch norm at `att_embed.0`, so that the linear layer is `att_embed.1`."""
    weights, given = updown(), torch.rand(1, 2048, 4, 4)
    norm = nn.BatchNorm1d(2048).eval()
    for value in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        value.uniform_(0.5, 1.5)
    places = given[0].flatten(1).T
    wanted = naive_updown(weights, norm(places).detach(), places.mean(0), [0, 5, 6])
    normed = {name.replace("att_embed.0", "att_embed.1"): value for name, value in weights.items()}
    normed |= {f"att_embed.0.{name}": value for name, value in norm.state_dict().items() if value.ndim}
    check(of_kind("updown", normed), given, wanted)


def caffe_naive(cnn, x):
    """The peer's own `resnet.py`, written down again: what differs from torchvision."""
    x = nn.functional.max_pool2d(cnn.bn1(cnn.conv1(x)).relu(), 3, 2, 0, ceil_mode=True)
    for number, stage in enumerate((cnn.layer1, cnn.layer2, cnn.layer3, cnn.layer4)):
        block, stride = stage[0], 1 if number == 0 else 2
        y = nn.functional.conv2d(x, block.conv1.weight, stride=stride)
        y = nn.functional.conv2d(block.bn1(y).relu(), block.conv2.weight, padding=1)
        y = block.bn3(block.conv3(block.bn2(y).relu()))
        shortcut = (
            nn.functional.conv2d(x, block.downsample[0].weight, stride=stride) if len(block.downsample._modules) else x
        )
        x = (y + (block.downsample[1](shortcut) if len(block.downsample._modules) else x)).relu()
    return x


@pytest.mark.parametrize("size", [(64, 64), (65, 90), (71, 50)])
def test_the_cnn_is_caffes(size):
    cnn = tiny_resnet(caffe=True)
    images = torch.rand(1, 3, *size)
    with torch.no_grad():
        maps, _ = cnn.trunk(images)
        assert torch.equal(maps, caffe_naive(cnn, images))
        assert 0.2 < maps.gt(0).float().mean() < 0.8
        # torchvision's own has margins, so that its maps may be larger or smaller by one.
        assert maps.shape != tiny_resnet().trunk(images)[0].shape or not torch.allclose(
            maps, tiny_resnet().trunk(images)[0]
        )


@pytest.mark.parametrize("size", [(20, 15), (7, 7), (5, 9), (14, 14), (1, 1)])
def test_pooling_is_torchs(size):
    maps = torch.rand(2, 3, *size)
    wanted = nn.functional.adaptive_avg_pool2d(maps, 14).flatten(2).mT
    torch.testing.assert_close(adaptive_mean(maps, {}, 14), wanted)


def pictures():
    sizes = [(90, 70), (64, 120), (130, 64)]
    return [Sample(Image.effect_noise(size, 60).convert("RGB"), f"picture {i}") for i, size in enumerate(sizes)]


@pytest.mark.parametrize("kind", ["newfc", "att2in2"])
def test_a_batch_of_several_sizes_gives_what_its_pictures_give_alone(kind):
    task = FullSizeCaptioningTask(make(kind), length=4)
    samples = pictures()
    batch = task.collate(samples)
    assert batch.images.shape == (3, 3, 120, 130)
    together = mmcam.explain(task, batch, method="grad_cam")
    shapes = set()
    for sample, found in zip(samples, together, strict=True):
        (alone,) = mmcam.explain(task, task.collate([sample]), method="grad_cam")
        assert found.words == alone.words
        near(found.scores, alone.scores)
        near(found.signed / alone.signed.abs().max(), alone.signed / alone.signed.abs().max())
        shapes.add(tuple(found.signed.shape[1:]))
    assert len(shapes) == 3


def test_pictures_of_several_sizes_have_no_inner_layer():
    task = FullSizeCaptioningTask(make("newfc"), layer="layer3")
    with pytest.raises(UserError, match=r"expected pictures of one size at the layer backbone\.layer3, got 3"):
        mmcam.explain(task, task.collate(pictures()))
    assert mmcam.explain(task, task.collate(pictures()[:1]))[0].signed.shape[1:] == (5, 6)


@pytest.fixture
def files(tmp_path):
    torch.save({**tiny_resnet(caffe=True).state_dict(), "fc.weight": torch.zeros(2, 2048)}, tmp_path / "cnn.pth")
    return [PEER / "att2in2" / "model.pth", PEER / "att2in2" / "infos_att2in2.pkl", tmp_path / "cnn.pth"]


def test_files_become_a_folder_that_the_command_line_explains(files, tmp_path):
    out = tmp_path / "model"
    assert main(["import", "ruotianluo", *map(str, files), "--out", str(out)]) == 0
    task = mmcam.load_task(out, device="cpu")
    assert isinstance(task, FullSizeCaptioningTask)
    assert (task.beam, task.length, task.model.grid) == (1, 12, 14)
    given, wanted = features("att2in2", "cat"), expected(f"{PEER.name}/att2in2")
    caption = theirs(wanted["cat_target_ids"].tolist())
    near(explained(task.model, given, caption).signed.relu(), wanted["cat_gradcam_7x7"])
    photos = [tmp_path / f"{i}.png" for i in range(2)]
    for sample, path in zip(pictures(), photos, strict=False):
        sample.image.save(path)
    assert main(["explain", *map(str, photos), "--config", str(out), "--device", "cpu", "--out", str(tmp_path)]) == 0


def test_another_grid_is_told_to_the_verb(files, tmp_path, capsys):
    command = ["import", "ruotianluo", *map(str, files), "--out", str(tmp_path / "out")]
    assert main([*command, "--grid", "0"]) == 2
    assert "expected a grid of 1 or more, got 0" in capsys.readouterr().err
    assert main([*command, "--grid", "7"]) == 0
    assert mmcam.load_task(tmp_path / "out", device="cpu").model.grid == 7
    newfc = [PEER / "newfc" / "model.pth", PEER / "newfc" / "infos_newfc.pkl", files[2]]
    assert main(["import", "ruotianluo", *map(str, newfc), "--out", str(tmp_path / "fc"), "--grid", "7"]) == 2
    assert "'newfc' looks at no grid but at the picture's mean; leave --grid out" in capsys.readouterr().err


def test_a_missing_cnn_is_asked_for(files, tmp_path):
    with pytest.raises(UserError, match=r"model\.pth holds no CNN, .*resnet101\.pth"):
        ruotianluo.convert(files[:2], tmp_path / "out")


def test_files_of_different_runs_are_told_apart(files, tmp_path):
    with pytest.raises(UserError, match=r"says caption_model 'newfc', but .* holds the weights of att2in2"):
        ruotianluo.convert([files[0], PEER / "newfc" / "infos_newfc.pkl", files[2]], tmp_path / "out")


def test_another_cnn_is_refused(files, tmp_path):
    narrow = tiny_resnet(caffe=True).state_dict()
    narrow["layer4.0.conv3.weight"] = narrow["layer4.0.conv3.weight"][:512]
    torch.save(narrow, files[2])
    with pytest.raises(UserError, match=r"cnn\.pth: expected the weights of ResNet, but it has layer4\.0\.bn3"):
        ruotianluo.convert(files, tmp_path / "out")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"use_box": 1}, "boxes of a detector"),
        ({"input_att_dir": "data/cocobu_att"}, r"boxes of a detector \(data/cocobu_att\)"),
        ({"norm_att_feat": 1}, "norm_att_feat"),
    ],
)
def test_options_that_pixels_cannot_follow_are_refused(option, message, monkeypatch):
    infos = ruotianluo.read_pickle(PEER / "newfc" / "infos_newfc.pkl", ["argparse.Namespace"])
    vars(infos["opt"]).update(option)
    monkeypatch.setattr(ruotianluo, "read_pickle", lambda *_: infos)
    with pytest.raises(UserError, match=message):
        ruotianluo.read_infos(PEER / "newfc" / "infos_newfc.pkl")


def test_an_unknown_kind_names_those_that_are_known():
    with pytest.raises(UserError, match="unknown caption_model in the infos 'transformer'"):
        of_kind("transformer", read_weights(PEER / "newfc" / "model.pth"))


def test_a_narrowing_search_prefers_what_has_ended():
    """Two hypotheses of two steps: without an end the likelier wins, unless the search narrows."""
    model = make("newfc")
    given = features("newfc", "cat")
    wide = search(model, given, {}, 3, 2)[0]
    assert len(wide) == 2
    with pytest.raises(UserError, match="a beam of 1 at least"):
        search(model, given, {}, 0, 2)
    model.readout.bias.data[2] += 30  # the end mark always comes
    assert search(model, given, {}, 3, 2, narrowing=True) == [[]]
