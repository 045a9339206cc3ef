import math

import pytest
import torch

from captioning import captioner
from captioning.models import AttendAndTell
from captioning.quality import CaptionQuality
from captioning.task import CaptioningTask
from mmcam.scenes.kinds import KINDS, NUMBERS
from mmcam.scenes.language import captions, statements
from mmcam.scenes.write import scenes
from mmcam.text import Vocabulary
from tests.tiny_task import TinyTask

SEED, LIMIT = 3, 5
NOUNS = " ".join(f"{kind.name} {kind.plural}" for kind in KINDS)
TEXT = f"a an {' '.join(NUMBERS)} {NOUNS} to the left right of on above over below under and ,"


@pytest.fixture
def task():
    vocabulary = Vocabulary.build([TEXT])
    return CaptioningTask(AttendAndTell(list(vocabulary.words), embedding=4, hidden=5), length=4)


def say(monkeypatch, task, texts):
    """Let the model say these captions, whatever it sees."""
    said = iter([task.model.vocabulary.encode(text.split()) for text in texts])
    monkeypatch.setattr(captioner, "decode", lambda model, activations, *_: [next(said) for _ in activations])


def test_a_random_model_is_measured(task):
    figures = CaptionQuality().measure(task, SEED, LIMIT)
    assert figures["captions"] == LIMIT
    assert 0 <= figures["true_captions"] <= 1
    assert len(figures["wrong"]) == min(5, LIMIT - round(LIMIT * figures["true_captions"]))
    for row in ("", "_activation_norm", "_flipped", "_centre", "_random"):
        assert 0 <= figures[f"given_noun_pointing{row}"] <= 1
    several = [captions(scene, 1)[0] for scene in scenes(SEED, "test", LIMIT) if len(scene.things) > 1]
    assert figures["given_noun_pointing_n"] == sum(len(statements(caption.words)) for caption in several)
    assert str(figures) == str(CaptionQuality().measure(task, SEED, LIMIT))  # as texts: NaN is not equal to itself


def test_true_captions_are_all_true_and_point_at_the_same_nouns(task, monkeypatch):
    say(monkeypatch, task, [captions(scene, 1)[0].text for scene in scenes(SEED, "test", LIMIT)])
    figures = CaptionQuality().measure(task, SEED, LIMIT)
    assert figures["true_captions"] == 1
    assert figures["wrong"] == []
    for name in ("", "_n", "_other", "_activation_norm", "_centre"):
        assert figures[f"noun_pointing{name}"] == figures[f"given_noun_pointing{name}"]


def test_a_noun_that_is_not_in_the_picture_is_a_miss(task, monkeypatch):
    every = list(scenes(SEED, "test", LIMIT))
    absent = next(
        kind.name for kind in KINDS if kind.name[0] not in "aeiou" and not any(s.of_kind(kind.name) for s in every)
    )
    say(monkeypatch, task, [f"a {absent}"] * LIMIT)
    figures = CaptionQuality().measure(task, SEED, LIMIT)
    assert figures["true_captions"] == 0
    assert figures["wrong"] == [f"a {absent}"] * 5
    assert figures["noun_pointing"] == 0
    assert figures["noun_pointing_n"] == sum(len(scene.things) > 1 for scene in every)


def test_the_nouns_of_what_is_no_sentence_count(task, monkeypatch):
    every = list(scenes(SEED, "test", LIMIT))
    absent = next(kind.name for kind in KINDS if not any(s.of_kind(kind.name) for s in every))
    say(monkeypatch, task, [f"above {scene.things[0].kind} {absent}" for scene in every])
    figures = CaptionQuality().measure(task, SEED, LIMIT)
    assert figures["true_captions"] == 0
    several = sum(len(scene.things) > 1 for scene in every)
    assert figures["noun_pointing_n"] == 2 * several
    assert figures["noun_pointing"] <= 0.5  # the second one of each is a miss


def test_what_has_no_nouns_points_at_nothing(task, monkeypatch):
    say(monkeypatch, task, ["above above"] * 2)
    figures = CaptionQuality().measure(task, SEED, 2)
    assert (figures["true_captions"], figures["noun_pointing_n"]) == (0, 0)
    assert math.isnan(figures["noun_pointing"])


def test_empty_captions_are_wrong(task):
    with torch.no_grad():
        task.model.readout.bias[2] += 1000
    assert CaptionQuality().measure(task, SEED, 2)["wrong"] == ["", ""]


def test_it_measures_captioners_only():
    with pytest.raises(TypeError, match="CaptionQuality measures a CaptioningTask"):
        CaptionQuality().measure(TinyTask(), SEED, 1)
