import json

import pytest
import torch

from benchmarks import bench_faithfulness
from benchmarks.workloads import TINY, Case, build

QUICK = ["--quick", "--threads", "1", "--steps", "3", "--repeats", "1"]


@pytest.fixture(scope="module")
def work():
    return build(Case("b", 1, 3), TINY, 0, "cpu")


def test_batches_give_the_loop_s_curves(work):
    found = {name: way.run(work) for name, way in bench_faithfulness.ways(4, 5).items()}
    assert found["loop"].shape == (2, 3, 5)
    torch.testing.assert_close(found["batched"], found["loop"], rtol=0, atol=1e-5)
    assert not torch.equal(found["batched, trunk in bfloat16"], found["batched"])
    assert "trunk" not in vars(work.task)
    assert (found["loop"][0, :, 0] - found["loop"][1, :, -1]).abs().max() < 1e-5  # the whole picture
    assert found["loop"].std(2).min() > 0


def test_what_differs_is_not_timed(work):
    chosen = bench_faithfulness.ways(2, 5)
    chosen["wrong"] = bench_faithfulness.Way(lambda work: chosen["loop"].run(work) * 1.5, 1e-3)
    rows = {row["way"]: row for row in bench_faithfulness.measure(work, chosen, 1, 0)}
    assert "seconds" not in rows["wrong"]
    assert rows["wrong"]["deviation"] > 0.5
    assert len(rows["batched"]["seconds"]) == 1


def test_the_command_writes_its_table(tmp_path, capsys):
    assert bench_faithfulness.main([*QUICK, "--out", str(tmp_path / "bench")]) == 0
    page = (tmp_path / "bench.md").read_text(encoding="utf-8")
    assert page == capsys.readouterr().out
    assert "pictures: 24 in the loop, 16 in batches" in page
    assert "| batched, trunk in bfloat16 |" in page
    report = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert [row["way"] for row in report["rows"]] == ["loop", "batched", "batched, trunk in bfloat16"]
