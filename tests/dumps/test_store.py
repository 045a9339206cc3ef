import hashlib
import json
import re
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from mmcam import __version__
from mmcam.disk import checksum_path
from mmcam.dumps import schema
from mmcam.dumps.reader import MapReader
from mmcam.dumps.store import MapWriter
from mmcam.errors import UserError
from mmcam.explanation import Explanation


def explanation(name="a", words=("a", "dog"), signed=None, **changes):
    generator = torch.Generator().manual_seed(len(name))
    signed = torch.randn(len(words), 3, 4, generator=generator) * 1e-5 if signed is None else signed
    scores = torch.arange(len(words)) * -0.5
    one = Explanation(name, "", tuple(words), scores, signed, (30, 40), (0.0, 0.0, 30.0, 40.0), "grad_cam", "conv2")
    return replace(one, **changes)


def write(path, *explanations, **options):
    with MapWriter(path, config={"task": {"x": 1}}, layer="conv2", **options) as maps:
        for one in explanations:
            maps.append([one])
    return path


def test_what_is_written_is_read(tmp_path):
    first = explanation("dog", prompt="where is it? – dort", window=(1.25, -2.5, 30.5, 33.3))
    second, third = explanation("cat/é", ()), explanation("b", ("tiger cat", "…", "x"), size=(7, 30000))
    path = tmp_path / "new folder" / "maps.h5"
    with MapWriter(path, config={"task": {"x": [1, None]}}, layer="conv2", weights_sha256="ab") as maps:
        maps.append([first, second], [[3, -1], []])
        maps.append([third])
        maps.append([])
        assert not path.exists()
    assert [file.name for file in path.parent.iterdir()] == ["maps.h5"]
    with MapReader(path) as reader:
        assert len(reader) == 3
        assert reader.ids == ("dog", "cat/é", "b")
        for one, other in zip((first, second, third), reader, strict=True):
            for name in ("id", "prompt", "words", "size", "window", "method", "layer"):
                assert getattr(one, name) == getattr(other, name)
            assert torch.equal(one.scores, other.scores)
            assert other.signed.dtype == torch.float32
            peak = one.maps.flatten(1).amax(1)[:, None, None] if one.words else 0
            assert bool(((one.maps - other.maps).abs() <= 1e-3 * peak).all())
        assert reader["cat/é"].words == ()
        assert reader[-1].id == "b"
        assert reader.target_ids("dog") == [3, -1]
        assert reader.target_ids(2) == [-1, -1, -1]
        assert reader.attributes["config"] == {"task": {"x": [1, None]}}
        assert reader.attributes["weights_sha256"] == "ab"
        with pytest.raises(IndexError):
            reader[3]
        with pytest.raises(UserError, match=r"unknown id in .* 'dig': did you mean 'dog'"):
            reader["dig"]


def test_the_documented_table_is_that_of_a_real_file(tmp_path):
    """The module's docstring lists every data set with its shape and type, and every attribute; no more, no less."""
    sizes = {3: "M", 4: "M+1", 6: "N", 17: "h", 19: "w", 2: "2", 5: "F", 7: "k"}
    ones = [explanation(name, ("u", "v"), torch.rand(2, 17, 19), weights=torch.rand(2, 7)) for name in "abc"]
    found = {}
    with MapWriter(tmp_path / "maps.h5", config={}, layer="conv2", signed=True, weights=True) as maps:
        maps.append(ones)
        maps.fail({name: "broken" for name in "uvwxy"})

    def note(name, data):
        if isinstance(data, h5py.Dataset):
            kind = "utf-8" if h5py.check_string_dtype(data.dtype) else str(data.dtype)
            more = {4: "4"} if name == "windows" else {2: "V"} if name == "vocabulary" else {}
            shape = ", ".join(
                (sizes | more if axis or name == "vocabulary" else sizes)[size] for axis, size in enumerate(data.shape)
            )
            found[name] = f"({shape},)" if data.ndim == 1 else f"({shape})", kind

    with h5py.File(tmp_path / "maps.h5") as file:
        file.visititems(note)
        attributes = set(file.attrs)
        assert h5py.check_enum_dtype(file["flags"].dtype) == {"ok": 0, "zero": 1, "negative": 2, "non-finite": 3}
    found["flags"] = found["flags"][0], "enum"
    doc = schema.__doc__
    table = re.findall(r"^    /([\w/]+) +(\([^)]*\)) +([\w-]+)  ", doc, re.MULTILINE)
    assert {name: (shape, dtype) for name, shape, dtype in table} == found
    assert attributes == set(re.findall(r"`(\w+)`", doc.partition("attributes")[2].partition("ISO")[0]))


