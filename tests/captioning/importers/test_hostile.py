"""Every file of every peer that is a pickle or holds one may be hostile: nothing is run, and the global is named."""

import pickle

import pytest
import torch
from torch import nn

from mmcam.cli import main
from tests.captioning.importers.peers import FILES, in_sequence, tiny_resnet
from tests.importing.hostile import attacks

YUNJEY, SGRVINOD, RUOTIANLUO = (
    FILES / name for name in ("yunjey_image_captioning", "sgrvinod_show_attend_tell", "ruotianluo_imagecaptioning")
)
OTHERS = {
    "yunjey": [YUNJEY / "encoder-10-2.head_only.ckpt", YUNJEY / "decoder-10-2.ckpt"],
    "sgrvinod": [next(SGRVINOD.glob("WORDMAP*.json"))],
    "ruotianluo": [RUOTIANLUO / "newfc" / "model.pth"],
}


@pytest.mark.parametrize("kind", ["pickle", "torch", "old torch", "old model"])
@pytest.mark.parametrize("peer", OTHERS)
def test_nothing_is_run(peer, kind, tmp_path, capsys):
    value, name = attacks(tmp_path / "harm")["system"]
    path = tmp_path / "file"
    content = {"vocab": value, "encoder": nn.Linear(1, 1) if kind == "old model" else 0, "embed.weight": value}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content, 2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "torch")
    others = list(OTHERS[peer])
    if kind == "pickle" and peer == "ruotianluo":
        others.append(tmp_path / "cnn")
        torch.save({"conv1.weight": torch.ones(1, 3, 7, 7)}, others[-1])
    assert main(["import", peer, *map(str, others), str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    if peer == "sgrvinod" and kind == "pickle":
        assert "got a Python pickle" in error  # it has none
    else:
        assert f"its pickle names {name}," in error
    assert not (tmp_path / "harm").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("peer", "files", "message"),
    [
        ("yunjey", [YUNJEY / "vocab.pkl", YUNJEY / "vocab_imported_class.pkl"], "expected vocab.pkl once"),
        ("yunjey", [YUNJEY / "decoder-10-2.ckpt"] * 2, "expected the decoder once"),
        ("yunjey", [YUNJEY / "encoder-10-2.head_only.ckpt"] * 2, "expected the encoder once"),
        ("sgrvinod", [next(SGRVINOD.glob("WORDMAP*.json"))] * 2, "expected the WORDMAP once"),
        ("sgrvinod", [YUNJEY / "decoder-10-2.ckpt"] * 2, "expected the checkpoint once"),
        ("ruotianluo", [RUOTIANLUO / "newfc" / "model.pth", RUOTIANLUO / "att2in2" / "model.pth"], "model.pth once"),
        ("ruotianluo", [RUOTIANLUO / "newfc" / "infos_newfc.pkl"] * 2, "expected infos_<id>.pkl once"),
    ],
)
def test_of_two_files_of_a_kind_none_is_chosen_in_silence(peer, files, message, tmp_path, capsys):
    assert main(["import", peer, *map(str, files), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert f"{message}, got {files[0]} and {files[1]}; leave one out\n" in error
    assert error.count("\n") == 1


def test_a_small_file_that_says_a_large_size_is_compared_first(tmp_path, capsys):
    """4 MB of a recurrent matrix say 4 TB; the peer's others are as they were."""
    weights = torch.load(YUNJEY / "decoder-10-2.ckpt", weights_only=True)
    weights["lstm.weight_hh_l0"] = torch.ones(1, 10**6)
    torch.save(weights, tmp_path / "decoder.ckpt")
    encoder = torch.load(YUNJEY / "encoder-10-2.head_only.ckpt", weights_only=True)
    torch.save({**in_sequence(tiny_resnet()), **encoder}, tmp_path / "encoder.ckpt")
    files = [tmp_path / "encoder.ckpt", tmp_path / "decoder.ckpt", YUNJEY / "vocab.pkl"]
    assert main(["import", "yunjey", *map(str, files), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "cells.0.weight_hh (1, 1000000) instead of (4000000, 1000000)" in error
    assert error.count("\n") == 1
