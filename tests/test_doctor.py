import copy

import pytest
import torch

from mmcam.cli import main
from mmcam.doctor import FAILED, OK, SKIPPED, depends_on_layer, derivatives, examine
from mmcam.errors import UserError
from mmcam.task import Sample
from mmcam.verbs.doctor import random_pictures
from tests.tiny_task import Halved, Leaking, Pooled, TinyTask

ALL = (
    "finite weights",
    "layer conv2",
    "scores depend on it",
    "batched = looped",
    "finite differences",
    "CAM identity",
    "alone = in a batch",
    "time",
    "memory",
)


def samples(text=""):
    return [Sample(image, name, text) for name, image in random_pictures()]


def results(task, **options):
    return {check.name: check.result for check in examine(task.eval(), samples(), **options)}


def figures(task, name, **options):
    (found,) = [check.figures for check in examine(task.eval(), samples(), **options) if check.name == name]
    return found


def test_a_sound_model_with_pooling_and_a_linear_head():
    assert results(TinyTask()) == dict.fromkeys(ALL, OK)


def test_in_float64_errors_are_rounding_errors():
    for name in ("batched = looped", "CAM identity"):
        assert float(figures(TinyTask(), name).rpartition(" ")[2]) < 1e-12
    assert float(figures(TinyTask(head="mlp"), "finite differences").rpartition(" ")[2]) < 1e-6


def test_cam_identity_needs_pooling_and_a_linear_head():
    found = results(TinyTask(head="mlp"))
    assert found == dict.fromkeys(ALL, OK) | {"CAM identity": SKIPPED}
    assert "the gradient changes with the activations" in figures(TinyTask(head="mlp"), "CAM identity")
    assert "the gradient differs from place to place" in figures(TinyTask(layer="conv1"), "CAM identity")


def test_samples_that_see_one_another():
    found = results(Leaking())
    assert found["alone = in a batch"] == FAILED
    assert found["finite weights"] == OK


def test_wrong_derivatives():
    found = results(Halved())
    assert found["batched = looped"] == FAILED
    assert found["finite differences"] == OK  # these are of the reference


def test_a_head_that_rounds_to_float32_on_its_way():
    """Differences of 1e-5 drown in it; longer ones do not."""

    class Rounding(TinyTask):
        def _logits(self, activations, batch):
            return super()._logits(activations.to(torch.float32).to(activations.dtype), batch)

    assert results(Rounding(head="mlp"))["finite differences"] == OK


def test_finite_differences_catch_a_wrong_reference(monkeypatch):
    right = derivatives.channel_weights

    def wrong(*arguments):
        scores, weights = right(*arguments)
        return scores, weights * 1.01

    monkeypatch.setattr(derivatives, "channel_weights", wrong)
    assert results(TinyTask(head="mlp"))["finite differences"] == FAILED


def test_a_layer_that_no_score_depends_on():
    checks = examine(TinyTask(head="dead").eval(), samples())
    assert (checks[-1].name, checks[-1].result) == ("scores depend on it", FAILED)
    assert "no score depends on the layer 'conv2'" in checks[-1].figures


def test_depends_on_layer():
    for head, expected in (("linear", True), ("mlp", True), ("dead", False)):
        task = TinyTask(head=head).eval()
        batch = task.collate(samples())
        assert depends_on_layer(task, batch, task.predict(task.trunk(batch), batch)) is expected


def test_weights_that_are_not_finite():
    (check,) = examine(TinyTask(spoil="conv1.weight"), samples())
    assert check.result == FAILED
    assert "conv1.weight" in check.figures


def test_a_layer_that_gives_no_maps():
    checks = examine(Pooled().eval(), samples())
    assert checks[-1].result == FAILED
    assert "must give maps of shape (b, k, h, w)" in checks[-1].figures


