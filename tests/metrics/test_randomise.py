import pytest
import torch
from torch import nn

from classification import ClassificationTask
from mmcam.errors import UserError
from mmcam.metrics.randomise import halves, layers, other_words, randomised, redraw
from mmcam.task import Targets
from tests.metrics.linear import Linear, captions, of, questions


def test_halves_of_a_captioner():
    task, batch, _ = captions()
    vision, language = halves(task, batch)
    assert set(vision) | set(language) == set(layers(task))
    assert all("backbone" in name or name == "model.see" for name in vision)
    assert set(language) == {"model.hear", "model.lstm", "model.readout"}
    assert not task.model.backbone.features[0]._forward_pre_hooks  # only a copy was watched


def test_halves_of_a_vqa_model():
    task, batch, _ = questions()
    vision, language = halves(task, batch)
    assert all(name.startswith("model.backbone.") for name in vision)
    assert {"model.hear.0", "model.lstm", "model.question.1", "model.image.1", "model.readout.1"} == set(language)
    assert batch.memo == {}


def test_a_classifier_is_all_vision():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    task = ClassificationTask(net, "0", size=6)
    assert halves(task, of(torch.randn(1, 3, 6, 6))) == (["model.0", "model.3"], [])


def test_what_is_named_is_drawn_anew_and_nothing_else():
    task, _, _ = captions()
    twin = randomised(task, ["model.backbone.features.4", "model.lstm"])
    changed = {
        name for name, value in task.named_parameters() if not torch.equal(value, twin.get_parameter(name))
    }  # a batch norm's weights may be what they were
    inside = ("model.backbone.features.4.", "model.lstm.")
    assert {name for name, _ in task.named_parameters() if name.startswith("model.lstm")} <= changed
    assert all(name.startswith(inside) for name in changed)
    assert not twin.training
    assert twin.model.lstm.weight_hh.dtype == torch.float64


def test_what_a_module_draws_depends_on_seed_and_module_alone():
    task, _, _ = captions()
    alone, together = randomised(task, ["model.lstm"]), randomised(task, ["model"])
    assert torch.equal(alone.model.lstm.weight_ih, together.model.lstm.weight_ih)
    assert not torch.equal(alone.model.lstm.weight_ih, randomised(task, ["model.lstm"], 1).model.lstm.weight_ih)
    twice = randomised(task, ["model.lstm"])
    redraw(twice, ["model.lstm"])
    assert torch.equal(alone.model.lstm.weight_ih, twice.model.lstm.weight_ih)
    same = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    task.model.same = same
    drawn = randomised(task, ["model.same"]).model.same
    assert not torch.equal(drawn[0].weight, drawn[1].weight)


def test_parameters_without_initialisation_are_shuffled():
    weight = torch.arange(24.0).view(1, 2, 3, 4)
    task = Linear(weight.clone())
    twin = randomised(task, [""])
    assert not torch.equal(twin.weight, weight)
    assert torch.equal(twin.weight.flatten().sort().values, weight.flatten())
    assert torch.equal(task.weight, weight)


def test_running_means_are_forgotten():
    task, _, _ = captions()
    norm = next(m for m in task.modules() if isinstance(m, nn.BatchNorm2d))
    norm.running_mean += 1
    name = next(n for n, m in task.named_modules() if m is norm)
    assert randomised(task, [name]).get_submodule(name).running_mean.abs().sum() == 0
    assert norm.running_mean.mean() > 0


def test_the_random_state_is_left_alone_also_after_a_failure():
    task, _, _ = captions()
    state = torch.get_rng_state()
    randomised(task, ["model.lstm"])
    with pytest.raises(UserError, match=r"unknown module 'model\.lstn': did you mean 'model\.lstm'"):
        randomised(task, ["model.lstn"])
    task.model.lstm.reset_parameters = 3
    with pytest.raises(TypeError):
        randomised(task, ["model.lstm"])
    assert torch.equal(torch.get_rng_state(), state)


def test_captions_hear_other_words_of_the_batch_and_keep_their_own():
    task, batch, targets = captions()
    batch.memo["x"] = torch.zeros(2)
    own, alone, changed = other_words(task, batch, targets)
    assert own.ids == ("0",) * 6 + ("1",) * 2
    assert own.memo == {}
    assert [words[0] for words in alone.words] == [*targets.words[0], *targets.words[1]]
    assert changed.tolist() == [False, True, True, True, True, True, False, True]
    pool = set(targets.ids[targets.mask].tolist())
    kept = []
    for n, (i, r) in enumerate([(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 0), (1, 1)]):
        assert alone.rows[n, 0].nonzero().tolist() == [[r]]
        assert alone.ids[n, r] == targets.ids[i, r]
        assert set(alone.ids[n].tolist()) <= pool
        kept += (alone.ids[n, :r] == targets.ids[i, :r]).tolist()
    assert sum(kept) < len(kept) / 2
    again = other_words(task, batch, targets)[1]
    assert torch.equal(again.ids, alone.ids)


def test_questions_are_exchanged_with_their_inputs():
    task, batch, targets = questions()  # the first and the last are the same
    own, alone, changed = other_words(task, batch, targets)
    assert own.ids == ("0", "0", "1", "2", "2", "2")
    assert own.texts == ("what", "what", "is there a dog", "what", "what", "what")
    assert torch.equal(own.inputs["lengths"], torch.tensor([1, 1, 4, 1, 1, 1]))
    assert torch.equal(own.inputs["words"][2], batch.inputs["words"][2])
    assert torch.equal(own.images[2], batch.images[1])
    assert torch.equal(alone.ids[0], targets.ids[0])
    assert changed.all()


def test_classes_hear_nothing():
    task = Linear(torch.zeros(3, 1, 2, 2))
    targets = Targets.of([[0, 1], [2]], [["0", "1"], ["2"]])
    _, alone, changed = other_words(task, of(torch.zeros(2, 1, 2, 2)), targets)
    assert not changed.any()
    assert torch.equal(alone.ids[:2], targets.ids[[0, 0]])
