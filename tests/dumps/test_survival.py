"""Killed at any moment, short of disk, damaged by hand: the same command again ends as if nothing had been."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmcam.cli import main
from mmcam.dumps.dump import dump
from mmcam.dumps.folder import Folder
from mmcam.dumps.plan import todo
from mmcam.dumps.verify import verify
from mmcam.errors import UserError
from tests.dumps.conftest import assert_same, picture, run

ROOT = Path(__file__).parents[2]


def child(then, *arguments) -> int:
    """Do something in a process of its own, which has all modules already; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 3
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = then(*arguments)
    finally:
        os._exit(code)


def end(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_killed_at_many_moments(pictures, monkeypatch):
    """Each child dies at another system call that touches a file: while writing, syncing and renaming too."""
    assert run("--part-size", 3, "--batch-size", 2) == 0
    whole = pictures / "whole"
    shutil.move("out", whole)

    def dies(after: int) -> int:
        left = [after]

        def counted(function):
            def call(*arguments, **options):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)

            return call

        import h5py

        for owner, name in (
            (os, "fsync"),
            (Path, "replace"),
            (Path, "write_text"),
            (Path, "write_bytes"),
            (Path, "unlink"),
            (h5py.Dataset, "resize"),
            (h5py.File, "close"),
        ):
            setattr(owner, name, counted(getattr(owner, name)))
        return run("--part-size", 3, "--batch-size", 2)

    moments = random.Random(0)
    killed = finished = 0
    while killed < 30:
        code = end(child(dies, moments.randint(0, 120 if finished % 2 else 40)))
        if code == 0:
            finished += 1
            assert_same(whole / "maps.h5", pictures / "out" / "maps.h5")
            shutil.rmtree("out")
            continue
        assert code == -signal.SIGKILL
        killed += 1
    assert run("--part-size", 3, "--batch-size", 2) == 0
    assert_same(whole / "maps.h5", pictures / "out" / "maps.h5")
    assert verify("out") == []
    assert not [path for path in (pictures / "out").rglob("*") if path.name.endswith((".part", ".tmp"))]


@pytest.mark.slow
def test_the_real_command_killed_at_thirty_random_moments(tmp_path, monkeypatch):
    """From outside, by SIGKILL after random times, over the whole life of the command and over again."""
    monkeypatch.chdir(tmp_path)  # where the data are, for verify
    for number in range(60):
        (tmp_path / "photos").mkdir(exist_ok=True)
        picture(number, (400, 300)).save(tmp_path / "photos" / f"p{number:02}.png")
    (tmp_path / "task.yaml").write_text("task: {class_path: tests.tiny_task.TinyTask}\n")
    command = [sys.executable, "-m", "mmcam.cli", "dump", "--config", "task.yaml", "--data", "photos"]
    command += ["--part-size", "7", "--batch-size", "2", "--workers", "1", "--threads", "1"]
    surroundings = os.environ | {"PYTHONPATH": str(ROOT)}

    def start(out: str) -> subprocess.Popen:
        return subprocess.Popen(
            [*command, "--out", out], cwd=tmp_path, env=surroundings, stderr=subprocess.DEVNULL, start_new_session=True
        )

    began = time.monotonic()
    assert start("whole").wait() == 0
    life = time.monotonic() - began
    moments = random.Random(1)
    kills = 0
    while kills < 30:
        process = start("out")
        try:
            code = process.wait(timeout=moments.uniform(0.4 * life, 1.05 * life))
            assert code == 0
            assert_same(tmp_path / "whole" / "maps.h5", tmp_path / "out" / "maps.h5")
            shutil.rmtree(tmp_path / "out")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
    assert start("out").wait() == 0
    assert_same(tmp_path / "whole" / "maps.h5", tmp_path / "out" / "maps.h5")
    assert verify(tmp_path / "out") == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_full_disk_is_one_line_and_the_rest_can_be_done_later(pictures):
    def short_of_disk() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
        return run("--part-size", 6)

    assert end(child(short_of_disk)) == 2
    assert not [*pictures.glob("out/parts/*.h5")]
    assert run("--part-size", 6) == 0
    assert verify("out") == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(pictures, capsys):
    (pictures / "out").mkdir(mode=0o500)
    assert run() == 2
    assert "expected a folder that can be" in capsys.readouterr().err


