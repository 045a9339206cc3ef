"""`Task.probabilities` of the tasks that are shipped."""

import torch

from classification import ClassificationTask
from mmcam.task import Batch
from tests.metrics.linear import captions, of, questions


def test_of_words_is_what_the_readout_s_softmax_says_given_the_words_before():
    task, batch, targets = captions()
    with torch.no_grad():
        p = task.probabilities(task.trunk(batch), batch, targets)
        for i, words in enumerate(targets.words):
            heard = ["<start>"]
            for t, word in enumerate(words):
                numbers = torch.tensor([task.model.vocabulary.encode(heard)])
                logits = task.model(batch.images[i : i + 1], numbers)[0, -1]
                torch.testing.assert_close(p[i, t], logits.softmax(0)[targets.ids[i, t]])
                heard.append(word)


def test_of_answers_sum_to_one_and_do_not_know_foils():
    task, batch, _ = questions()
    with torch.no_grad():
        activations = task.trunk(batch)
        every = task.given([", ".join(task.model.answers)] * 3, batch)
        p = task.probabilities(activations, batch, every)
        torch.testing.assert_close(p.sum(1), torch.ones(3, dtype=torch.float64))
        logits = task.model(batch.images, batch.inputs["words"], batch.inputs["lengths"])
        torch.testing.assert_close(p, logits.exp() / logits.exp().sum(1, keepdim=True))
        contrast = task.given(["dog rather than no"] * 3, batch)
        torch.testing.assert_close(task.probabilities(activations, batch, contrast)[:, 0], p[:, 2])


def test_of_captions_do_not_know_foils():
    task, batch, _ = captions(b=1)
    plain, contrast = (task.given([text], batch) for text in ("a dog", "a dog rather than cat"))
    with torch.no_grad():
        activations = task.trunk(batch)
        p = [task.probabilities(activations, batch, targets) for targets in (plain, contrast)]
    torch.testing.assert_close(*p)


def test_of_classes():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 5))
    task = ClassificationTask(net, "0", size=6)
    batch = of(torch.randn(2, 3, 6, 6))
    assert isinstance(batch, Batch)
    with torch.no_grad():
        targets = task.given(["3, 1", "0"], batch)
        p = task.probabilities(task.trunk(batch), batch, targets)
        expected = net(batch.images).softmax(1)
        torch.testing.assert_close(p[0], expected[0, [3, 1]])
        torch.testing.assert_close(p[1, 0], expected[1, 0])
        half = ClassificationTask(net.bfloat16(), "0", size=6)
        assert half.probabilities(half.trunk(batch), batch, targets).dtype == torch.float32
