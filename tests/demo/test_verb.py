"""What `mmcam demo` refuses before anything is loaded, and how models find their tabs."""

from dataclasses import replace

import pytest

from mmcam.cli import main, parser_of
from mmcam.demo.served import Served, _asks
from mmcam.errors import UserError
from mmcam.verbs.demo import check, is_loopback
from tests.tiny_task import TinyTask


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--share"], "refused"),
        (["--host", "0.0.0.0"], "--public"),
        (["--host", "192.168.1.5"], "--public"),
        (["--host", "::"], "--public"),
        (["--host", "my.machine"], "--public"),
        (["--port", "0"], "1 to 65535"),
        (["--port", "70000"], "1 to 65535"),
        (["--max-mb", "0"], "1 or more"),
        (["--task.init_args.layer=features.3"], "one --config"),
        (["--config", "captioning/scene"], "captioning/scenes"),
        (["--confg", "x"], "--config"),
    ],
)
def test_refused(capsys, words, message):
    assert main(["demo", *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("host", "own"), [("127.0.0.1", True), ("127.3.2.1", True), ("localhost", True), ("::1", True)]
)
def test_loopback(host, own):
    assert is_loopback(host) is own


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "", "localhost.evil.example", "0"])
def test_not_loopback(host):
    assert not is_loopback(host)


def test_public_is_said_aloud():
    arguments = parser_of("demo").parse_args(["--host", "0.0.0.0", "--public"])
    arguments["overrides"] = {}
    check(arguments)


def test_a_task_of_ones_own_has_a_tab():
    """By what it wants and says, not by its class; without layers to choose from."""
    task = TinyTask()
    one = Served("mine.yaml", task, False, False, (), (task.layer,))
    assert (one.kind, one.name) == ("Captioning" if task.separator == " " else "Classification", "mine")
    assert one.at() is one.task
    assert one.at(task.layer) is one.task
    with pytest.raises(UserError, match="unknown layer"):
        one.at("layer4")


def test_shipped_models_are_told_apart(served):
    assert {name: (one.kind, one.asks, one.needs) for name, one in served.items()} == {
        "captioning": ("Captioning", False, False),
        "vqa": ("VQA", True, True),
        "classification": ("Classification", False, False),
    }
    assert served["captioning"].known == ()
    assert "yes" in served["vqa"].known
    assert "dog" in served["classification"].known


class Mute(TinyTask):
    """Refuses a question."""

    def collate(self, samples):
        if any(sample.text for sample in samples):
            raise UserError("expected no prompt, got one; leave it out")
        return super().collate(samples)


class Prompted(TinyTask):
    """Takes a question, and needs none."""

    def collate(self, samples):
        return replace(super().collate(samples), texts=tuple(sample.text for sample in samples))


@pytest.mark.parametrize(
    ("task", "asks", "needs", "kind"),
    [
        (TinyTask(), False, False, "Captioning"),
        (Mute(), False, False, "Captioning"),
        (Prompted(), True, False, "Captioning"),
        (TinyTask(asks=True), True, True, "VQA"),
    ],
)
def test_what_a_task_takes_is_tried_out(task, asks, needs, kind):
    assert _asks(task) == (asks, needs)
    assert Served("mine.yaml", task, asks, needs, (), (task.layer,)).kind == kind
