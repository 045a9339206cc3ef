"""The pages on evaluation: what they show runs, what they name is there, and every metric has its row."""

import re
import sys
from importlib import import_module, invalidate_caches
from inspect import isabstract
from pathlib import Path
from pkgutil import iter_modules

import pytest
import yaml

import mmcam.metrics
from mmcam.cli import main
from mmcam.config import read_config
from mmcam.errors import UserError
from mmcam.experiments.reproduce import reproduce, shipped_experiments
from mmcam.metrics.base import Kept
from mmcam.truth import Truth

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("evaluation", "metrics", "data")
BASES = ("Kept", "PerMap", "PerPicture", "Columns", "Faithfulness")
TINY = {"--limit": "2", "--faithful": "1", "--sanity": "1"}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def text(page):
    return (DOCS / f"{page}.md").read_text(encoding="utf-8")


def blocks(page):
    return FENCE.findall(text(page))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A new folder to stand in, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("my_metrics", "my_pictures"):
        sys.modules.pop(name, None)


def shrunk(command):
    """The words of a command, its amounts made small."""
    words = command.split()
    for option, amount in TINY.items():
        if option in words:
            words[words.index(option) + 1] = amount
    return words


def follow(page):
    """Do what a page says, in its order."""
    names = {}
    for language, content in blocks(page):
        file = re.match(r"# (\w+\.(?:py|yaml))\n", content)
        if file:
            Path(file[1]).write_text(content, encoding="utf-8")
            invalidate_caches()
        elif language == "python":
            exec(compile(content, f"{page}.md", "exec"), names)
        elif language == "sh":
            for line in content.replace("\\\n", " ").splitlines():
                program, *words = shrunk(line)
                assert program == "mmcam"
                assert main(words) == 0, line
    return names


def test_the_page_on_evaluation_runs_from_top_to_bottom(here, capsys):
    names = follow("evaluation")
    out = capsys.readouterr().out
    assert names["result"]["rows"]["grad_cam"]["pointing"]["n"] > 0
    assert {"classes.json", "classes.md", "classes.tex", "classes.svg", "answers.json", "difference.json"} <= {
        file.name for file in (here / "runs").iterdir()
    }
    assert "Maps against the model's own scores" in out
    assert "Maps when parts are destroyed" in out
    assert "distance ↓" in out
    assert "deletion probability" in out
    assert list(names["evaluation"].figures()) == ["grad_cam", "hires_cam", "centre", "random", "uniform", "flipped"]


def test_the_page_on_metrics_runs(here):
    assert "mask" in follow("metrics")


def test_the_distance_of_the_page_is_what_it_says(here):
    """By hand: a picture of 3 x 4, the peak at (0, 3), the mask's nearest pixel at (2, 3): 2 of a diagonal of 5."""
    import torch

    from mmcam.metrics.base import Case
    from mmcam.truth import Things

    (content,) = (content for _, content in blocks("evaluation") if content.startswith("# my_metrics.py"))
    Path("my_metrics.py").write_text(content)
    invalidate_caches()
    metric = import_module("my_metrics").PeakDistance()
    maps, masks = torch.zeros(4, 3, 4), torch.zeros(4, 3, 4, dtype=torch.bool)
    maps[0, 0, 3], maps[1, 2, 3], maps[3, 0, 0] = 1, 1, 1
    masks[:3, 2, 2:] = True  # map 2 is zero, mask 3 is empty
    things = Things.of_masks(["thing"], masks[:1])
    about = ((0,), (0,), (0,), ())
    metric.update(Case(("a",) * 4, maps, maps, masks, about, things, torch.zeros(4, dtype=torch.long), 0))
    assert metric.kept()[0][:3].tolist() == pytest.approx([0.4, 0.0, 1.0])
    figure = metric.compute()
    assert (figure.n, figure.excluded) == (3, 1)


def test_the_experiment_of_the_page_says_that_its_data_are_missing(here):
    (content,) = (content for _, content in blocks("evaluation") if content.startswith("# my_localisation.yaml"))
    Path("my_localisation.yaml").write_text(content)
    with pytest.raises(UserError, match="data/ILSVRC2015"):
        reproduce("my_localisation.yaml", limit=2, seed=0)


@pytest.mark.parametrize("page", PAGES)
def test_every_class_that_a_page_names_can_be_imported(page):
    paths = {path for path in re.findall(r"`((?:mmcam|captioning|vqa|classification)(?:\.\w+)*\.[A-Z]\w+)", text(page))}
    assert paths
    for path in paths:
        module, _, name = path.rpartition(".")
        assert isinstance(vars(import_module(module))[name], type), path


def test_every_metric_has_its_row():
    page = text("metrics")
    found = set()
    for module in iter_modules(mmcam.metrics.__path__, "mmcam.metrics."):
        for name, value in vars(import_module(module.name)).items():
            own = isinstance(value, type) and issubclass(value, Kept) and value.__module__ == module.name
            if own and name not in BASES and not isabstract(value):
                found.add(f"{module.name}.{name}")
    assert len(found) > 20
    assert {path for path in found if f"`{path}`" not in page} == set()


def test_every_column_of_the_full_set_is_a_first_cell_of_a_row():
    content = read_config("metrics/all")["metrics"]["init_args"]
    cells = [line.split("|")[1] for line in text("metrics").splitlines() if line.startswith("| `")]
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert {*content["maps"], *content["scores"]} - named == set()


def test_every_shipped_experiment_has_its_row():
    rows = [line for line in text("evaluation").splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named == set(shipped_experiments())


def test_every_reader_is_on_the_page_on_data():
    page = text("data")
    readers = ["captioning.flickr", "captioning.karpathy", "captioning.data", "captioning.visual_genome", "vqa.human"]
    readers += ["classification.imagenet", "classification.voc", "vqa.data", "vqa.gqa", "vqa.clevr", "vqa.clevr_xai"]
    missing = []
    for module in map(import_module, readers):
        for name in getattr(module, "__all__", vars(module)):
            value = vars(module)[name]
            whole = isinstance(value, type) and issubclass(value, Truth) and not isabstract(value)
            base = whole and name in ("Captioned", "Questions")  # what readers are made of
            if whole and not base and value.__module__ == module.__name__ and f"`{module.__name__}.{name}`" not in page:
                missing.append(f"{module.__name__}.{name}")
    assert missing == []


def test_yaml_blocks_have_known_sections():
    for language, content in blocks("evaluation"):
        if language == "yaml":
            assert read_config(yaml.safe_load(content))
