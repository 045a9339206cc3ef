import json

import pytest
import torch
from torch import nn

pytest.importorskip("captum")
pytest.importorskip("pytorch_grad_cam")
pytest.importorskip("torchcam")

from benchmarks import bench_engine, measure
from benchmarks.methods import METHODS, plain
from benchmarks.workloads import TINY, Case, build, cases

CASES = [Case("a", 2, 4), Case("b", 2, 3), Case("c", 2, 5)]


@pytest.fixture(scope="module")
def works():
    return {case.workload: build(case, TINY, 0, "cpu") for case in CASES}


@pytest.mark.parametrize("workload", ["a", "b", "c"])
def test_every_method_gives_our_maps(works, workload):
    work = works[workload]
    signed = METHODS["ours"].run(work)
    assert signed.shape[:2] == work.columns.shape
    assert signed.abs().amax((2, 3)).min() > 0
    for name, method in METHODS.items():
        assert measure.deviation(method.run(work), signed, method, work) < measure.TOLERANCE, name


@pytest.mark.parametrize("workload", ["a", "b", "c"])
def test_plain_inference_is_the_task_s_own(works, workload):
    work = works[workload]
    with torch.no_grad():
        scores = work.task.scores(work.task.trunk(work.batch), work.batch, work.targets)
    torch.testing.assert_close(plain(work).gather(1, work.columns), scores)


def test_other_maps_are_seen(works):
    work = works["a"]
    signed = METHODS["ours"].run(work)
    for name, method in METHODS.items():
        others = method.expected(signed, work).roll(1, dims=1)  # the next class's maps
        assert measure.deviation(others, signed, method, work) > 100 * measure.TOLERANCE, name


def test_no_method_leaves_a_trace(works):
    work = works["b"]
    before = {name: parameter.requires_grad for name, parameter in work.whole.named_parameters()}
    METHODS["captum-frozen"].run(work)
    assert {name: parameter.requires_grad for name, parameter in work.whole.named_parameters()} == before
    assert all(
        norm.momentum == 0.1 and not norm.training for norm in work.whole.modules() if isinstance(norm, nn.BatchNorm2d)
    )


def test_slow_methods_run_less_often():
    assert measure.repetitions(0.1, 20) == 20
    assert measure.repetitions(30, 20) == 4
    assert measure.repetitions(50, 20) == 3
    assert measure.repetitions(70, 20) == 0  # the first call counts


def test_rounds_divide_by_plain_inference_of_the_same_round(works, monkeypatch):
    monkeypatch.setattr(measure, "timed", lambda run, work: (2.0 if run is plain else 6.0, torch.zeros(())))
    times = measure.interleaved({"ours": 50.0, "captum": 70.0}, works["a"], 10, 0)
    assert times["plain"].seconds == [2.0] * 10
    assert times["ours"].ratios == [3.0] * 3
    assert times["captum"].seconds == [70.0]
    assert times["captum"].quartiles == (35.0, 35.0, 35.0)


def test_peak_memory_sees_what_is_freed_again():
    def run():
        for _ in range(10):
            torch.ones(2**24)  # 64 MiB

    assert 60 * 2**20 < measure.peak(run, "cpu") < 150 * 2**20  # not 640, but other things live in the process too


def test_the_plan_of_the_issue():
    assert [(c.batch, c.targets) for c in cases("a", None, TINY)] == [(1, 1), (1, 5), (1, 20), (8, 1), (8, 5), (8, 20)]
    assert [c.batch for c in cases("b", None, TINY)] == [1, 8, 32]


def test_the_command_writes_a_table(tmp_path, capsys):
    arguments = ["--quick", "--workload", "c", "--batch", "1", "--threads", "1", "--repeats", "2", "--measure", "time"]
    code = bench_engine.main([*arguments, "--methods", "ours", "by-hand", "--out", str(tmp_path / "c")])
    assert code == 0
    written = (tmp_path / "c.md").read_text(encoding="utf-8")
    assert written == capsys.readouterr().out
    assert "| by-hand |" in written
    report = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert [row["method"] for row in report["cases"][0]["rows"]] == ["plain", "ours", "by-hand"]
    assert report["machine"]["torch"] == torch.__version__.split("+")[0]
