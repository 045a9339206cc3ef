"""A dump holds what `explain` gives, however it was made."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from mmcam.dumps.dump import dump, finish
from mmcam.dumps.lock import Stopped, locked, stopping
from mmcam.dumps.plan import Settings, read_plan, todo
from mmcam.dumps.reader import MapReader
from mmcam.engine import explain
from mmcam.errors import UserError
from mmcam.load import load_task
from mmcam.verbs.dump import _shard
from tests.dumps.conftest import Drawn, assert_same, content, run
from tests.tiny_task import WORDS, TinyTask


def test_a_dump_holds_what_explain_gives(prepare):
    made = prepare(signed=True, weights=True)
    assert dump(*made.all)
    with MapReader(made.folder.local) as maps:
        assert maps.ids == tuple(f"d{i}" for i in range(20))
        for i in (0, 7, 19):
            sample = made.source.sample(i)
            (one,) = explain(made.task, made.task.collate([sample]))
            read = maps[f"d{i}"]
            assert (read.words, read.size, read.layer, read.method) == (one.words, one.size, one.layer, one.method)
            torch.testing.assert_close(read.scores, one.scores)
            scale = one.signed.abs().flatten(1).amax(1)[:, None, None]
            assert ((read.signed - one.signed).abs() <= 1e-3 * scale).all()
            # Here the map is α times the activations, so α is what turns one into the other.
            activations = made.task.trunk(made.task.collate([sample]))[0]
            torch.testing.assert_close(torch.einsum("rk,khw->rhw", read.weights, activations), one.signed)
            assert maps.target_ids(i) == [WORDS.index(word) for word in one.words]


@pytest.mark.parametrize(
    "other",
    [{"batch_size": 1}, {"batch_size": 7, "workers": 2}, {"batch_size": 20, "part_size": 20}, {"part_size": 1}],
    ids=str,
)
def test_the_maps_do_not_depend_on_how_they_were_made(prepare, other):
    """In float64 exactly: batches of other sizes differ in the last digits, which float16 does not have."""
    task = load_task({"task": {"class_path": "tests.tiny_task.TinyTask"}}).double()
    one, two = (prepare(name, task=task, **options) for name, options in (("one", {}), ("two", other)))
    assert dump(*one.all)
    assert dump(*two.all)
    first, second = (content(made.folder.local / "maps.h5") for made in (one, two))
    for found in (first, second):
        found.pop("attributes")
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)


def test_in_float32_they_differ_by_rounding_only(prepare):
    one, two = prepare("one", batch_size=1), prepare("two", batch_size=20, part_size=20)
    assert dump(*one.all)
    assert dump(*two.all)
    with MapReader(one.folder.local) as first, MapReader(two.folder.local) as second:
        for a, b in zip(first, second, strict=True):
            assert a.words == b.words
            torch.testing.assert_close(a.scores, b.scores, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(a.maps, b.maps, rtol=2e-3, atol=2e-3 * float(a.maps.max()))


class Counting(TinyTask):
    """Counts how often its trunk runs."""

    runs = 0

    def trunk(self, batch):
        self.runs += 1
        return super().trunk(batch)


def test_methods_and_targets_share_one_trunk_pass(prepare):
    task = Counting().eval()
    made = prepare(
        task=task, source=Drawn(8, given=True), part_size=8, methods=("hires_cam", "grad_cam"), targets="both"
    )
    assert dump(*made.all)
    assert task.runs == 2  # two batches of four
    with MapReader(made.folder.local, "grad_cam") as first, MapReader(made.folder.local) as second:
        assert second.method == "hires_cam"
        assert first.ids[:3] == ("d0", "d0:given", "d0:given-2")
        for i in (0, 5):
            batch = task.collate([made.source.sample(i)])
            for text, name in (("", f"d{i}"), (WORDS[i], f"d{i}:given"), ("dog cat", f"d{i}:given-2")):
                for maps in (first, second):
                    (one,) = explain(task, batch, task.given([text], batch) if text else None, maps.method)
                    assert maps[name].words == one.words
                    assert maps[name].prompt == text
                    torch.testing.assert_close(maps[name].maps, one.maps, rtol=2e-3, atol=1e-3 * float(one.maps.max()))


def test_given_texts_alone_keep_the_ids(prepare):
    made = prepare(source=Drawn(3, given=True), targets="given")
    assert dump(*made.all)
    with MapReader(made.folder.local) as maps:
        assert maps.ids == ("d0", "d0:given-2", "d1", "d1:given-2", "d2", "d2:given-2")


class SometimesGiven(Drawn):
    def given(self, number):
        return (("dog",), ("dog", "zebra"), ())[number % 3]


def test_what_fails_does_so_alone(prepare):
    made = prepare(source=SometimesGiven(6, broken=[4]), targets="given")
    told = []
    assert dump(*made.all, tell=lambda *counts: told.append(counts))
    with MapReader(made.folder.local) as maps:
        assert maps.ids == ("d0", "d1", "d3")
        unknown = maps.failures.pop("d1:given-2")
        assert maps.failures == {
            "d2": "the data give no text to explain; use --targets predicted",
            "d4": "broken",
            "d5": "the data give no text to explain; use --targets predicted",
        }
        assert "unknown word 'zebra'" in unknown
    assert [sum(column) for column in zip(*told, strict=True)] == [6, 4]


def test_strict_stops(prepare):
    made = prepare(source=Drawn(8, broken=[3]))
    with pytest.raises(UserError, match=r"d3: broken .without --strict"):
        dump(*made.all, strict=True)
    assert not list(made.folder.local.glob("**/*.h5"))
    assert not list(made.folder.local.glob("**/*.part"))


def test_if_nothing_works_something_is_wrong(prepare):
    made = prepare(source=Drawn(6, broken=[*range(6)]))
    with pytest.raises(UserError, match="none of the first 6 samples can be explained: broken"):
        dump(*made.all)


class Greedy(TinyTask):
    """Is short of memory for one picture, and for all that are with it."""

    def trunk(self, batch):
        if "d5" in batch.ids:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().trunk(batch)


def test_out_of_memory_on_one_picture(prepare):
    made = prepare(task=Greedy().eval(), source=Drawn(8))
    assert dump(*made.all)
    with MapReader(made.folder.local) as maps:
        assert maps.ids == ("d0", "d1", "d2", "d3", "d4", "d6", "d7")
        assert "out of memory" in maps.failures["d5"]


class Deadly(Drawn):
    """One picture kills the process that reads it, as a decoder's crash or the system short of memory does."""

    def sample(self, number):
        if number == 9:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGKILL)
        return super().sample(number)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_dead_worker_costs_one_picture(prepare):
    made = prepare(source=Deadly(14), workers=2, part_size=14)
    assert dump(*made.all)
    with MapReader(made.folder.local) as maps:
        assert maps.ids == tuple(f"d{i}" for i in range(14) if i != 9)
        assert "its reader died" in maps.failures["d9"]


