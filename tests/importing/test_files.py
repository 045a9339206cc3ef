import bz2
import json
import pickle
import tarfile
import tracemalloc
import zipfile
from io import BytesIO

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mmcam.errors import UserError
from mmcam.importing.checkpoints import read_checkpoint
from mmcam.importing.files import KINDS, kind_of, read_json, read_lines, sha256
from tests.captioning.importers.peers import FILES

MADE = {
    "torch": lambda path: torch.save({"a": torch.ones(2)}, path),
    "old torch": lambda path: torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False),
    "torchscript": lambda path: zipped(path, ["net/data.pkl", "net/constants.pkl", "net/code/__torch__.py"]),
    "zip": lambda path: zipped(path, ["photo.jpg"]),
    "torch tar": lambda path: tar(path, ["sys_info", "pickle", "tensors", "storages"]),
    "tar": lambda path: tar(path, ["a", "b", "c"]),
    "pickle": lambda path: path.write_bytes(pickle.dumps({"a": 1})),
    "json": lambda path: path.write_text(json.dumps({"a": 1})),
    "npz": lambda path: path.write_bytes(npz()),
    "npy": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00"),
    "hdf5": lambda path: h5py.File(path, "w").close(),
    "safetensors": lambda path: save_file({"a": torch.ones(2)}, path),
    "gzip": lambda path: path.write_bytes(b"\x1f\x8b\x08"),
    "lua": lambda path: path.write_bytes(b"\x04\x00\x00\x00\x01\x00\x00\x00\x03\x00\x00\x00V 1"),
    "html": lambda path: path.write_text("<!DOCTYPE html><html>404</html>"),
    "lfs": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0"),
    "text": lambda path: path.write_text("<unk>\nyes\nno\n"),
    "empty": lambda path: path.write_bytes(b""),
    "unknown": lambda path: path.write_bytes(bytes(range(1, 200))),
}


def tar(path, names):
    with tarfile.open(path, "w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name), BytesIO())


def zipped(path, names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"")


def npz():
    stream = BytesIO()
    np.savez(stream, a=np.ones(2))
    return stream.getvalue()


@pytest.mark.parametrize("kind", MADE)
def test_a_file_is_known_by_its_content(kind, tmp_path):
    path = tmp_path / "file.json"
    MADE[kind](path)
    assert kind_of(path) == kind
    if kind not in ("torch", "old torch"):
        with pytest.raises(UserError, match=r"expected a (checkpoint of torch 0\.2|torch checkpoint, got)"):
            read_checkpoint(path)
    if kind != "json":
        with pytest.raises(UserError) as caught:
            read_json(path)
        assert KINDS[kind] in str(caught.value)


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol(protocol, tmp_path):
    for value in ({"a": 1}, [1, "a"], {1: {"b": None}}):
        (tmp_path / "a").write_bytes(pickle.dumps(value, protocol))
        assert kind_of(tmp_path / "a") == "pickle"


def test_names_lie():
    peer = FILES / "yunjey_image_captioning"
    assert kind_of(peer / "legacy_format" / "decoder-10-2.pkl") == "old torch"
    assert kind_of(peer / "decoder-10-2.ckpt") == "torch"
    assert kind_of(peer / "vocab.pkl") == "pickle"
    assert kind_of(FILES / "ruotianluo_imagecaptioning" / "newfc" / "infos_newfc.python2_style.pkl") == "pickle"


def test_text_and_json(tmp_path):
    path = tmp_path / "words"
    path.write_text("<unk>\n yes \nno\n", encoding="utf-8")
    assert read_lines(path) == ["<unk>", "yes", "no"]
    path.write_text('{"a": [1, 2')
    with pytest.raises(UserError, match="is not whole JSON"):
        read_json(path)
    path.write_text('{"a": [1, 2]}')
    assert read_json(path) == {"a": [1, 2]}
    path.write_bytes(b"abc")
    assert sha256(path).startswith("ba7816bf8f01cfea414140de5dae2223")  # FIPS 180-2
    with pytest.raises(UserError, match="nothing"):
        kind_of(tmp_path / "nothing")


def test_a_tar_is_known_by_its_headers_alone(tmp_path):
    """`tarfile` would unpack what is compressed, and read a long name of the length that the header gives."""
    name = tarfile.TarInfo("././@PaxHeader")
    name.type, name.size = tarfile.XHDTYPE, 2**26
    content = name.tobuf(tarfile.USTAR_FORMAT) + bytes(2**26)
    (tmp_path / "a").write_bytes(bz2.compress(content))
    del content
    tracemalloc.start()
    assert kind_of(tmp_path / "a") == "unknown"
    name.size = 8**11 - 1
    (tmp_path / "b").write_bytes(name.tobuf(tarfile.USTAR_FORMAT))
    assert kind_of(tmp_path / "b") == "tar"
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
