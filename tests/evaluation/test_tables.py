import json
import math

import pytest
import torch

from mmcam.errors import UserError
from mmcam.evaluation.compare import compare, means_by_unit, paired, read_results
from mmcam.evaluation.plots import plot
from mmcam.evaluation.tables import Table
from mmcam.metrics.base import Case, Figure, PerMap, summarise

NAN = float("nan")


def table():
    rows = {
        "grad_cam": {"pointing": Figure(0.9, 0.85, 0.95, 100, 3), "n": 5, "share_%": 0.25},
        "a|b": {"pointing": Figure(NAN, NAN, NAN, 0, 4)},
    }
    return Table("Maps", rows, {"weights": "ab" * 32, "seed": 7}, ("A note.",), {"pointing": True})


def test_markdown():
    lines = table().markdown().splitlines()
    assert lines[2] == "|  | pointing ↑ | n | share_% |"
    assert lines[4] == "| grad_cam | 0.900 ± 0.050 | 5 | 0.250 |"
    assert lines[5] == "| a\\|b | – |  |  |"
    assert lines[7].startswith("n = 100 (3 undefined). ±")
    assert lines[8].strip() == "A note."
    assert lines[-1] == "<sub>weights abababababab; seed 7</sub>"


def test_latex():
    text = table().latex()
    assert "grad\\_cam & 0.900 $\\pm$ 0.050 & 5 & 0.250 \\\\" in text
    assert "share\\_\\%" in text
    assert text.startswith("% weights: abababababab\n% seed: 7\n")


def test_latex_escapes_what_latex_reads():
    text = Table("a_b", {"x{y}": {"p^2 < q~": 1.0}}).latex()
    assert r"x\{y\} & 1.000" in text
    assert r"p\^{}2 $<$ q\~{}" in text


def test_json_knows_no_nan():
    record = json.loads(table().json())
    assert record["rows"]["a|b"]["pointing"]["value"] is None
    assert record["rows"]["grad_cam"]["pointing"] == {"value": 0.9, "low": 0.85, "high": 0.95, "n": 100, "excluded": 3}


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_plot(tmp_path, suffix):
    plot(table(), tmp_path / f"plot{suffix}")
    content = (tmp_path / f"plot{suffix}").read_bytes()
    assert content.startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")


def test_plot_refuses_what_it_cannot_draw(tmp_path):
    with pytest.raises(UserError, match=r"\.png, \.svg or \.pdf"):
        plot(table(), tmp_path / "plot.bmp")
    with pytest.raises(UserError, match="none"):
        plot(Table("t", {"row": {"n": 5}}), tmp_path / "plot.png")


def test_mean_and_interval():
    figure = summarise(torch.tensor([0.0, 1, NAN, 1, 0]))
    assert (figure.value, figure.n, figure.excluded) == (0.5, 4, 1)
    assert figure.low <= 0.5 <= figure.high


def test_interval_is_that_of_the_mean():
    """For many values the percentile interval is the normal one: 1.96 standard errors to each side."""
    values = torch.randn(2000)
    figure = summarise(values, samples=4000)
    half = 1.96 * float(values.std()) / 2000**0.5
    assert (figure.high - figure.low) / 2 == pytest.approx(half, rel=0.06)


def test_words_of_a_picture_are_resampled_together():
    """Ten copies of a value in each picture tell no more than one: the interval must not shrink."""
    values = torch.randn(100)
    once, copied = summarise(values), summarise(values.repeat_interleave(10), torch.arange(100).repeat_interleave(10))
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=1e-6)


def test_classes_count_alike():
    figure = summarise(torch.tensor([1.0, 1, 1, 0]), classes=torch.tensor([7, 7, 7, 3]))
    assert figure.value == 0.5


def test_nothing_defined():
    figure = summarise(torch.tensor([NAN, NAN]))
    assert (figure.n, figure.excluded) == (0, 2)
    assert figure.value != figure.value


class Value(PerMap):
    def measure(self, case: Case):
        return case.small[:, 0, 0]


def test_means_of_pictures():
    metric = Value()
    metric.values = [torch.tensor([1.0, 3, NAN]), torch.tensor([5.0])]
    metric.units = [torch.tensor([4, 4, 4]), torch.tensor([2])]
    metric.classes = [torch.zeros(3, dtype=torch.long), torch.zeros(1, dtype=torch.long)]
    assert means_by_unit(metric) == {2: 5.0, 4: 2.0}


def test_a_shift_is_found_and_noise_is_not():
    one = torch.randn(200)
    shift, p = paired(one, one + 0.3 + 0.5 * torch.randn(200))
    assert shift.low < 0.3 < shift.high
    assert p < 0.001
    noise, q = paired(one, one + torch.randn(200) * 0.5)
    assert noise.low < 0 < noise.high
    assert q > 0.05


def test_pairs_without_both_values_are_left_out():
    figure, _ = paired(torch.tensor([1.0, NAN, 2]), torch.tensor([2.0, 5, NAN]))
    assert (figure.value, figure.n, figure.excluded) == (1.0, 1, 2)


def test_one_picture_proves_nothing():
    assert math.isnan(paired(torch.tensor([0.0]), torch.tensor([1.0]))[1])
    assert 0 < paired(torch.zeros(2), torch.tensor([1.0, 1.0]))[1] < 0.001


def record(ids, values):
    return {"title": "t", "pictures": {"ids": ids, "values": {"grad_cam": {"pointing": values}}}}


def test_results_are_compared_by_id():
    one, two = record(["a", "b", "c"], [0.0, 1.0, None]), record(["c", "b", "a"], [1.0, 1.0, 1.0])
    row = compare(one, two, ("one", "two")).rows["grad_cam"]
    assert row["pointing"].value == 0.5
    assert row["pointing"].n == 2
    assert 0 < row["p(pointing)"] <= 1


def test_what_is_not_compared_is_told():
    one, two = record(["a"], [0.0]), record(["a"], [0.0])
    two["pictures"]["values"]["hires_cam"] = {"pointing": [1.0]}
    assert len(compare(one, one, ("one", "two")).notes) == 1
    assert any("hires_cam" in note and "grad_cam" not in note for note in compare(one, two, ("one", "two")).notes)
    one["conditions"], two["conditions"] = {"data": {"seed": 0}}, {"data": {"seed": 7}}
    assert "different data" in compare(one, two, ("one", "two")).notes[-1]


def test_results_without_a_picture_in_common_are_refused():
    with pytest.raises(UserError, match="share none"):
        compare(record(["a"], [0.0]), record(["b"], [0.0]), ("one", "two"))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"title": "t"}', '{"pictures": 3, "title": ""}'])
def test_what_is_no_result_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match="mmcam evaluate --json"):
        read_results(tmp_path / "x.json")
