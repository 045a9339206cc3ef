import pytest
import torch
from torch import nn

from mmcam.checkpoint import save_model
from mmcam.scenes.kinds import GROUPS, KINDS
from mmcam.scenes.questions import ANSWERS, questions
from mmcam.scenes.write import scenes, write
from mmcam.task import Targets
from mmcam.text import Vocabulary, tokenise
from tests.tiny_task import TinyTask
from vqa.models import NormProduct
from vqa.quality import AnswerAccuracy, VQAQuality
from vqa.task import VQATask

SEED, LIMIT = 3, 4
NOUNS = " ".join(f"{kind.name} {kind.plural}" for kind in KINDS)
GROUP = " ".join(f"{group}s" for group in GROUPS)
PLAIN = "what is left right of above below the kind thing there a an how many things are pieces food where ?"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    words = list(Vocabulary.build([PLAIN, NOUNS, GROUP]).words)
    return NormProduct(words, list(ANSWERS), embedding=4, hidden=5, common=6)


class Knowing(VQATask):
    """Answers right, whatever it sees."""

    def predict(self, activations, batch):
        mine = [truth_of(identity, text) for identity, text in zip(batch.ids, batch.texts, strict=True)]
        return Targets.of([[ANSWERS.index(answer)] for answer in mine], [[answer] for answer in mine])


def asked(key):
    scene = next(scene for scene in scenes(SEED, "test", LIMIT) if scene.key == key)
    return questions(scene, 6)


def truth_of(identity, text):
    return next(q.answer for q in asked(identity.rsplit("/", 1)[0]) if q.text == text)


def every():
    return [(scene, question) for scene in scenes(SEED, "test", LIMIT) for question in questions(scene, 6)]


def test_a_random_model_is_measured(model):
    figures = VQAQuality().measure(VQATask(model), SEED, LIMIT)
    assert figures["questions"] == len(every())
    assert 0 <= figures["accuracy"] < 0.5
    assert "accuracy_question_only" not in figures
    assert {name.removeprefix("accuracy_") for name in figures if name.startswith("accuracy_")} == {
        question.form for _, question in every()
    }
    assert figures["answer_pointing_n"] <= figures["questions"]


def test_a_model_that_knows_is_always_right_and_every_answer_about_things_is_pointed_at(model):
    figures = VQAQuality().measure(Knowing(model), SEED, LIMIT)
    assert {value for name, value in figures.items() if name.startswith("accuracy")} == {1.0}
    counted = [question for scene, question in every() if question.about and len(scene.things) > 1]
    assert figures["answer_pointing_n"] == len(counted)
    assert figures["answer_pointing_what_n"] == sum(question.form == "what" for question in counted)
    for row in ("", "_other", "_activation_norm", "_flipped", "_centre", "_random"):
        assert 0 <= figures[f"answer_pointing{row}"] <= 1


def test_a_blind_model_s_accuracy_stands_beside(model, tmp_path):
    blind = NormProduct(list(model.vocabulary.words), list(ANSWERS), embedding=4, hidden=5, common=6)
    readout = blind.readout[1]
    assert isinstance(readout, nn.Linear)
    nn.init.zeros_(readout.weight)
    with torch.no_grad():
        readout.bias[ANSWERS.index("no")] = 1000  # it always says no
    quality = VQAQuality(str(save_model(blind, tmp_path)), each=6)
    share = sum(question.answer == "no" for _, question in every()) / len(every())
    assert quality.measure(VQATask(model), SEED, LIMIT)["accuracy_question_only"] == pytest.approx(share, abs=1e-4)


def test_accuracy_on_a_data_set_in_vqa_v2_s_format(model, tmp_path):
    write(tmp_path, "test", 2, seed=SEED, questions_each=6)
    quality = AnswerAccuracy(str(tmp_path), "scenes", "test", "scenes_{split}_{{:012d}}.png")
    assert quality.source(7) == f"{tmp_path}, split test"
    task = VQATask(model)
    readout = model.readout[1]
    before = readout.bias.detach().clone()
    with torch.no_grad():
        readout.bias[ANSWERS.index("yes")] += 1000
    figures = quality.measure(task, 0, 2)
    with torch.no_grad():
        readout.bias.copy_(before)
    some = [q.answer for scene in scenes(SEED, "test", 2) for q in questions(scene, 6)]
    assert figures["accuracy"] == pytest.approx(some.count("yes") / len(some), abs=1e-4)
    assert (figures["questions"], figures["pictures"]) == (len(some), 2)


def test_questions_with_unknown_words_are_asked_and_counted(model, tmp_path):
    """A model that knows few words hears the unknown word in place of the others, at the same place."""
    write(tmp_path, "test", 2, seed=SEED, questions_each=6)
    some = [q for scene in scenes(SEED, "test", 2) for q in questions(scene, 6)]
    few = NormProduct(["what", "is", "the", "?"], list(ANSWERS), embedding=4, hidden=5, common=6)
    heard = []

    class Listening(VQATask):
        def answers(self, batch):
            for row, n in zip(batch.inputs["words"].tolist(), batch.inputs["lengths"].tolist(), strict=True):
                heard.append([few.vocabulary.words[number] for number in row[:n]])
            texts.extend(batch.texts)
            return super().answers(batch)

    texts = []
    figures = AnswerAccuracy(str(tmp_path), "scenes", "test", "scenes_{split}_{{:012d}}.png").measure(
        Listening(few), 0, 2
    )
    known = {"what", "is", "the", "?"}
    assert heard == [[word if word in known else "<unk>" for word in tokenise(q.text)] for q in some]
    assert texts == [q.text for q in some]
    strange = sum(not set(tokenise(q.text)) <= known for q in some)
    assert (figures["questions_with_unknown_words"], figures["questions"]) == (strange, len(some))
    assert strange > 0
    knowing = AnswerAccuracy(str(tmp_path), "scenes", "test", "scenes_{split}_{{:012d}}.png")
    assert knowing.measure(VQATask(model), 0, 2)["questions_with_unknown_words"] == 0


@pytest.mark.parametrize("quality", [VQAQuality(), AnswerAccuracy("a", "b", "c", "d")])
def test_it_measures_vqa_tasks_only(quality):
    with pytest.raises(TypeError, match="measures a VQATask"):
        quality.measure(TinyTask(), SEED, 1)
