"""What is true of captioned scenes, and the samples of all data sets against one another."""

import pytest
import torch

from captioning.coco import CocoCaptions
from captioning.data import CaptionedPictures, CaptionedScenes
from captioning.flickr import Flickr30kEntities
from captioning.karpathy import KarpathySplit
from captioning.visual_genome import Regions
from mmcam.scenes.language import NOUNS, captions, is_true
from mmcam.scenes.write import write
from mmcam.text import tokenise
from tests.annotated import SAMPLES, copied, iou

FALSE = "a zebra to the left of a tv"


@pytest.fixture(scope="module")
def scenes():
    return CaptionedScenes("test", 40)


def test_nouns_of_a_true_caption_mean_what_it_was_written_about(scenes):
    for number in range(40):
        caption = captions(scenes.scene(number), 1)[0]
        assert scenes.given(number) == (caption.text,)
        expected = [about if word in NOUNS else None for word, about in zip(caption.words, caption.about, strict=True)]
        assert scenes.about(number, tokenise(caption.text)) == expected
        assert any(expected)


def test_nouns_of_other_captions_mean_all_of_their_kind(scenes):
    scene = scenes.scene(0)
    kind = scene.things[0].kind
    assert scenes.about(0, [kind, "jumps", "a"]) == [tuple(scene.of_kind(kind)), None, None]
    absent = next(name for name in ("zebra", "kite") if not scene.of_kind(name))
    assert scenes.about(0, ["a", absent]) == [None, ()]


def test_truth_and_words_are_judged(scenes):
    number = next(i for i in range(40) if not is_true(FALSE.split(), scenes.scene(i)))
    other = number + 1
    judged = scenes.judge({other: scenes.given(other)[0].split(), number: FALSE.split()})
    assert judged["true_captions"].tolist() == [1, 0]
    assert judged["rouge_l"][0] == pytest.approx(1)
    assert judged["cider_d"][0] > judged["cider_d"][1]


def test_written_scenes_are_read_back_exactly(tmp_path, scenes):
    write(tmp_path, "test", 6, captions_each=2)
    read = CaptionedPictures(str(tmp_path), "test")
    for number in range(6):
        ours, theirs = scenes.things(number), read.things(number)
        assert ours.names == theirs.names
        assert torch.equal(ours.masks, theirs.masks)
        assert torch.equal(ours.boxes, theirs.boxes)
        kinds = {word for word in tokenise(read.given(number)[0]) if word in NOUNS}
        for word in kinds:
            (about,) = read.about(number, [word])
            assert about == tuple(scenes.scene(number).of_kind(NOUNS[word][0]))


def test_the_same_cat_lies_at_the_same_place_in_all_data_sets(tmp_path):
    """The samples were made to agree: Flickr's, Visual Genome's and COCO's boxes are of the same cat, cup and spoon."""
    coco = CaptionedPictures(str(copied(tmp_path, "coco_captions", "coco_instances")), "val2014")
    genome = Regions(str(SAMPLES / "visual_genome"))
    flickr = {
        i: Flickr30kEntities(str(SAMPLES / "flickr30k_entities"), split) for i, split in enumerate(("train", "test"))
    }
    for picture, word, region in ((0, "cat", 0), (1, "cup", 3), (1, "spoon", 4)):
        ((numbers,), (others,)) = coco.about(picture, [word]), flickr[picture].about(0, [word])
        assert numbers
        assert others
        outline = coco.things(picture).boxes[numbers[0]].tolist()
        box = flickr[picture].things(0).boxes[others[0]].tolist()
        assert box == genome.things(region).boxes[0].tolist()
        assert iou(outline, box) > 0.9


def test_karpathy_s_captions_are_coco_s():
    coco = CocoCaptions(SAMPLES / "coco_captions/val2014", SAMPLES / "coco_captions/annotations/captions_val2014.json")
    file = str(SAMPLES / "karpathy/dataset_coco.json")
    karpathy = KarpathySplit(file, str(SAMPLES / "karpathy/images"), "restval+test")
    assert [list(karpathy.given(i)) for i in (0, 1)] == coco.captions
    assert [path.name for path in karpathy.paths] == [path.name for path in coco.paths]
