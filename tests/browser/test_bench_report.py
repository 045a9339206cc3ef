"""The benchmark of large pages: its pictures differ and are as large as photos, and it times what it opens."""

import json

import pytest

pytest.importorskip("jinja2", reason="needs the extra `report`")
pytest.importorskip("playwright", reason="needs playwright, of the extra `dev`")

from benchmarks import bench_report
from mmcam.report.index import _jpeg, shrink
from tests.browser.conftest import chromium

pytestmark = pytest.mark.browser


def test_pictures_differ_and_are_as_large_as_photos():
    shown = list(bench_report.pictures(80, 3))
    files = [_jpeg(shrink(one.image, 224)) for one in shown]
    assert len(set(files)) == 80
    assert 9_000 < sum(map(len, files)) / 80 < 13_000
    assert {one.first.signed.shape for one in shown} == {(3, 14, 14)}


def test_it_opens_what_it_wrote(tmp_path, capsys):
    chromium()
    out = tmp_path / "page.html"
    assert bench_report.main(["--pictures", "30", "--words", "2", "--repeats", "1", "--out", str(out)]) == 0
    found = json.loads(out.with_suffix(".json").read_text())
    assert f"| size of the file, MB | {out.stat().st_size / 1e6:.1f} |" in capsys.readouterr().out
    assert found["opened"]["open"][0] > 0
    assert found["opened"]["memory"][0] > 20
    assert set(bench_report.WORK) < set(found["opened"])
