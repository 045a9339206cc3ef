"""Every block of code of every page is executed, here or by the test that its page has, or it is told why not."""

import ast
import re
import shlex
from importlib import invalidate_caches
from pathlib import Path

import pytest

from mmcam.cli import main
from mmcam.config import read_config
from mmcam.methods.table import names
from mmcam.scenes.source import Scenes

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = {file.stem: file for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}

FOLLOWED = {
    "bring_your_own": "tests/test_docs_models.py",
    "data": "tests/test_docs_evaluation.py",
    "evaluation": "tests/test_docs_evaluation.py",
    "huggingface": "tests/test_docs_models.py",
    "metrics": "tests/test_docs_evaluation.py",
    "report": "tests/report/test_docs_report.py",
    "study": "tests/study/test_docs_study.py",
}
"""Pages that a test of their own reads and executes: blocks of python, sh and yaml."""

EXCUSED = {
    ("README", "make demo "): "installs; scripts/demo.py is the job that CI starts",
    ("README", "mmcam explain photo.jpg --config captioning/hf/blip_base"): "needs the hub; tests/test_docs_models.py",
    ("README", "mmcam evaluate --config"): "minutes; tests/test_docs_evaluation.py runs such commands",
    ("start", "make demo"): "installs; scripts/demo.py is the job that CI starts",
    ("clusters", "pip install 'mmcam[ray]'"): "needs Ray; tests/dumps/test_cluster.py",
    ("clusters", "ray start --head"): "needs a cluster",
    ("clusters", "#!/bin/bash"): "needs Slurm",
    ("clusters", "apiVersion: ray.io/v1"): "needs Kubernetes",
    ("demo", "mmcam demo"): "serves until Ctrl-C; tests/demo",
    ("demo", "from gradio_client"): "needs a server; tests/demo/test_server.py calls the same end points",
    ("demo", "HOST="): "needs a server and curl; tests/demo/test_server.py calls the same end points",
    ("dumps", "h5ls -r"): "a tool of HDF5's",
    ("dumps", "using HDF5"): "Julia",
    ("dumps", "id = H5D.open"): "Matlab",
    ("dumps", "mmcam dump inspect"): "merge needs two dumps; tests/dumps; inspect and verify are run for README",
    ("dumps", "# films.yaml"): "needs films; tests/dumps/test_sources.py",
    ("dumps", "# my_source.py"): "needs films; tests/dumps/test_sources.py",
    ("engine", "image → Batch"): "no code",
    ("evaluation", "python scripts/reproduce.py --all"): "minutes; tests/test_reproduce.py",
    ("importing", "mmcam import yunjey"): "needs a checkpoint; tests/importing/test_verb.py",
    ("importing", 'task = mmcam.load_task("runs/yunjey")'): "needs a checkpoint; tests/captioning/importers",
    ("study", "$ mmcam study serve"): "runs until Ctrl-C; tests/study/test_server.py",
}
"""(page, beginning of a block): why it is not executed, and what is instead."""


def blocks(page):
    """Languages and contents, without what only Sphinx reads."""
    found = FENCE.findall(PAGES[page].read_text(encoding="utf-8"))
    return [(language, content) for language, content in found if not language.startswith("{")]


def excused(page, content):
    return any(page == of and content.startswith(begins) for of, begins in EXCUSED)


def executed():
    found = []
    for page in PAGES:
        for number, (language, content) in enumerate(blocks(page)):
            if not excused(page, content) and not (page in FOLLOWED and language in ("python", "sh", "yaml")):
                found.append(pytest.param(page, language, content, id=f"{page}-{number}"))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for all pages, with a picture."""
    path = tmp_path_factory.mktemp("docs")
    (path / "runs" / "demo").mkdir(parents=True)
    image = Scenes(count=1, seed=7).sample(0).image
    image.save(path / "runs" / "demo" / "scene.png")
    image.save(path / "photo.jpg")
    return path


@pytest.fixture(scope="module")
def known():
    """What the blocks of a page know from those before them, and what two of them take for granted."""
    import torch
    from torch import nn

    import mmcam
    from mmcam.image import to_tensor

    task = mmcam.load_task("captioning/scenes", device="cpu")

    class Tiny(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Conv2d(3, 4, 3)
            self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))

    own = {"torch": torch, "to_tensor": to_tensor, "my_model": Tiny, "NAMES": ["a", "b", "c"]}
    own |= {"MEAN": (0.5, 0.5, 0.5), "STD": (0.5, 0.5, 0.5)}
    batch = task.collate([Scenes(count=1, seed=7).sample(0)])
    words = {"task": task, "batch": batch, "explanations": mmcam.explain(task, batch)}
    return {"README": own, "words": words}


@pytest.mark.parametrize(("page", "language", "content"), executed())
def test_block_runs(page, language, content, folder, known, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    invalidate_caches()
    if language == "python":
        exec(compile(content, f"{page}.md", "exec"), known.setdefault(page, {}))
    elif language == "yaml":
        assert read_config(content)
    else:
        assert language in ("", "sh"), "a language that no test executes: excuse the block, or execute it"
        for line in content.replace("\\\n", " ").splitlines():
            program, *words = shlex.split(line, comments=True)
            assert program == "mmcam", "only mmcam is executed: excuse the block, or execute it elsewhere"
            if "dump --config" in line:  # other pages than the front page need no dump of their own
                words += ["--limit", "8", *(["--out", f"runs/{page}"] if page != "README" else [])]
            assert main(words) == 0, line


def test_the_task_of_the_front_page_explains(known):
    """Its block has only defined a class, which is tried out here."""
    import mmcam

    (content,) = (content for _, content in blocks("README") if content.startswith("class MyTask"))
    exec(compile(content, "README.md", "exec"), own := known["README"] | {"mmcam": mmcam})
    task = own["MyTask"]()
    (explanation,) = mmcam.explain(task, task.collate([Scenes(count=1, seed=7).sample(0)]))
    assert explanation.words[0] in own["NAMES"]
    assert explanation.maps.shape == (1, 222, 222)  # a convolution of 3 x 3 over 224


@pytest.mark.parametrize("page", sorted(set(FOLLOWED) & set(PAGES)))
def test_the_pages_with_tests_of_their_own_are_read_there(page):
    place = ROOT / FOLLOWED[page]
    files = [place] if place.is_file() else sorted(place.glob("test_*.py"))
    texts = [file.read_text(encoding="utf-8") for file in files]
    assert any(f'"{page}"' in text or f'"{page}.md"' in text for text in texts)


def test_no_excuse_is_left_over():
    for page, begins in EXCUSED:
        assert any(content.startswith(begins) for _, content in blocks(page)), (page, begins)


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


@pytest.mark.parametrize("page", ["index", "start", "tasks", "equations", "differences", "api"])
def test_pages_have_a_picture_or_a_runnable_block_and_links_lead_somewhere(page):
    text = PAGES[page].read_text(encoding="utf-8")
    assert re.search(r"^!\[|^```python", text, re.MULTILINE)
    for file in re.findall(r"\]\(([^)#]+)\)", text):
        assert file.startswith("https://arxiv.org/") or (ROOT / "docs" / file).exists(), file
