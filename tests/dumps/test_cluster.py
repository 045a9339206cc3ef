"""The same parts made by Ray actors, also when one of them dies. Starts a real local cluster."""

import os
import signal
import threading
import time

import pytest

from mmcam.cli import main
from tests.dumps.conftest import assert_same

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]
COMMAND = ["dump", "--config", "classification/scenes", "--data", "scenes:test", "--data.init_args.seed=7"]
COMMAND += ["--limit", "48", "--part-size", "8", "--workers", "0", "--threads", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def ray():
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    ray = pytest.importorskip("ray")
    ray.init(address="local", num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
    yield ray
    ray.shutdown()


def test_a_cluster_makes_the_same_also_when_an_actor_dies(ray, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*COMMAND, "--out", "local"]) == 0
    assert main([*COMMAND, "--out", "ray", "--engine", "ray", "--num-actors", "2"]) == 0
    assert_same(tmp_path / "local" / "maps.h5", tmp_path / "ray" / "maps.h5")

    killed = []

    def kill() -> None:
        """Wait until a part is in progress, then kill the process that makes it."""
        while not killed:
            for path in tmp_path.glob("killed/parts/.part-*.part"):
                pid = int(path.name.split(".")[-2])
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    assert main([*COMMAND, "--out", "killed", "--engine", "ray", "--num-actors", "2"]) == 0
    thread.join(10)
    assert killed
    assert_same(tmp_path / "local" / "maps.h5", tmp_path / "killed" / "maps.h5")


def test_what_the_actors_complain_about_is_one_line(ray, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "x.png").write_text("no picture")
    (tmp_path / "photos" / "y.png").write_text("no picture")
    words = ["dump", "--config", "classification/scenes", "--data", "photos", "--out", "out", "--engine", "ray"]
    assert main([*words, "--num-actors", "1", "--workers", "0"]) == 2
    assert "expected a picture" in capsys.readouterr().err


def test_no_such_cluster(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    import ray

    ray.shutdown()
    assert main([*COMMAND, "--out", "out", "--engine", "ray", "--ray-address", "127.0.0.1:1"]) == 2
    assert "expected a Ray cluster" in capsys.readouterr().err
