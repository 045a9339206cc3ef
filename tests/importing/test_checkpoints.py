import json
import pickle
import sys
import zipfile
from collections import OrderedDict
from io import BytesIO
from types import ModuleType

import pytest
import torch
from torch import nn

from mmcam.errors import UserError
from mmcam.importing import checkpoints
from mmcam.importing.checkpoints import named_globals, read_checkpoint, state_of
from mmcam.importing.pickles import Plain
from tests.captioning.importers.peers import FILES
from tests.importing.hostile import Modules, attacks

AGES = {"new": True, "old": False}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.deep = nn.Sequential(nn.Linear(4, 2), nn.ReLU())
        self.tied = nn.Linear(4, 2)
        self.tied.weight = self.deep[0].weight
        self.absent = None


class HarmlessPickler:
    """What `torch.save` wants of a pickle module."""

    Pickler, dumps, loads = Modules, staticmethod(pickle.dumps), staticmethod(pickle.loads)
    dump = staticmethod(lambda value, stream, protocol=2: Modules(stream, protocol).dump(value))


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Saves with a class of a module that is gone when the file is read."""

    def save(value, age):
        module = ModuleType("their_models")
        module.__file__ = __file__
        monkeypatch.setitem(sys.modules, "their_models", module)
        monkeypatch.setattr(Net, "__module__", "their_models")
        module.Net = Net
        path = tmp_path / f"{age}.anything"
        torch.save(value, path, _use_new_zipfile_serialization=AGES[age])
        monkeypatch.delitem(sys.modules, "their_models")
        return path

    return save


@pytest.mark.parametrize("age", AGES)
def test_a_whole_model_gives_its_state_dict(saved, age):
    net = Net()
    optimizer = torch.optim.Adam(net.parameters())
    path = saved({"encoder": net, "optimizer": optimizer, "epoch": 3}, age)
    tree = read_checkpoint(path, ["*.Net"])
    assert tree["epoch"] == 3
    assert isinstance(tree["encoder"], Plain)
    state = state_of(tree["encoder"])
    assert list(state) == list(net.state_dict())
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())
    assert "their_models" not in sys.modules
    with pytest.raises(UserError, match=r"names their_models\.Net,"):
        read_checkpoint(path, ["*.Encoder"])


@pytest.mark.parametrize("age", AGES)
def test_state_dicts_of_every_type_come_back(saved, age):
    base = torch.arange(12.0)
    value = OrderedDict(
        half=torch.ones(2, dtype=torch.float16),
        long=torch.arange(3),
        mask=torch.tensor([True, False]),
        view=base[4:10].view(2, 3).T,
        scalar=torch.tensor(2.5, dtype=torch.float64),
        parameter=nn.Parameter(torch.ones(2)),
        empty=torch.empty(0, 3),
    )
    tree = read_checkpoint(saved(value, age))
    assert all(torch.equal(tree[name], tensor) for name, tensor in value.items())


def test_types_of_old_models_come_back_too(saved):
    """Beside a model the file goes another way."""
    base = torch.arange(12.0)
    value = {"net": Net(), "half": torch.ones(2).half(), "long": torch.arange(3), "view": base[4:10].view(2, 3).T}
    value |= {"mask": torch.tensor([True, False]), "double": torch.tensor(2.5).double(), "empty": torch.empty(0, 3)}
    value["brain"] = torch.ones(3, dtype=torch.bfloat16)
    tree = read_checkpoint(saved(value, "old"), ["*.Net"])
    assert all(torch.equal(tree[name], tensor) for name, tensor in value.items() if name != "net")


@pytest.mark.parametrize("age", AGES)
@pytest.mark.parametrize("attack", ["system", "eval", "open", "getattr"])
@pytest.mark.parametrize("beside", ["nothing", "a model"])
def test_nothing_is_run_and_the_global_is_named(attack, age, beside, tmp_path):
    mark = tmp_path / "harm"
    value, name = attacks(mark)[attack]
    path = tmp_path / "checkpoint.pth"
    tree = {"encoder": nn.Linear(1, 1) if beside == "a model" else torch.ones(2), "x": value}
    torch.save(tree, path, pickle_module=HarmlessPickler, _use_new_zipfile_serialization=AGES[age])
    with pytest.raises(UserError) as caught:
        read_checkpoint(path, ["*.Encoder"])
    assert any(f"its pickle names {found}," in str(caught.value) for found in (name, "builtins.__import__"))
    assert not mark.exists()


@pytest.mark.parametrize("place", range(5))
def test_no_pickle_of_an_old_file_is_run(place, tmp_path, saved):
    """Old files are five pickles, one after the other; an attack may be in any."""
    mark = tmp_path / "harm"
    attack = pickle.dumps(attacks(mark)["system"][0], 2)
    data = saved({"net": nn.Linear(2, 2)}, "old").read_bytes()
    starts, stream = [0], BytesIO(data)
    for _ in range(5):
        list(checkpoints._globals(stream))
        starts.append(stream.tell())
    path = tmp_path / "bad.pth"
    path.write_bytes(data[: starts[place]] + attack + data[starts[place + 1] :])
    if place == 0:
        with pytest.raises(UserError, match="expected a torch checkpoint"):
            read_checkpoint(path)
    else:
        with pytest.raises(UserError, match=r"names (posix|nt)\.system,"):
            read_checkpoint(path)
        with pytest.raises(UserError, match=r"names|no whole checkpoint"):
            checkpoints.read_old_model(path, ["torch.nn.modules.*"])
    assert not mark.exists()


def test_protocol_4_hides_no_name(tmp_path):
    """A newer protocol puts the name together on the stack, which torch's files never do."""
    value = {"x": attacks(tmp_path / "harm")["system"][0]}
    with zipfile.ZipFile(tmp_path / "new.pth", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(value, 4))
        archive.writestr("archive/version", "3")
    with pytest.raises(UserError, match=r"names (posix|nt)\.system,"):
        read_checkpoint(tmp_path / "new.pth")


