import json

import pytest
import torch

from benchmarks import bench_dump, rows
from benchmarks.rows import Blots, Words
from mmcam import explain
from mmcam.dumps.reader import MapReader

QUICK = ["--quick", "--images", "5", "--batch", "2", "--part-size", "3", "--workers", "0", "--threads", "1"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    options = bench_dump._parse(QUICK)
    return bench_dump.prepared(tmp_path_factory.mktemp("bench"), bench_dump.TINY, options)


def test_the_pieces_do_what_the_dump_does(bench):
    bench.dump()
    bench.write()
    with MapReader(bench.place / "dumped") as dumped, MapReader(bench.place / "written") as written:
        assert dumped.ids == written.ids == ("0", "1", "2", "3", "4")
        assert not dumped.failures
        for name in ("0", "1"):  # later batches are written from the tensors of other pictures
            one, other = dumped[name], written[name]
            assert one.words == other.words
            torch.testing.assert_close(one.scores, other.scores)
            # As the dump's maps are float16 of their peak.
            scale = other.maps.amax((1, 2), keepdim=True)
            assert ((one.maps - other.maps).abs() <= 2e-3 * scale).all()
            assert dumped.target_ids(name) == written.target_ids(name)


def test_batches_end_with_their_part(bench):
    assert [list(numbers) for numbers in bench.steps] == [[0, 1], [2], [3, 4]]


@pytest.mark.parametrize("targets", ["given", "predicted"])
def test_the_command_writes_tables(tmp_path, capsys, targets):
    out = tmp_path / "dump"
    assert bench_dump.main([*QUICK, "--part-size", "5", "--repeats", "1", "--targets", targets, "--out", str(out)]) == 0
    written = out.with_suffix(".md").read_text(encoding="utf-8")
    assert written == capsys.readouterr().out
    assert "| dump, end to end |" in written
    assert "| decode, in one process |" in written
    report = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert report["images"] == 5
    assert 0 < report["words"] <= 15
    assert {name: len(times) for name, times in report["seconds"].items()} == dict.fromkeys(
        ("dump", "reading", *bench_dump.PIECES), 1
    )


def test_the_words_out_of_nothing_have_maps():
    task, source = Words(), Blots(3)
    explanations = explain(task, task.collate([source.sample(number) for number in range(3)]))
    assert [one.signed.shape for one in explanations] == [(10, 14, 14)] * 3
    assert all(one.signed.abs().amax((1, 2)).all() for one in explanations)


def test_rows_are_weighed():
    weight = rows._alone(30, 1)  # in this process, since another one would have to import torch
    assert weight.rows == 300
    assert weight.plain > 392  # 14 * 14 numbers of two bytes
    assert weight.packed < weight.plain
