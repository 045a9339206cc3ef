"""A folder with a few pictures and a tiny task, and the command that dumps them."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from PIL import Image

from mmcam.cli import main
from mmcam.dumps.folder import Folder
from mmcam.dumps.loading import Loading
from mmcam.dumps.plan import Plan, Settings, make_plan, todo
from mmcam.load import load_task
from mmcam.sources import Source
from mmcam.task import Sample
from tests.tiny_task import WORDS


def picture(seed: int, size=(40, 30)) -> Image.Image:
    pixels = np.random.RandomState(seed).randint(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def pictures(tmp_path, monkeypatch) -> Path:
    """Twelve pictures in `photos`, `task.yaml`, and the user standing beside them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for number in range(12):
        picture(number).save(tmp_path / "photos" / f"p{number:02}.png")
    (tmp_path / "task.yaml").write_text(yaml.safe_dump({"task": {"class_path": "tests.tiny_task.TinyTask"}}))
    return tmp_path


class Drawn(Source):
    """Pictures out of nothing; some cannot be drawn."""

    def __init__(self, count: int = 20, broken: list[int] | None = None, given: bool = False) -> None:
        self.ids = [f"d{i}" for i in range(count)]
        self.broken, self.words = set(broken or []), given

    def sample(self, number: int) -> Sample:
        from mmcam.errors import UserError

        if number in self.broken:
            raise UserError("broken")
        return Sample(picture(number), self.ids[number])

    def given(self, number: int) -> tuple[str, ...]:
        return (WORDS[number % 10], f"{WORDS[1]} {WORDS[2]}") if self.words else ()


@dataclass
class Run:
    """Everything that a dump needs."""

    folder: Folder
    task: object
    source: Source
    plan: Plan
    loading: Loading

    @property
    def all(self):
        return self.folder, self.task, self.source, self.plan, todo(self.folder, self.plan), self.loading

    def shard(self, *which: int):
        return *self.all[:4], todo(self.folder, self.plan, which), self.loading


@pytest.fixture
def prepare(tmp_path):
    """Plan a dump of drawn pictures."""

    def make(name="out", source=None, batch_size=4, workers=0, task=None, limit=None, only_missing=False, **settings):
        folder = Folder(name if "://" in str(name) else tmp_path / name)
        task = task or load_task({"task": {"class_path": "tests.tiny_task.TinyTask"}})
        source = source or Drawn()
        options = {"config": {}, "data": {}, "limit": limit, "only_missing": only_missing}
        plan = make_plan(folder, task, source, Settings(**{"part_size": 6, **settings}), **options)
        return Run(folder, task, source, plan, Loading(batch_size, workers))

    return make


def run(*words) -> int:
    """Give the command."""
    return main(
        ["dump", "--config", "task.yaml", "--data", "photos", "--out", "out", "--workers", "0", *map(str, words)]
    )


def content(path: Path) -> dict[str, object]:
    """All data sets of a file, and its attributes but the date."""
    found: dict[str, object] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[:]}) if isinstance(item, h5py.Dataset) else None)
        found["attributes"] = {name: value for name, value in file.attrs.items() if name != "created"}
    return found


def assert_same(one: Path, other: Path) -> None:
    """The files hold the same, element by element."""
    first, second = content(one), content(other)
    assert first.pop("attributes") == second.pop("attributes")
    assert sorted(first) == sorted(second)
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)