def test_the_globals_of_a_real_file_are_listed(tmp_path):
    listed = json.loads((FILES / "sgrvinod_show_attend_tell" / "pickle_globals.json").read_text())
    torch.save({"net": nn.Linear(2, 2), "optimizer": torch.optim.Adam([nn.Parameter(torch.ones(1))])}, tmp_path / "a")
    wanted = {name.replace(" ", ".").replace("__builtin__", "builtins") for name in listed}
    found = named_globals(tmp_path / "a")
    assert "torch.nn.modules.linear.Linear" in found
    assert found <= wanted


def test_broken_files(tmp_path, saved):
    for age in AGES:
        data = saved({"net": Net()}, age).read_bytes()
        (tmp_path / "cut").write_bytes(data[: len(data) * 2 // 3])
        with pytest.raises(UserError, match=r"no whole checkpoint|expected a torch checkpoint"):
            read_checkpoint(tmp_path / "cut", ["*.Net"])


def test_an_old_storage_may_not_be_larger_than_its_file(tmp_path, saved):
    data = saved({"net": nn.Linear(1000, 1)}, "old").read_bytes()
    assert data.count(b"M\xe8\x03") >= 2  # 1000 as a count and in a shape
    (tmp_path / "large").write_bytes(data.replace(b"M\xe8\x03", b"J\xff\xff\xff\x7f"))
    with pytest.raises(UserError, match="storages larger than the file"):
        read_checkpoint(tmp_path / "large")


def test_no_storage_type_is_changed_for_the_next_file(saved, tmp_path):
    """What stands for a type of storage is a partial, whose state a pickle may set: of this reader's own only."""
    data = saved({"net": nn.Linear(2, 2)}, "old").read_bytes()
    starts, stream = [], BytesIO(data)
    for _ in range(3):
        list(checkpoints._globals(stream))
        starts.append(stream.tell())
    changed = b"\x80\x02ctorch\nFloatStorage\n(ctorch\nDoubleStorage\n)}Ntb."
    (tmp_path / "bad").write_bytes(data[: starts[2]] + changed + b"\x80\x02].")
    checkpoints.read_old_model(tmp_path / "bad", ["torch.nn.modules.*"])
    tree = read_checkpoint(saved({"net": nn.Linear(2, 2)}, "old"))
    assert state_of(tree["net"])["weight"].dtype == torch.float32


def test_byte_arrays_of_any_length_are_not_made(tmp_path):
    with zipfile.ZipFile(tmp_path / "new.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02c__builtin__\nbytearray\nJ\x00\x00\x00\x10\x85R.")
        archive.writestr("archive/version", "3")
    with pytest.raises(UserError, match=r"names builtins\.bytearray,"):
        read_checkpoint(tmp_path / "new.pth")


def test_a_small_file_with_a_large_pickle_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "LARGEST_TREE", 2**20)
    with zipfile.ZipFile(tmp_path / "new.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02X\x00\x00\x20\x00" + b"a" * 2**21 + b".")
        archive.writestr("archive/version", "3")
    assert (tmp_path / "new.pth").stat().st_size < 10_000
    with pytest.raises(UserError, match="a pickle of 2 MiB beside the tensors"):
        read_checkpoint(tmp_path / "new.pth")


@pytest.mark.parametrize("flag", [b"\x01", b"\x00"])
def test_archives_that_cannot_be_unpacked_are_one_line(flag, tmp_path):
    """Encrypted, and packed in a way that there is not."""
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
    data = bytearray((tmp_path / "a.pth").read_bytes())
    for start, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.index(start) + place
        data[at : at + 1] = flag
        data[at + 2 : at + 3] = b"\x00" if flag == b"\x01" else b"\x63"
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(UserError, match="is no whole checkpoint"):
        read_checkpoint(tmp_path / "a.pth")


def test_modules_that_hold_one_another_without_end():
    net, shared = Plain(), Plain()
    net._modules = {"net": net}
    with pytest.raises(UserError, match="10000 modules at most, got more; does one hold itself"):
        state_of(net)
    shared._modules = {}
    for _ in range(60):  # 2 ** 60 modules
        outer = Plain()
        outer._modules, shared = {"a": shared, "b": shared}, outer
    with pytest.raises(UserError, match="10000 modules at most"):
        state_of(shared)
    net._modules = {"net": 3}
    with pytest.raises(UserError, match="expected a pickled model, got int"):
        state_of(net)
    net._modules = [1]
    with pytest.raises(UserError, match="without named parts"):
        state_of(net)