def test_several_methods_and_maps_before_relu(tmp_path):
    first = explanation(signed=torch.randn(2, 3, 4) * 1e-6, weights=torch.randn(2, 5))
    second = replace(first, signed=torch.randn(2, 3, 4), weights=None, method="hires_cam")
    path = tmp_path / "maps.h5"
    options = {"methods": ("grad_cam", "hires_cam"), "signed": True, "weights": True}
    with MapWriter(path, config={}, layer="conv2", **options) as maps:
        maps.append([first], others={"hires_cam": [second]})
        with pytest.raises(UserError, match="is of the methods"):
            maps.append([replace(first, id="b")])
    for one in (first, second):
        with MapReader(path, one.method) as reader:
            scale = one.signed.abs().flatten(1).amax(1)[:, None, None]
            assert ((reader[0].signed - one.signed).abs() <= 1e-3 * scale).all()
            assert reader[0].method == one.method
    with MapReader(path) as reader:
        torch.testing.assert_close(reader[0].weights, first.weights)
    with MapReader(path, "hires_cam") as reader:
        assert reader[0].weights is None


def test_bytes_a_row_at_14_x_14(tmp_path):
    """392 are the map's; a row's and its picture's other numbers and texts take the rest. Before compression."""
    ones = [explanation(f"COCO_val2014_{i:012}", ("word",) * 11, torch.rand(11, 14, 14)) for i in range(300)]
    with MapReader(write(tmp_path / "maps.h5", *ones)) as reader:
        fixed = sum(
            data.size * data.dtype.itemsize for data in map(reader._file.get, reader._file) if hasattr(data, "size")
        )
        texts = sum(len(text) for name in ("vocabulary", "ids", "prompts") for text in reader._file[name][:])
    assert (fixed + texts) / 3300 <= 450


def test_a_checksum_is_that_of_sha256sum(tmp_path):
    path = write(tmp_path / "maps.h5", explanation(), checksum=True)
    beside = checksum_path(path)
    assert beside.read_text() == f"{hashlib.sha256(path.read_bytes()).hexdigest()}  maps.h5\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["maps.h5", "maps.h5.sha256"]


def test_the_numbers_can_be_read_without_mmcam(tmp_path):
    signed = torch.tensor([[[-3.0, 0.5], [2.0, 1.0]], [[4.0, 0.0], [0.0, -1.0]]])
    with h5py.File(write(tmp_path / "maps.h5", explanation(signed=signed))) as file:
        assert file["peaks"][:].tolist() == [2.0, 4.0]
        assert file["maps"][:].tolist() == [[[0.0, 0.25], [1.0, 0.5]], [[1.0, 0.0], [0.0, 0.0]]]
        assert file["offsets"][:].tolist() == [0, 2]
        assert file["vocabulary"].asstr()[:][file["words"][:]].tolist() == ["a", "dog"]
        assert file.attrs["schema_version"] == schema.SCHEMA_VERSION == 2
        assert json.loads(file.attrs["versions"])["mmcam"] == __version__
        assert json.loads(file.attrs["config"]) == {"task": {"x": 1}}


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1.0, 1e6, 1e30])
def test_no_digits_are_lost_at_any_scale(tmp_path, scale):
    one = explanation(signed=torch.randn(2, 9, 9) * scale)
    with MapReader(write(tmp_path / "maps.h5", one)) as reader:
        error = (reader[0].maps - one.maps).abs().flatten(1).amax(1)
    assert bool((error <= 1e-3 * one.maps.flatten(1).amax(1)).all())


