"""A study of the smallest dump, made once for all tests that do not write into it."""

import shutil

import pytest
import torch

from mmcam.study.make import make
from tests.study.studies import at, explanation, write_dump


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Sixteen pictures of `Halves`: a dog left, a cat right; by the first method the maps say so."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("study")
    names = [f"h{number}" for number in range(16)]
    ones = [explanation(name, ("a", "dog", "cat"), at((1, 1), (1, 0), (1, 3))) for name in names]
    others = {"hires_cam": [explanation(name, ("a", "dog", "cat"), method="hires_cam") for name in names]}
    path = write_dump(folder / "maps.h5", ones, others, ("grad_cam", "hires_cam"), count=16)
    make(folder / "study", path, kind="discrimination", pairs=8, side=64, attention=2, opacity=1.0)
    return folder / "study"


@pytest.fixture
def folder(made_once, tmp_path):
    """A copy of it, to be written into."""
    return shutil.copytree(made_once, tmp_path / "study")
