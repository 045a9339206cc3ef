"""Fifty scenes of every split with their pictures, drawn once."""

import pytest

from mmcam.scenes.draw import draw
from mmcam.scenes.write import SPLITS, scenes


@pytest.fixture(scope="session")
def drawn():
    return {split: [(scene, *draw(scene)) for scene in scenes(7, split, 50)] for split in SPLITS}