def test_a_dump_goes_on_where_it_was(prepare):
    whole = prepare("whole")
    assert dump(*whole.all)
    made = prepare()
    seen = []

    def tell(done, failed):
        seen.append(done)
        if len(seen) == 5:
            raise Stopped

    with pytest.raises(Stopped):
        dump(*made.all, tell=tell)
    assert todo(made.folder, made.plan) == [2, 3]
    assert not list(made.folder.local.glob("**/*.part"))
    more = []
    again = prepare()
    assert dump(*again.all, tell=lambda done, failed: more.append(done))
    assert sum(more) == 8  # the last part has two
    assert_same(whole.folder.local / "maps.h5", made.folder.local / "maps.h5")
    assert dump(*again.all, tell=lambda done, failed: pytest.fail("all is done"))


def test_shards_make_the_same(prepare):
    whole = prepare("whole")
    assert dump(*whole.all)
    made = prepare()
    assert not dump(*made.shard(2, 3))
    assert todo(made.folder, made.plan) == [0, 2, 3]
    assert not dump(*made.shard(1, 3))
    assert dump(*made.shard(3, 3))
    assert_same(whole.folder.local / "maps.h5", made.folder.local / "maps.h5")


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0"])
def test_shards_that_are_none(text):
    with pytest.raises(UserError, match="--shard: expected I/N"):
        _shard(text)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"part_size": 7}, "settings.part_size: 6 → 7"),
        ({"signed": True}, "settings.signed: False → True"),
        ({"limit": 3}, "samples: 20 → 3"),
        ({"source": Drawn(21)}, "samples: 20 → 21"),
        ({"task": TinyTask(layer="conv1").eval()}, "layer: 'conv2' → 'conv1'"),
        ({"task": TinyTask(seed=1).eval()}, "weights_sha256: "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_plan_is_refused(prepare, changed, message):
    prepare()
    with pytest.raises(UserError, match=f"holds a dump of another kind.*{message}"):
        prepare(**changed)


def test_only_missing_does_what_failed_and_what_is_new(prepare):
    made = prepare(source=Drawn(8, broken=[1, 6]))
    assert dump(*made.all)
    again = prepare(source=Drawn(11, broken=[6]), only_missing=True)
    assert again.plan.parts == ((0, 1, 2, 3, 4, 5), (6, 7), (1, 6, 8, 9, 10))
    assert dump(*again.all)
    with MapReader(made.folder.local) as maps:
        assert sorted(maps.ids, key=lambda name: int(name[1:])) == [f"d{i}" for i in range(11) if i != 6]
        assert maps.failures == {"d6": "broken"}
    assert read_plan(made.folder).parts == again.plan.parts
    with pytest.raises(UserError, match="ids_sha256"):
        prepare(source=Drawn(11).__class__(9), only_missing=False)


def test_only_missing_may_be_given_again(prepare):
    """What is planned and not yet made is not planned twice; what fails again may be tried again."""
    made = prepare(source=Drawn(8, broken=[1, 6]))
    assert dump(*made.all)
    for _ in range(2):
        again = prepare(source=Drawn(8, broken=[1, 6]), only_missing=True)
        assert again.plan.parts[2:] == ((1, 6),)
    assert dump(*again.all)
    last = prepare(source=Drawn(8), only_missing=True)
    assert last.plan.parts[2:] == ((1, 6), (1, 6))
    assert dump(*last.all)
    with MapReader(made.folder.local) as maps:
        assert len(maps) == 8
        assert maps.failures == {}


def test_what_comes_again_replaces_the_former(prepare):
    made = prepare(source=SometimesGiven(6, broken=[3]), targets="both")
    assert dump(*made.all)
    with MapReader(made.folder.local) as maps:
        first = maps.ids
        assert sorted(maps.failures) == ["d1:given-2", "d3", "d4:given-2"]
    again = prepare(source=SometimesGiven(6), targets="both", only_missing=True)
    assert again.plan.parts[1:] == ((1, 3, 4),)
    assert dump(*again.all)
    with MapReader(made.folder.local) as maps:
        assert sorted(maps.ids) == sorted([*first, "d3", "d3:given"])
        assert sorted(maps.failures) == ["d1:given-2", "d4:given-2"]


def test_an_error_of_the_source_s_own_is_not_a_dead_reader(prepare):
    class Faulty(Drawn):
        def sample(self, number):
            raise RuntimeError("a fault in the source")

    with pytest.raises(RuntimeError, match="a fault in the source"):
        dump(*prepare(source=Faulty(4), workers=1).all)


def test_a_failure_in_a_part_that_is_sent_elsewhere(prepare):
    made = prepare("memory://with-failures", source=Drawn(8, broken=[1]))
    assert dump(*made.all)
    with MapReader(made.folder.fetch("maps.h5")) as maps:
        assert maps.failures == {"d1": "broken"}


def test_only_missing_wants_the_same_beginning(prepare):
    made = prepare(source=Drawn(8))
    assert dump(*made.all)
    other = Drawn(9)
    other.ids = ["new", *other.ids[:-1]]
    with pytest.raises(UserError, match="ids_sha256"):
        prepare(source=other, only_missing=True)


def test_one_process_at_a_time(prepare):
    made = prepare()
    with locked(made.folder):
        with pytest.raises(UserError, match=r"is being written by process \d+ on .* since"), locked(made.folder):
            pytest.fail("two have the lock")
        with pytest.raises(UserError, match="is being written by"), locked(made.folder, (1, 2)):
            pytest.fail("a shard works on what the other has")
    with (
        locked(made.folder, (1, 2)),
        locked(made.folder, (2, 2)),
        pytest.raises(UserError, match="is being written by"),
        locked(made.folder, (3, 3)),
    ):
        pytest.fail("another division has the same parts")
    with locked(made.folder):
        pass


def test_a_stale_lock_is_none(prepare):
    made = prepare()
    (made.folder.local / ".lock-1-of-1").write_text("")
    (made.folder.local / ".lock-1-of-1.json").write_text("process 1 on a machine that is no more")
    with locked(made.folder):
        pass


def test_ctrl_c_finishes_the_batch(prepare):
    import signal

    made = prepare()
    done = []

    def tell(count, failed):
        done.append(count)
        if len(done) == 4:
            signal.raise_signal(signal.SIGINT)
        look()

    with stopping() as look, pytest.raises(Stopped):
        dump(*made.all, tell=tell)
    assert len(done) == 4  # the part in progress is given up, the one before it stays
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert todo(made.folder, made.plan) == [1, 2, 3]


def test_settings_are_checked():
    with pytest.raises(UserError, match="unknown method 'grad_cma': did you mean 'grad_cam'"):
        Settings(methods=("grad_cma",))
    with pytest.raises(UserError, match="each once"):
        Settings(methods=("grad_cam", "grad_cam"))
    with pytest.raises(UserError, match="part size"):
        Settings(part_size=0)


def test_bfloat16_is_near(prepare):
    one, two = prepare("one"), prepare("two", amp=True)
    assert dump(*one.all)
    assert dump(*two.all)
    with MapReader(one.folder.local) as first, MapReader(two.folder.local) as second:
        assert not torch.equal(first[0].scores, second[0].scores)
        torch.testing.assert_close(first[0].scores, second[0].scores, rtol=0.1, atol=0.02)


def test_finish_waits_for_all_parts(prepare):
    made = prepare()
    assert not finish(made.folder, made.plan, anew=False)


def test_the_command(pictures, capsys):
    Image.new("RGB", (4, 4)).save(pictures / "photos" / "small.png")
    (pictures / "photos" / "zz.jpg").write_text("no picture")
    assert run("--part-size", 5, "--limit", 14) == 1
    out, err = capsys.readouterr()
    with MapReader("out") as maps:
        assert out.splitlines() == [f"13 explained, {sum(len(one.words) for one in maps)} maps", "out/maps.h5"]
    assert "zz.jpg" in err
    assert "1 failed, 13 done" in err
    with MapReader("out") as maps:
        assert maps.ids[0] == "p00.png"
        assert maps.attributes["config"]["task"]["class_path"] == "tests.tiny_task.TinyTask"
        assert maps.attributes["config"]["data"]["init_args"]["where"] == "photos"
    assert json.loads((pictures / "out" / "dump.json").read_text())["parts"] == ["0-4", "5-9", "10-13"]
    assert run("--part-size", 5, "--limit", 14) == 1  # all is there; the failure is told again
    assert run("--part-size", 4, "--limit", 14) == 2
    assert "settings.part_size: 5 → 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "nowhere"], "'nowhere': expected a folder, a list or a picture"),
        (["--data", "easy:test"], "unknown data set for"),
        (["--methods", "grad"], "unknown method 'grad'"),
        (["--part-size", "0"], "--part-size: expected 1 or more"),
        (["--workers", "-1"], "--workers: expected 0 or more"),
        (["--only-missing", "--shard", "1/2"], "--only-missing plans more parts"),
        (["--top-k", "3"], "unknown key of task.init_args 'top_k'"),
        (["--targets", "mine"], "targets: Expected a Literal"),
        (["--out", ""], "expected a folder to write to"),
        (["--config", ""], "expected a model, got none"),
    ],
    ids=str,
)
def test_what_is_wrong_is_one_line(pictures, capsys, words, message):
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
