"""The page on reports runs from top to bottom, and `mmcam explain --html` writes the same page."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmcam.cli import main
from mmcam.scenes.source import Scenes
from tests.report.pages import read

DOC = Path(__file__).parents[2] / "docs" / "report.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs/photos").mkdir(parents=True)
    for number in range(2):
        Scenes(count=2, seed=7).sample(number).image.save(f"runs/photos/{number}.png")


def test_the_page_on_reports_runs(photos, capsys):
    for language, content in FENCE.findall(DOC.read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(content, "report.md", "exec"), {})
            continue
        assert language == "sh"
        for line in content.splitlines():
            program, *words = re.sub(r"--limit \d+", "--limit 4", line).replace('"', "").split()
            if "--title" in words:
                words = [*words[: words.index("--title")], "--title", "Answers about scenes"]
            assert program == "mmcam"
            words += ["--workers", "0"] * (words[0] == "dump")  # no process of its own to start
            assert main(words) == 0, line
    captions, answers, few, mine = (
        read(Path(f"runs/{name}.html")) for name in ("captions/report", "answers", "photos", "mine")
    )
    assert captions.index["answers"] is False
    assert len(captions.index["marks"]) == 4
    assert any("+" in marks for marks in captions.index["marks"])
    assert "cider_d" in captions.index["columns"]
    assert answers.index["methods"] == ["grad_cam", "hires_cam"]
    assert [len(words) for words in answers.index["words"]] == [3] * 4
    assert "pointing (hires_cam)" in answers.index["columns"]
    assert "Maps against the truth" in answers.texts["metrics"]
    assert few.index["ids"] == ["0", "1"]
    assert few.index["pictures"] == [0, 1]
    assert mine.index["ids"] == ["test-0", "test-1", "test-2"]


def test_explain_writes_the_page_of_its_pictures(photos):
    Path("task.yaml").write_text("task: {class_path: tests.tiny_task.TinyTask}")
    Image.new("RGB", (900, 300), "red").save("runs/photos/large.png")
    words = ["explain", "runs/photos", "--config", "task.yaml", "--out", "out", "--html", "deep/page.html"]
    for _ in range(2):  # overwritten, as all that explain writes
        assert main(words) == 0
    found = read(Path("deep/page.html"))
    assert found.index["ids"] == ["0", "1", "large"]
    assert found.islands["picture-2"]["width"] == 448
    assert found.islands["maps-2"]["size"] == [300, 900]
    assert found.islands["maps-2"]["maps"][0]["shape"] == [4, 6]
    assert found.index["separator"] == " "
    assert "conv2" in found.texts["facts"]


def test_the_page_of_explain_has_the_words_heard(photos):
    words = ["explain", "runs/photos/0.png", "--config", "vqa/scenes", "--question", "is there a kite ?", "--heard"]
    assert main([*words, "--device", "cpu", "--out", "out", "--html", "page.html"]) == 0
    found = read(Path("page.html"))
    written = json.loads(Path("out/0.json").read_text())
    island = found.islands["maps-0"]
    assert island["heard"] == written["heard"] == ["is", "there", "a", "kite", "?"]
    for name, key in (("heard_scores", "heard_scores"), ("seen", "image_shares")):
        np.testing.assert_allclose(island[name], written[key], atol=1e-4)
    assert "what the model heard" in found.texts["about"]


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", DOC.read_text(encoding="utf-8")):
        assert (DOC.parent / link).exists(), link
