"""The pages on models of other people: what they show runs, on tiny models in the place of those of the hub."""

import re
import sys
from importlib import import_module, invalidate_caches
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmcam.cli import main
from mmcam.config import read_config
from mmcam.dumps.reader import MapReader
from mmcam.huggingface.families import FAMILIES
from tests.huggingface import tiny

transformers = pytest.importorskip("transformers")

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("huggingface", "bring_your_own")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STAND_INS = {
    "llava-hf/llava-1.5-7b-hf": "llava",
    "Salesforce/blip-image-captioning-base": "blip",
    "dandelin/vilt-b32-finetuned-vqa": "vilt",
    "google/vit-base-patch16-224": "vit",
    "Qwen/Qwen2.5-VL-3B-Instruct": "qwen2.5-vl",
    "llava-hf/vip-llava-7b-hf": "vipllava",
}


def text(page):
    return (DOCS / f"{page}.md").read_text(encoding="utf-8")


def blocks(page):
    return FENCE.findall(text(page))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A new folder to stand in, with photographs; the page's modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "photos").mkdir()
    for seed, (name, size) in enumerate(
        {"photo.jpg": (60, 90), "photos/a.png": (40, 60), "photos/b.png": (60, 40)}.items()
    ):
        noise = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / name)
    yield tmp_path
    for name in ("my_captioner", "my_vqa", "my_hf"):
        sys.modules.pop(name, None)


def vipllava(folder):
    """A ViP-LLaVA made of the parts of the tiny LLaVA."""
    parts = tiny.build("llava")
    config = transformers.VipLlavaConfig(
        vision_config=parts.model.config.vision_config,
        text_config=parts.model.config.text_config,
        image_token_index=parts.model.config.image_token_index,
        vision_feature_layer=[-2, -1],
        image_seq_length=16,
    )
    transformers.VipLlavaForConditionalGeneration(config).save_pretrained(folder)
    parts.processor.save_pretrained(folder)


def stand_in(content, folder):
    """Put folders of tiny models in the place of hub ids."""
    for name, family in STAND_INS.items():
        if name in content:
            if not (folder / family).is_dir():
                vipllava(folder / family) if family == "vipllava" else tiny.save(family, folder / family)
            content = content.replace(name, str(folder / family))
    return content


def shrunk(words, folder):
    """A command on a tiny model, which says a few words."""
    name = words[words.index("--config") + 1]
    if "/hf/" not in name:
        return words
    arguments = read_config(name)["task"]["init_args"]
    more = [f"--task.init_args.model={stand_in(arguments['model'], folder)}", "--task.init_args.source.dtype=float32"]
    if not name.startswith("classification/"):
        more.append("--task.init_args.generation.length=3")
    return [*words, *more]


def follow(page, folder):
    """Do what a page says; files before what uses them."""
    names = {}
    for _, content in blocks(page):
        file = re.match(r"# (\w+\.(?:py|yaml))\n", content)
        if file:
            Path(file[1]).write_text(stand_in(content, folder), encoding="utf-8")
    invalidate_caches()
    for language, content in blocks(page):
        if language == "python" and not re.match(r"# \w+\.py\n", content):
            exec(compile(stand_in(content, folder), f"{page}.md", "exec"), names)
        for line in content.splitlines() if language == "sh" else ():
            program, *words = (word.strip('"') for word in re.findall(r'"[^"]*"|\S+', line))
            assert program == "mmcam"
            assert main(shrunk(words, folder)) == 0, line
    return names


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where tiny models are."""
    return tmp_path_factory.mktemp("models")


def test_the_page_on_hugging_face_runs(here, folder):
    names = follow("huggingface", folder)
    assert names["own"].words != ()
    assert [e.words for e in names["given"]] == [("a", "red", "dog"), ("a", "cat")]
    assert [e.words for e in names["contrast"]] == [("red rather than blue",), ("cat rather than table",)]
    with MapReader(here / "runs" / "qwen") as maps:
        assert {e.signed.shape[1:] for e in maps} == {(24, 24)}


def test_the_page_on_models_of_ones_own_runs(here, folder, capsys):
    names = follow("bring_your_own", folder)
    out = capsys.readouterr().out
    assert "photo: a dog and a pizza" in out
    assert "photo: what is left of the dog?" in out
    assert names["explanation"].signed.shape == (1, 16, 16)
    assert {"photo.png", "photo.json"} <= {file.name for file in (here / "runs" / "mine").iterdir()}


def test_a_captioner_and_a_vqa_model_are_thirty_lines_or_so():
    """Lines of the classes, without imports, blank lines and lists of words."""
    for _, content in blocks("bring_your_own"):
        if re.match(r"# my_(captioner|vqa)\.py", content):
            _, _, body = content.partition("class ")
            assert len([line for line in body.splitlines() if line.strip()]) <= 30
        if content.startswith("# my_hf.py"):
            assert len([line for line in content.splitlines()[1:] if line.strip() and "import" not in line]) <= 6


def test_every_family_has_its_row():
    rows = [line for line in text("huggingface").splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([\w-]+)`", row.split("|")[1])}
    assert named == {kind for family in FAMILIES for kind in family.kinds}


@pytest.mark.parametrize("page", PAGES)
def test_links_and_names_lead_somewhere(page):
    for file in re.findall(r"\]\(([^)#]+)\)", text(page)):
        assert (DOCS / file).exists(), file
    for path in re.findall(r"`((?:mmcam|captioning|vqa|classification)(?:\.\w+)*\.[A-Z]\w+)", text(page)):
        module, _, name = path.rpartition(".")
        assert hasattr(import_module(module), name), path
