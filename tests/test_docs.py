"""Every block of code of every page is executed, here or by the test that its page has, or it is told why not."""

import ast
import re
import runpy
import shlex
import sys
from importlib import invalidate_caches
from pathlib import Path

import pytest
import yaml

from mmcam.cli import main
from mmcam.config import read_config
from mmcam.methods.table import names
from mmcam.scenes.source import Scenes

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = {file.stem: file for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}

FOLLOWED = {
    "bring_your_own": "tests/test_docs_models.py",
    "demo": "tests/test_docs_demo.py",
    "evaluation": "tests/test_docs_evaluation.py",
    "huggingface": "tests/test_docs_models.py",
    "importing": "tests/test_docs_importing.py",
    "metrics": "tests/test_docs_evaluation.py",
    "report": "tests/report/test_docs_report.py",
    "study": "tests/study/test_docs_study.py",
}
"""Pages that a test of their own reads and executes: blocks of python, sh and yaml."""

EXCUSED = {
    ("README", "make demo "): "installs; its script is run for the page `start`",
    ("README", "mmcam explain photo.jpg --config captioning/hf/blip_base"): "needs the hub; tests/test_docs_models.py",
    ("README", "mmcam evaluate --config"): "minutes; tests/test_docs_evaluation.py runs such commands",
    ("clusters", "pip install 'mmcam[ray]'"): "needs Ray; tests/dumps/test_cluster.py",
    ("clusters", "ray start --head"): "needs a cluster",
    ("clusters", "#!/bin/bash"): "needs Slurm",
    ("clusters", "apiVersion: ray.io/v1"): "needs Kubernetes",
    ("dumps", "h5ls -r"): "a tool of HDF5's",
    ("dumps", "using HDF5"): "Julia",
    ("dumps", "id = H5D.open"): "Matlab",
    ("evaluation", "python scripts/reproduce.py --all"): "minutes; tests/test_reproduce.py",
    ("study", "$ mmcam study serve"): "runs until Ctrl-C; tests/study/test_server.py",
    ("training", "mkdir -p data/coco"): "fetches 20 GB",
    ("training", "torchrun --nproc-per-node"): "needs the data; tests/training runs two processes",
}
"""(page, beginning of a block): why it is not executed, and what is instead."""

SHRUNK = {", weights: DEFAULT": ""}
"""What a block says, and what is executed in its place: nothing is fetched here."""


def text(page):
    return PAGES[page].read_text(encoding="utf-8")


def blocks(page):
    """Languages and contents, without what only Sphinx reads."""
    return [(language, content) for language, content in FENCE.findall(text(page)) if not language.startswith("{")]


def excused(page, content):
    return any(page == of and content.startswith(begins) for of, begins in EXCUSED)


def executed(page):
    """The blocks of a page that are executed here."""
    followed = ("python", "sh", "yaml") if page in FOLLOWED else ()
    found = [b for b in blocks(page) if not excused(page, b[1]) and b[0] not in followed]
    for old, new in SHRUNK.items():
        found = [(language, content.replace(old, new)) for language, content in found]
    return found


@pytest.fixture(scope="module")
def scene():
    return Scenes(count=1, seed=7).sample(0).image


