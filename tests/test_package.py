"""The package from outside: its version, its YAML files, and the wheel in an environment that holds no checkout."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import mmcam

ROOT = Path(__file__).parents[1]
PACKAGES = ("mmcam", "captioning", "vqa", "classification")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))

# What a user's program sees: the wheel's folder first, the dependencies after it, the checkout nowhere.
OUTSIDE = """
import json, sys
from importlib.metadata import version
from pathlib import Path
wheel, checkout = sys.argv[1:]
sys.path[:] = [wheel, *(p for p in sys.path if p and Path(p).resolve() != Path(checkout))]
import captioning, mmcam, mmcam.resources as resources
from PIL import Image
explanation = mmcam.explain_image(Image.linear_gradient("L"), caption="a dog", device="cpu")
print(json.dumps({
    "files": [mmcam.__file__, captioning.__file__],
    "explained": [explanation.words, len(explanation.maps)],
    "versions": [mmcam.__version__, version("mmcam")],
    "configs": {name: str(resources.config_path(name)) for name in resources.shipped_configs()},
    "weights": {name: str(resources.weights_path(name)) for name in resources.shipped_weights()},
}))
"""


def run(*command, cwd: Path) -> str:
    result = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The folder into which the built wheel is installed, far from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (file,) = folder.glob("mmcam-*.whl")
    install = ["install", "--quiet", "--no-deps", "--no-index", "--no-compile", "--target", folder / "site", file]
    run(sys.executable, "-m", "pip", *install, cwd=folder)
    return folder / "site"


def test_version():
    assert mmcam.__version__ == VERSION


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.relative_to(ROOT / "configs").as_posix())
def test_config_is_yaml(file):
    assert isinstance(yaml.safe_load(file.read_text()), dict)


def test_wheel_holds_what_the_checkout_holds(wheel):
    """Every file of the four packages and every config; no test, script or benchmark."""
    in_checkout = {
        *(f.relative_to(ROOT).as_posix() for p in PACKAGES for f in (ROOT / p).rglob("*") if is_content(f)),
        *(f"mmcam/configs/{f.relative_to(ROOT / 'configs').as_posix()}" for f in CONFIGS),
    }
    in_wheel = {f.relative_to(wheel).as_posix() for f in wheel.rglob("*") if is_content(f)}
    in_wheel = {f for f in in_wheel if not f.startswith(("bin/", f"mmcam-{VERSION}.dist-info/"))}
    assert in_wheel == in_checkout
    assert {f"{package}/py.typed" for package in PACKAGES} <= in_wheel


def is_content(file: Path) -> bool:
    return file.is_file() and "__pycache__" not in file.parts


def test_wheel_carries_licence_and_notice(wheel):
    (folder,) = wheel.glob("mmcam-*.dist-info/licenses")
    assert {f.name for f in folder.iterdir()} == {"LICENSE", "NOTICE"}


def test_wheel_works_outside_the_checkout(wheel, tmp_path):
    seen = json.loads(run(sys.executable, "-I", "-c", OUTSIDE, wheel, ROOT, cwd=tmp_path))
    assert seen["files"] == [str(wheel / package / "__init__.py") for package in ("mmcam", "captioning")]
    assert seen["explained"] == [["a", "dog"], 2]  # with the shipped weights
    assert seen["versions"] == [VERSION, VERSION]
    shipped = {f.relative_to(ROOT / "configs").with_suffix("").as_posix() for f in CONFIGS}
    assert seen["configs"] == {name: str(wheel / "mmcam" / "configs" / f"{name}.yaml") for name in shipped}
    trained = {f.parent.name for f in (ROOT / "mmcam" / "weights").glob("*/model.safetensors")}
    assert seen["weights"] == {name: str(wheel / "mmcam" / "weights" / name) for name in trained}
