"""The page on imports: its commands run, on the fixture's files of the peer with a tiny CNN in place of ResNet-152."""

import re
import shutil
from pathlib import Path

import pytest
import torch

from captioning.importers.parts import read_weights
from mmcam.cli import main
from mmcam.scenes.source import Scenes
from mmcam.verbs.import_ import PEERS
from tests.captioning.importers.peers import FILES, in_sequence, tiny_resnet

PAGE = (Path(__file__).parents[1] / "docs" / "importing.md").read_text(encoding="utf-8")
PEER = FILES / "yunjey_image_captioning"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The files by the names that the page calls them, and a photo."""
    monkeypatch.chdir(tmp_path)
    encoder = read_weights(PEER / "encoder-10-2.head_only.ckpt") | in_sequence(tiny_resnet())
    torch.save(encoder, "encoder-5-3000.pkl")
    shutil.copy(PEER / "decoder-10-2.ckpt", "decoder-5-3000.pkl")
    shutil.copy(PEER / "vocab.pkl", "vocab.pkl")
    Scenes(count=1, seed=7).sample(0).image.save("photo.jpg")


def test_the_page_runs(here, capsys):
    """`importing.md` from top to bottom."""
    names: dict[str, object] = {}
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert [language for language, _ in found] == ["sh", "python"]
    for language, content in found:
        if language == "python":
            exec(compile(content, "importing.md", "exec"), names)
            continue
        for line in content.splitlines():
            program, *words = line.split()
            assert program == "mmcam"
            assert main(words) == 0, capsys.readouterr().err
    assert "layer4 19" in capsys.readouterr().out


def test_every_peer_has_its_row_with_its_command():
    rows = [line for line in PAGE.splitlines() if line.startswith("| [")]
    told = {name for row in rows for name in re.findall(r"`mmcam import (\w+) ", row)}
    assert told == set(PEERS)
    assert len(rows) == len(PEERS)
