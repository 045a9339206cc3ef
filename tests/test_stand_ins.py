"""Sources in which scenes stand for what only people can give: descriptions of regions, and where people pointed."""

import torch

from captioning.data import DescribedThings
from mmcam.scenes.language import NOUNS
from vqa.data import PointedScenes


def test_every_word_of_a_description_is_about_its_thing():
    source = DescribedThings(count=12)
    assert len(set(source.ids)) == len(source) > 12
    for number in range(len(source)):
        article, noun = source.given(number)[0].split(" ", 1)
        things, about = source.things(number), source.about(number, [article, noun])
        assert about[0] == about[1]
        assert [things.names[i] for i in about[0]] == [NOUNS[noun][0]]
        assert source.sample(number).image.size == tuple(things.masks.shape[:0:-1])


def test_the_masks_of_what_a_question_is_about_stand_for_people():
    source = PointedScenes(count=12)
    some = 0
    for number in range(len(source)):
        (about,), human = source.about(number, ["dog"]), source.human(number)
        assert (human is None) == (not about)
        if human is not None:
            some += 1
            assert torch.equal(human[0].bool(), source.things(number).masks[list(about)].any(0))
    assert some > 12