def test_activations_that_are_not_finite():
    class Overflowing(TinyTask):
        def trunk(self, batch):
            return super().trunk(batch) * float("inf")

    checks = examine(Overflowing().eval(), samples())
    assert checks[-1].result == FAILED
    assert "NaN or infinity in the activations" in checks[-1].figures


def test_a_model_that_says_nothing():
    checks = examine(TinyTask(length=0).eval(), [Sample(image, name) for name, image in random_pictures()])
    assert checks[-1].result == SKIPPED
    assert "says nothing" in checks[-1].figures


def test_what_is_given_is_examined():
    assert "6 words" in figures(TinyTask(), "layer conv2", texts=["red dog"] * 3)
    with pytest.raises(UserError, match="unknown word 'dgo'"):
        examine(TinyTask().eval(), samples(), ["dgo"] * 3)


def test_one_picture_has_no_batch():
    found = {check.name: check.result for check in examine(TinyTask().eval(), samples()[:1])}
    assert found == dict.fromkeys(ALL, OK) | {"alone = in a batch": SKIPPED}


@pytest.mark.parametrize("layer", ["conv1", "conv2"])
def test_a_model_that_has_no_float64(layer):
    class Single(TinyTask):
        def trunk(self, batch):
            if batch.images.dtype != torch.float32:
                raise RuntimeError("expected float32")
            return super().trunk(batch)

    class Rounding(TinyTask):
        def scores(self, activations, batch, targets):
            return super().scores(activations, batch, targets).float()

    for cls in (Single, Rounding):
        task = cls(layer=layer)
        assert "checked in float32" in figures(task, f"layer {layer}")
        assert FAILED not in results(task).values()


def test_the_task_is_left_as_found():
    task = TinyTask().eval()
    before = copy.deepcopy(task.state_dict())
    state = torch.get_rng_state()
    examine(task, samples())
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in task.parameters())
    assert torch.equal(torch.get_rng_state(), state)


# --- the verb ---


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.yaml"
    path.write_text("task: {class_path: tests.tiny_task.TinyTask}")
    return str(path)


def test_the_verb_prints_a_table(config, capsys):
    assert main(["doctor", "--config", config]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{config}: TinyTask, layer conv2, cpu"
    assert lines[1].split() == ["check", "result", "figures"]
    assert [line.strip().split("  ")[0] for line in lines[2:-1]] == list(ALL)
    assert lines[-1] == "nothing failed"


def test_the_verb_says_what_failed(config, capsys):
    assert main(["doctor", "--config", config, "--task.class_path=tests.tiny_task.Leaking"]) == 1
    assert "checks FAILED" in capsys.readouterr().out.splitlines()[-1]
    assert main(["doctor", "--config", config, "--task.spoil=conv1.weight"]) == 1
    assert "NaN or infinity in conv1.weight" in capsys.readouterr().out


def test_the_verb_takes_pictures_questions_and_texts(config, tmp_path, capsys):
    for name, image in random_pictures():
        image.save(tmp_path / f"{name}.png")
    words = ["*.png", "--task.asks=true", "--question", "dog?", "--question", "the red cat?", "--class", "yes, no"]
    assert main(["doctor", "--config", config, *words]) == 0
    assert "6 words, answers or classes of 3 pictures" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gone.png"], "'gone.png': expected a picture"),
        (["--task.asks=true"], "expected a question"),
        (["--question", " "], "--question: expected a text"),
        (["--layer", "conv9"], "unknown layer 'conv9'"),
    ],
)
def test_mistakes(config, capsys, words, message):
    assert main(["doctor", "--config", config, *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.gpu
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_on_cuda(config, capsys, head):
    assert main(["doctor", "--config", config, "--device", "cuda", f"--task.head={head}"]) == 0
    assert "conv2, cuda" in capsys.readouterr().out


def test_print_config(config, capsys):
    assert main(["doctor", "--config", config, "--print_config"]) == 0
    assert "class_path: tests.tiny_task.TinyTask" in capsys.readouterr().out
