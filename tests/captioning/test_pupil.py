"""Tiny models can say every caption of their world."""

import pytest

from captioning.hf_scenes import FewKinds
from captioning.pupil import KINDS, build, vocabulary
from mmcam.errors import UserError
from mmcam.scenes.language import captions, is_true


def test_every_caption_can_be_said():
    world = FewKinds("test", 300)
    texts = [captions(world.scene(i), 1)[0] for i in range(300)]
    words = {word for text in texts for word in text.words}
    assert words <= set(vocabulary())
    assert words >= {"a", "and", "above", "left", *KINDS}
    assert all(is_true(text.words, world.scene(i)) for i, text in enumerate(texts))


def test_refuses_models_that_are_none():
    with pytest.raises(UserError, match="llava"):
        build("lava")
