import json
import subprocess
import sys
from importlib import import_module

import pytest
import torch
from torch import nn

import mmcam
from captioning import ShowAndTell
from mmcam.checkpoint import load_model, save_model
from mmcam.cli import main
from mmcam.errors import UserError
from mmcam.importing.folder import write_model
from mmcam.importing.resnet import ResNet, named_like_torchvision, sizes_of
from mmcam.verbs.import_ import PEERS


def test_help_teaches_and_needs_no_torch():
    code = "import sys, mmcam.cli; mmcam.cli.main(['import', '--help']); sys.exit('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "examples:\n  mmcam import " in result.stdout
    assert all(f"\n  {peer} " in result.stdout for peer in PEERS)


def test_every_peer_has_an_importer():
    assert all(callable(import_module(module).convert) for module, _ in PEERS.values())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["yunjei", "a"], "unknown peer 'yunjei': did you mean 'yunjey'"),
        (["yunjey", "a", "--task.init_args.beam=3"], "mmcam import reads no configuration"),
        (["yunjey", "no such file"], "expected a file, but there is no such file"),
        (["yunjey", "."], "expected a file, got a folder; name a file in it"),
    ],
)
def test_mistakes_are_told_in_one_line(words, message, tmp_path, capsys):
    assert main(["import", *words, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_folder_knows_its_task_and_where_it_comes_from(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"abc")
    model = ShowAndTell(["cat"], embedding=4, hidden=4)
    arguments = {"beam": 3, "length": 7}
    out = write_model(model, tmp_path / "out", "someone", [tmp_path / "a.pth"], "captioning.CaptioningTask", arguments)
    content = json.loads((out / "config.json").read_text())
    assert content["architecture"] == "ShowAndTell"
    # of "abc", from FIPS 180-2
    assert content["source"]["files"]["a.pth"].startswith("ba7816bf8f01cfea414140de5dae2223")
    task = mmcam.load_task(out, device="cpu", beam=2)
    assert (task.beam, task.length) == (2, 7)
    assert torch.equal(task.model.readout.weight, model.readout.weight)
    with pytest.raises(UserError, match="expected a folder without a model"):
        write_model(model, out, "someone", [], "captioning.CaptioningTask", {})


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", ""])
def test_nothing_is_written_over(name, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / (name or "file")).write_text("mine")
    with pytest.raises(UserError, match=r"--out: expected a folder"):
        write_model(ShowAndTell(["cat"]), tmp_path / "out" / ("" if name else "file"), "someone", [], "a.B", {})
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_folder_without_a_task_says_what_to_write(tmp_path):
    save_model(ShowAndTell(["cat"], embedding=4, hidden=4), tmp_path)
    with pytest.raises(UserError, match=r"does not say which task the model is for, .* write a YAML file"):
        mmcam.load_task(tmp_path)
    assert load_model(str(tmp_path), (ShowAndTell,)).lstm.hidden_size == 4


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d"])
def test_resnets_of_torchvision_are_read_off_their_weights(name):
    """Also as a sequence of children, whose parts have numbers."""
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name)
    theirs = theirs.to_empty(device="cpu").eval()
    for value in theirs.state_dict().values():
        value.uniform_(0.4, 0.6) if value.ndim == 1 else value.zero_() if value.ndim == 0 else nn.init.normal_(
            value, std=0.02
        )
    sequence = nn.Sequential(nn.Sequential(*list(theirs.children())[:-2])).state_dict()
    weights = named_like_torchvision(sequence, "0.")
    ours = ResNet(**sizes_of(weights, "file")).eval()
    ours.load_state_dict(weights)
    images = torch.rand(1, 3, 40, 50)
    with torch.no_grad():
        wanted = nn.Sequential(*list(theirs.children())[:-2])(images)
        torch.testing.assert_close(ours.trunk(images)[0], wanted)
