"""Fifty scenes of every split with their pictures, drawn once."""

import pytest

from mmcam.scenes.draw import draw
from mmcam.scenes.write import SPLITS, scenes
from tests.scenes.seen import look


@pytest.fixture(scope="session")
def drawn():
    return {split: [(scene, *draw(scene)) for scene in scenes(7, split, 50)] for split in SPLITS}


@pytest.fixture(scope="session")
def worlds(drawn):
    """The same scenes with what one sees of them."""
    return [(scene, look(scene, masks)) for split in SPLITS for scene, _, masks in drawn[split]]