@pytest.fixture
def here(tmp_path, monkeypatch, scene):
    """A new folder to stand in, with the pictures that pages take for granted; their modules are forgotten after."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "films").mkdir()
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    for name in ("photo.jpg", "other.jpg", "runs/demo/scene.png", *(f"films/{i:04d}.png" for i in range(4))):
        scene.save(tmp_path / name)
    yield tmp_path
    sys.modules.pop("my_source", None)


def taken_for_granted():
    """What the front page's block on a task of one's own does not tell: networks, names, and how pictures come in."""
    import torch
    from torch import nn

    from mmcam.image import to_tensor

    class Tiny(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Conv2d(3, 4, 3)
            self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))

    own = {"torch": torch, "to_tensor": to_tensor, "my_model": Tiny, "NAMES": ["a", "b", "c"]}
    return own | {"MEAN": (0.5, 0.5, 0.5), "STD": (0.5, 0.5, 0.5)}


def command(line, monkeypatch):
    """Do what a line of a shell says: `mmcam`, and the script of `make demo`."""
    program, *words = shlex.split(line, comments=True)
    if [program, *words] == ["make", "demo"]:  # without what it installs
        monkeypatch.setattr(sys, "argv", ["demo.py"])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "scripts" / "demo.py"), run_name="__main__")
        assert ended.value.code == 0
        return
    assert program == "mmcam", "only mmcam is executed: excuse the block, or execute it elsewhere"
    if words[0] == "dump" and "--config" in words:
        words += [] if "--limit" in words else ["--limit", "8"]
        words += ["--workers", "0"]  # no process of its own to start
    assert main(words) == 0, line


@pytest.mark.parametrize("page", [page for page in PAGES if executed(page)])
def test_the_page_runs_from_top_to_bottom(page, here, monkeypatch):
    known = taken_for_granted() if page == "README" else {}
    for _, content in executed(page):
        if file := re.match(r"# (\w+\.(?:py|yaml))\n", content):
            Path(file[1]).write_text(content, encoding="utf-8")
    invalidate_caches()
    for language, content in executed(page):
        if language == "python":
            exec(compile(content, f"{page}.md", "exec"), known)
        elif language == "yaml":
            assert read_config(yaml.safe_load(content))
        else:
            assert language in ("", "sh"), "a language that no test executes: excuse the block, or execute it"
            for line in content.replace("\\\n", " ").splitlines():
                command(line, monkeypatch)
    if page == "start":
        assert Path("runs/captions/report.html").is_file()
        assert Path("runs/demo/caption/scene.png").is_file()
    if page == "README":  # its block has only defined a task, which is tried out here
        import mmcam

        task = known["MyTask"]()
        (explanation,) = mmcam.explain(task, task.collate([Scenes(count=1, seed=7).sample(0)]))
        assert explanation.words[0] in known["NAMES"]
        assert explanation.maps.shape == (1, 222, 222)  # a convolution of 3 x 3 over 224


@pytest.mark.parametrize("page", sorted(set(FOLLOWED) & set(PAGES)))
def test_the_pages_with_tests_of_their_own_are_read_there(page):
    place = ROOT / FOLLOWED[page]
    texts = [place.read_text(encoding="utf-8")]
    assert any(f'"{page}"' in text or f'"{page}.md"' in text for text in texts)


def test_no_excuse_is_left_over():
    for page, begins in EXCUSED:
        assert any(content.startswith(begins) for _, content in blocks(page)), (page, begins)


@pytest.mark.parametrize("page", PAGES)
def test_no_page_is_without_a_picture_or_a_block_that_is_executed(page):
    """Commands and Python; a yaml block alone shows nobody anything."""
    runs = [b for b in blocks(page) if b[0] in ("python", "sh", "") and not excused(page, b[1])]
    assert runs or re.search(r"^!\[", text(page), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_code_is_fenced(page):
    """An indented block of code would escape the tests above."""
    plain = FENCE.sub("", text(page))
    assert not re.search(r"\n\n {4,}[^ \n]", plain)


def test_pictures_are_small_described_and_used():
    shown = {}
    for page in PAGES:
        for words, file in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", text(page)):
            assert len(words) > 10, (page, file)
            shown[(PAGES[page].parent / file).resolve()] = page
    for file in (ROOT / "docs" / "pictures").iterdir():
        assert file.resolve() in shown, f"{file.name} is on no page"
    drawn = re.findall(r'^    "(\w+)": \w+,$', (ROOT / "scripts" / "docs_pictures.py").read_text(), re.MULTILINE)
    assert len(drawn) > 5
    for name in drawn:
        assert (ROOT / "docs" / "pictures" / f"{name}.png").stat().st_size <= 60_000


def test_every_page_is_in_the_index():
    listed = re.findall(r"^(\w+)$", PAGES["index"].read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted({*listed, "index"}) == sorted({*PAGES} - {"README"})


def test_every_method_has_its_equation():
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|(.*)\|$", PAGES["equations"].read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(name for name, _, _ in rows) == sorted(names())
    assert all(equation.strip() and source.strip() for _, equation, source in rows)


def differing():
    """Modules, classes and functions whose docstring tells a difference, with what it tells."""
    for package in ("mmcam", "captioning", "vqa", "classification"):
        for file in sorted((ROOT / package).rglob("*.py")):
            module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            nodes = [(module, ast.parse(file.read_text(encoding="utf-8")))]
            while nodes:
                name, node = nodes.pop()
                for paragraph in re.split(r"\n\s*\n", ast.get_docstring(node) or ""):
                    _, begins, rest = paragraph.partition("Differs from the paper")
                    if begins:
                        yield name, " ".join((begins + rest).split())
                nodes += [(f"{name}.{n.name}", n) for n in node.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]


def test_every_difference_that_a_docstring_tells_is_on_the_page():
    page = " ".join(PAGES["differences"].read_text(encoding="utf-8").split())
    told = list(differing())
    assert len(told) > 20
    for name, note in told:
        assert f"**`{name}`** {note}" in page, name


def test_the_conventions_are_those_of_the_engines_page():
    engine = PAGES["engine"].read_text(encoding="utf-8")
    table = [line for line in engine.splitlines() if line.startswith("|")]
    assert "\n".join(table) in PAGES["differences"].read_text(encoding="utf-8")


LINKING = [*PAGES.values(), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]


def anchors(file):
    """Those of a page's titles, as GitHub and the site make them: a title that comes again gets a number."""
    found = []
    for title in re.findall(r"^#+ (.*)$", FENCE.sub("", file.read_text(encoding="utf-8")), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-")
        again = sum(re.fullmatch(re.escape(slug) + r"(-\d+)?", other) is not None for other in found)
        found.append(f"{slug}-{again}" if again else slug)
    return found


@pytest.mark.parametrize("file", LINKING, ids=lambda file: file.stem)
def test_links_and_their_anchors_lead_somewhere(file):
    plain = re.sub(r"`[^`\n]*`", "", FENCE.sub("", file.read_text(encoding="utf-8")))
    for link in re.findall(r"\]\(([^)\s]+)\)", plain):
        if re.match(r"https://", link):
            continue
        target, _, anchor = link.partition("#")
        found = (file.parent / target) if target else file
        assert found.exists(), link
        assert not anchor or anchor in anchors(found), link


def test_anchors_are_found_out():
    """By hand, of this page's own titles."""
    assert "faithful-what-the-model-itself-says" in [a.strip("-") for a in anchors(PAGES["evaluation"])]
    assert "nothing-of-the-kind" not in anchors(PAGES["evaluation"])


@pytest.mark.parametrize("page", ["start", "tasks", "bring_your_own", "methods", "demo", "dumps", "evaluation"])
def test_a_newcomer_is_told_where_to_go_next(page):
    (last,) = re.findall(r"^Next: (.*)", text(page), re.MULTILINE | re.DOTALL)
    assert re.search(r"\]\(\w+\.md", last)


@pytest.mark.parametrize("page", sorted(PAGES.keys() - {"README", "report", "results", "study"}))
def test_lines_are_not_longer_than_160(page):
    """But for tables and what the scripts write from results."""
    long = [line for line in text(page).splitlines() if len(line) > 160 and not line.startswith("|")]
    assert long == []