def test_a_folder_that_cannot_be(pictures, capsys):
    (pictures / "out").write_text("a file")
    assert run() == 2
    assert "expected a folder that can be made" in capsys.readouterr().err


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
@pytest.mark.parametrize("name", ["parts/part-00001.h5", "parts/part-00002.h5.sha256", "maps.h5"])
def test_damage_is_found_and_mended(pictures, capsys, damage, name):
    assert run("--part-size", 4) == 0
    shutil.copytree("out", "whole")
    assert verify("out") == []
    damage(pictures / "out" / name)
    problems = verify("out")
    assert problems
    assert Path(name.removesuffix(".sha256")).name in " ".join(problems)
    assert main(["dump", "verify", "out"]) == 1
    assert "problem" in capsys.readouterr().out
    assert run("--part-size", 4) == 0
    assert verify("out") == []
    assert main(["dump", "verify", "out"]) == 0
    assert_same(pictures / "whole" / "maps.h5", pictures / "out" / "maps.h5")


def test_what_others_left_is_not_touched(prepare):
    """Unfinished files of another shard's parts are that shard's."""
    made = prepare()
    stray = made.folder.local / "parts" / ".part-00001.h5.here.77.part"
    mine = made.folder.local / "parts" / ".part-00000.h5.here.77.part"
    stray.parent.mkdir()
    stray.write_text("in progress")
    mine.write_text("left over")
    dump(*made.shard(1, 2))
    assert stray.exists()
    assert not mine.exists()


def test_verify_names_what_is_missing(prepare, pictures):
    made = prepare()
    dump(*made.shard(1, 2))
    assert [line.rpartition("/")[2].partition(":")[0] for line in verify(made.folder.local)] == [
        "part-00001.h5",
        "part-00003.h5",
    ]
    with pytest.raises(UserError, match=r"expected a dump, but there is no dump\.json"):
        verify(pictures / "photos")


def test_verify_compares_with_the_data(pictures):
    assert run("--part-size", 4) == 0
    (pictures / "photos" / "p03.png").unlink()
    assert any("1 samples are not of the data" in line or "missing" in line for line in verify("out"))
    picture(40).save(pictures / "photos" / "p03.png")
    assert verify("out") == []


def test_a_dump_in_memory(prepare):
    import fsspec

    made = prepare("memory://dump-test")
    whole = prepare("whole")
    assert dump(*whole.all)
    assert dump(*made.all)
    files = fsspec.filesystem("memory")
    assert sorted(path.rpartition("/")[2] for path in files.find("dump-test"))[:3] == [
        "dump.json",
        "maps.h5",
        "maps.h5.sha256",
    ]
    assert_same(made.folder.fetch("maps.h5"), whole.folder.local / "maps.h5")
    assert todo(Folder("memory://dump-test"), made.plan) == []
    files.rm("dump-test/parts/part-00002.h5")
    assert dump(*prepare("memory://dump-test").all)
    again = Folder("memory://dump-test")
    assert again.intact("parts/part-00002.h5")
    assert again.intact("maps.h5")
    assert not [path for path in files.find("dump-test") if path.endswith(".part")]


def test_a_dump_by_file_url(prepare, tmp_path):
    made = prepare(f"file://{tmp_path}/by-url")
    assert dump(*made.all)
    whole = prepare("whole")
    assert dump(*whole.all)
    assert_same(tmp_path / "by-url" / "maps.h5", whole.folder.local / "maps.h5")


def test_verify_by_url(pictures):
    where = f"file://{pictures}/out"
    assert main(["dump", "--config", "task.yaml", "--data", "photos", "--workers", "0", "--out", where]) == 0
    assert verify(where) == []
    flip(pictures / "out" / "parts" / "part-00000.h5")
    assert len(verify(where)) >= 1
