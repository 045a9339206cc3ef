"""The page on studies: what it shows runs, its amounts made small."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mmcam.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "study.md").read_text(encoding="utf-8")
TINY = {
    "--limit 300": "--limit 24",
    "--limit 200": "--limit 8",
    "--trials 40": "--trials 4",
    "--trials 24": "--trials 4",
}


def shrunk(line):
    for amount, tiny in TINY.items():
        line = line.replace(amount, tiny)
    program, *words = line.split()
    assert program == "mmcam"
    return words


def served(content):
    """The command that serves: it says where and goes on until it is interrupted."""
    command, printed = content.splitlines()
    words = command.removeprefix("$ mmcam ").replace("8765", "0").split()  # any free port
    process = subprocess.Popen([sys.executable, "-m", "mmcam", *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert re.sub(r":\d+/", ":8765/", line.rstrip("\n")) == printed


def test_the_page_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    blocks = []
    for language, content in re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        if language == "python":
            exec(compile(content, "study.md", "exec"), names)
        elif language == "sh":
            for line in content.splitlines():
                assert main(shrunk(line)) == 0, capsys.readouterr().err
        elif language == "console":
            served(content)
        blocks.append(language)
    assert blocks == ["sh", "console", "python", "sh", "sh"]
    printed = capsys.readouterr().out
    assert "2 people, 2 answered all" in printed
    for name in ("method", "difference"):
        (header,) = re.findall(rf"^\| {name} \|.*\|$", PAGE, re.MULTILINE)
        cells = [cell.strip() for cell in header.strip("|").split("|")]
        assert " ".join(cells).split() in [line.split() for line in printed.splitlines()]
    found = names["found"]
    assert found.people == 20  # pyright: ignore[reportAttributeAccessIssue]
    assert found.methods["grad_cam"].value > 0.6  # pyright: ignore[reportAttributeAccessIssue]
    kept = {file.name for file in Path("runs").iterdir()}
    assert {"study", "study.html", "found.json", "trust", "words"} <= kept


@pytest.mark.parametrize("kind", ["discrimination", "words", "trust"])
def test_every_kind_has_its_row(kind):
    assert f"| `{kind}` |" in PAGE


def test_the_picture_is_there_and_small():
    (name,) = re.findall(r"!\[[^]]+\]\(([^)]+)\)", PAGE)
    assert (Path(__file__).parents[2] / "docs" / name).stat().st_size <= 80_000