def test_flags_outlive_the_file(tmp_path):
    nan, inf = float("nan"), float("inf")
    values = [[1.0, -1.0], [0.0, 0.0], [-1.0, -2.0], [nan, 1.0], [inf, 1.0], [inf, -1.0], [-inf, 0.0]]
    one = explanation(words=tuple("abcdefg"), signed=torch.tensor(values)[:, None])
    with MapReader(write(tmp_path / "maps.h5", one)) as reader:
        again = reader[0]
        assert again.flags == one.flags
        assert again.maps[[2, 6]].tolist() == [[[0.0, 0.0]]] * 2
    with h5py.File(tmp_path / "maps.h5") as file:
        assert [schema.FLAGS[number] for number in file["flags"]] == list(one.flags)


def test_a_file_without_pictures(tmp_path):
    with MapReader(write(tmp_path / "maps.h5")) as reader:
        assert len(reader) == 0
        assert list(reader) == []


def test_an_exception_leaves_nothing_and_keeps_what_was_there(tmp_path):
    path = write(tmp_path / "maps.h5", explanation("old"))

    def fail():
        with MapWriter(path, config={}, layer="conv2", overwrite=True) as maps:
            maps.append([explanation("new")])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == [path]
    with MapReader(path) as reader:
        assert reader.ids == ("old",)


def test_nothing_is_overwritten_unasked(tmp_path):
    path = write(tmp_path / "maps.h5", explanation("old"))
    with pytest.raises(UserError, match="exists already; pass overwrite=True"):
        MapWriter(path, config={})
    with MapReader(write(path, explanation("new"), overwrite=True)) as reader:
        assert reader.ids == ("new",)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ([explanation("a")], "holds 'a' already"),
        ([explanation("b"), explanation("b")], "holds 'b' already"),
        ([explanation("b", layer="conv1")], "holds layer and method .*conv2.*got .*conv1"),
        ([explanation("b", method="hires_cam")], "hires_cam"),
        ([explanation("b", signed=torch.rand(2, 4, 4))], r"holds maps of \(3, 4\), got \(4, 4\)"),
    ],
)
def test_what_does_not_belong_is_refused_and_the_rest_stays(tmp_path, second, message):
    path = tmp_path / "maps.h5"
    with MapWriter(path, config={}, layer="conv2") as maps:
        maps.append([explanation("a")])
        with pytest.raises(UserError, match=message):
            maps.append(second)
    with MapReader(path) as reader:
        assert reader.ids == ("a",)
        assert len(reader["a"].words) == 2


def test_target_ids_are_counted(tmp_path):
    maps = MapWriter(tmp_path / "maps.h5", config={}, layer="conv2")
    with maps, pytest.raises(UserError, match="one target id a word"):
        maps.append([explanation()], [[1]])


def test_a_configuration_may_be_long(tmp_path):
    """HDF5 keeps attributes of 64 KB at most, unless they are texts of any length."""
    words = [f"word{i}" for i in range(20_000)]
    with MapWriter(tmp_path / "maps.h5", config={"vocabulary": words}):
        pass
    with MapReader(tmp_path / "maps.h5") as reader:
        assert reader.attributes["config"]["vocabulary"] == words


def test_files_that_are_no_maps(tmp_path):
    path = tmp_path / "maps.h5"
    with pytest.raises(UserError, match=r"there is no such file; mmcam dump"):
        MapReader(path)
    path.write_text("no")
    with pytest.raises(UserError, match="expected an HDF5 file"):
        MapReader(path)
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros(3)
    with pytest.raises(UserError, match="schema version 2, got version None"):
        MapReader(path)


def test_many_rows_are_read_one_picture_at_a_time(tmp_path):
    ones = [explanation(f"p{i}", ("w",) * (i % 5)) for i in range(120)]
    with MapReader(write(tmp_path / "maps.h5", *ones)) as reader:
        assert reader._file["maps"].chunks == (256, 3, 4)
        for i in (0, 1, 97, 119):
            torch.testing.assert_close(reader[f"p{i}"].maps, ones[i].maps, rtol=1e-3, atol=1e-9)
