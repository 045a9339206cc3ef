import pickle
import sys
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict
from fractions import Fraction
from io import BytesIO

import numpy as np
import pytest

from mmcam.errors import UserError
from mmcam.importing.pickles import CONTAINERS, Plain, read_pickle
from tests.importing.hostile import Modules, attacks, protocol_0


class Vocabulary:
    def __init__(self):
        self.word2idx, self.idx2word, self.idx = {"a": 0}, {0: "a"}, 1


def written(path, value, protocol=2):
    stream = BytesIO()
    Modules(stream, protocol).dump(value)
    path.write_bytes(stream.getvalue())
    return path


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("attack", ["system", "eval", "open", "getattr"])
def test_nothing_is_run_and_the_global_is_named(attack, protocol, tmp_path):
    mark = tmp_path / "harm"
    value, name = attacks(mark)[attack]
    path = written(tmp_path / "vocab.pkl", [1, {"vocab": value}], protocol)
    names = {name, "builtins.__import__"}  # of getattr(os, …) either comes first
    with pytest.raises(UserError) as caught:
        read_pickle(path, ["*.Vocabulary", "argparse.Namespace"])
    assert any(f"its pickle names {name}," in str(caught.value) for name in names)
    assert not mark.exists()


def test_neither_is_anything_of_protocol_0(tmp_path):
    (tmp_path / "vocab.pkl").write_bytes(protocol_0(tmp_path / "harm"))
    with pytest.raises(UserError, match=r"names commands\.getoutput,"):
        read_pickle(tmp_path / "vocab.pkl")
    assert not (tmp_path / "harm").exists()


def test_a_class_on_the_list_is_not_imported(tmp_path, monkeypatch):
    module = type(sys)("build_vocab")
    monkeypatch.setitem(sys.modules, "build_vocab", module)
    monkeypatch.setattr(Vocabulary, "__module__", "build_vocab")
    module.Vocabulary = Vocabulary
    path = written(tmp_path / "vocab.pkl", Vocabulary())
    monkeypatch.delitem(sys.modules, "build_vocab")
    vocabulary = read_pickle(path, ["*.Vocabulary"])
    assert isinstance(vocabulary, Plain)
    assert vars(vocabulary) == {"word2idx": {"a": 0}, "idx2word": {0: "a"}, "idx": 1}
    assert "build_vocab" not in sys.modules
    with pytest.raises(UserError, match=r"names build_vocab\.Vocabulary,"):
        read_pickle(path, ["argparse.Namespace"])


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_come_back(protocol, tmp_path):
    value = {"vocab": {"1": "a"}, "opt": Namespace(rnn_size=4), "set": {1, 2}, "empty": (), "text": "ü", "none": None}
    value |= {"ordered": OrderedDict(a=1), "counts": Counter("aab"), "default": defaultdict(list)}
    read = read_pickle(written(tmp_path / "infos.pkl", value, protocol), ["argparse.Namespace"])
    assert vars(read.pop("opt")) == {"rnn_size": 4}
    del value["opt"]
    assert read == value
    assert type(read["default"]) is OrderedDict


def test_numbers_of_numpy_are_passed_over(tmp_path):
    value = {"best_val_score": np.float64(1.25), "history": np.arange(3), "iter": 7}
    read = read_pickle(written(tmp_path / "infos.pkl", value))
    assert read["iter"] == 7
    assert isinstance(read["best_val_score"], Plain)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"a": 1})[:-4], "is no whole pickle of plain data"),
        (b"\x80\x02cargparse\nNamespace\nq\x00}b.", "is no whole pickle"),  # sets attributes of the class itself
        (b"\x80\x02X\x01\x00\x00\x00xQ.", "a reference to something outside the file"),
        (b"\x80\x02\x82\x01.", "is no whole pickle"),  # an extension code, none of which is registered
        (b'{"a": 1}', "expected a Python pickle, got JSON"),
        (b"", "got an empty file"),
    ],
)
def test_broken_and_other_files(content, message, tmp_path):
    (tmp_path / "vocab.pkl").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_pickle(tmp_path / "vocab.pkl", ["argparse.Namespace"])


def test_a_file_too_large_is_not_read(tmp_path):
    path = written(tmp_path / "vocab.pkl", "a" * 2**21)
    with pytest.raises(UserError, match="expected 1 MiB at most, got 2 MiB"):
        read_pickle(path, largest=2**20)


def test_other_classes_of_the_library_are_refused_too(tmp_path):
    with pytest.raises(UserError, match=r"names fractions\.Fraction,"):
        read_pickle(written(tmp_path / "vocab.pkl", Fraction(1, 2)))


def test_room_is_not_made_for_objects_that_are_not_there(tmp_path):
    """An object's number is an index: Python would make a list of two billion entries for these ten bytes."""
    for name, content in {"LONG_BINPUT": b"\x80\x02}r\xff\xff\xff\x3f.", "PUT": b"(dp1073741823\n."}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match="an object with the number 1073741823"):
            read_pickle(tmp_path / name)


@pytest.mark.parametrize("name", ["collections\nCounter", "collections\nOrderedDict", "copy_reg\n_reconstructor"])
def test_a_pickle_changes_no_class_of_ours(name, tmp_path):
    """Setting attributes needs no call."""
    (tmp_path / "a").write_bytes(b"\x80\x02c" + name.encode() + b"\nN}X\x04\x00\x00\x00evilK\x01s\x86b.")
    with pytest.raises(UserError, match="is no whole pickle"):
        read_pickle(tmp_path / "a")
    assert not any(hasattr(value, "evil") for value in (Counter, OrderedDict, *CONTAINERS.values()))
