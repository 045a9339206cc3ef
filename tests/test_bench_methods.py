import json

import pytest
import torch

from benchmarks import bench_methods, pairs
from benchmarks.pairs import PAIRS, Pair
from benchmarks.peers import Peer
from benchmarks.workloads import TINY

SLOW = {"ablation_cam", "score_cam, torchcam's masks", "score_cam, pytorch-grad-cam's masks"}
"""512 forwards a target."""

pytestmark = [
    pytest.mark.filterwarnings("ignore:Setting backward hooks"),
    pytest.mark.filterwarnings("ignore:Input Tensor 0 did not"),
]


@pytest.fixture(scope="module")
def work():
    return bench_methods.workload(2, TINY, 0, "cpu")


@pytest.mark.parametrize("method", sorted(PAIRS.keys() - SLOW))
def test_the_maps_of_every_pair_agree(work, method):
    pair = PAIRS[method]
    with bench_methods.enlarged(work, pair.weights):
        mine = pair.ours(work)
        offs = {
            name: bench_methods.deviation(pair, peer, mine, peer.run(work), work) for name, peer in pair.peers.items()
        }
    assert bool(mine.any())
    for name, off in offs.items():
        known = (method, name) == ("grad_cam_plus_plus", "torchcam")
        assert (off > 1e-2) if known else (off < bench_methods.TOLERANCE)


def test_deviations_are_found_and_signs_are_free_only_where_said(work):
    maps = torch.tensor([[[1.0, -2.0]], [[4.0, 0.0]]])
    off = maps.clone()
    off[1, 0, 1] = 1.0  # a quarter of the largest of its own map
    peer = Peer(lambda work: maps)
    plain, either = Pair(lambda work: maps, {}), Pair(lambda work: maps, {}, either=True)
    assert bench_methods.deviation(plain, peer, maps, off, work) == 0.25
    assert bench_methods.deviation(plain, peer, maps, -maps, work) == 2.0
    turned = maps * torch.tensor([1.0, -1.0])[:, None, None]
    assert bench_methods.deviation(either, peer, maps, turned, work) == 0.0


def test_what_is_wrong_is_not_timed(work, monkeypatch):
    wrong = Peer(lambda work: pairs.PAIRS["grad_cam"].ours(work) * 2)
    right = Peer(PAIRS["grad_cam"].ours)
    monkeypatch.setattr(bench_methods, "PAIRS", {"one": Pair(right.run, {"wrong": wrong, "right": right})})
    rows = {row["peer"]: row for row in bench_methods.measure("one", work, 2, 0)}
    assert "ratios" not in rows["wrong"]
    assert "**other maps**" in bench_methods._line(rows["wrong"])
    assert len(rows["right"]["ratios"]) == 2
    assert all(0.01 < ratio < 100 for ratio in rows["right"]["ratios"])


def test_the_command_writes_a_table(tmp_path, capsys):
    out = tmp_path / "methods"
    chosen = ["guided_backprop", "cam"]
    options = ["--quick", "--repeats", "1", "--threads", "1", "--targets", "1", "3", "--out", str(out)]
    assert bench_methods.main([*options, "--methods", *chosen]) == 0
    written = out.with_suffix(".md").read_text(encoding="utf-8")
    assert written == capsys.readouterr().out
    assert "### 1 target\n" in written
    assert "| guided_backprop † | captum, one batch |" in written
    report = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert report["machine"]["picture"] == "64 px"
    assert [case["targets"] for case in report["cases"]] == [1, 3]
    assert report["cases"][0]["limit"] == pytest.approx(1)
    assert [row["peer"] for row in report["cases"][1]["rows"]] == [
        *("captum", "captum, one batch"),
        "torchcam",
    ]
