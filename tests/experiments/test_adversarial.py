"""The attack against what calculus says of a linear model, and the experiment on the embedded classifier."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from classification.data import ClassifiedScenes
from classification.scenes import SceneTask
from mmcam.errors import UserError
from mmcam.experiments.adversarial import Adversarial
from mmcam.experiments.pgd import attack, away, pixel_range, towards
from mmcam.image import to_tensor
from mmcam.task import Batch, Sample, Targets, Task

WEIGHTS = torch.tensor([[1.0, -2.0, 0.5], [-1.0, 3.0, 0.5], [2.0, 1.0, -1.0]])
MEAN, STD = (0.5, 0.4, 0.3), (0.5, 0.25, 0.125)


class Linear(Task):
    """Scores that are linear in the mean colour, so that the gradient's sign is the same everywhere."""

    def collate(self, samples):
        images = torch.stack([to_tensor(sample.image, (4, 4), MEAN, STD) for sample in samples])
        return Batch(images, tuple(s.id for s in samples), ((4, 4),) * len(samples))

    def trunk(self, batch):
        return batch.images * 1

    def predict(self, activations, batch):
        best = (activations.mean((2, 3)) @ WEIGHTS.T).argmax(1).tolist()
        return Targets.of([[i] for i in best], [["abc"[i]] for i in best])

    def scores(self, activations, batch, targets):
        return targets.pick(activations.mean((2, 3)) @ WEIGHTS.T)


def noise(count):
    pixels = np.random.default_rng(0).integers(60, 200, (count, 4, 4, 3)).astype(np.uint8)
    return Linear().collate([Sample(Image.fromarray(p), f"{i}") for i, p in enumerate(pixels)])


def wide():
    return torch.full((3, 1, 1), -9.0), torch.full((3, 1, 1), 9.0)


def random():
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize(
    ("objective", "direction"),
    [(towards, WEIGHTS[1]), (away, WEIGHTS[1] - WEIGHTS[0])],  # the gradient of y1, of y1 - y0
)
def test_on_a_linear_model_every_pixel_ends_at_the_edge_that_the_gradient_points_to(objective, direction):
    batch = noise(2)
    targets = Targets.of([[1, 0]] * 2, [["b", "a"]] * 2)
    changed = attack(Linear(), batch, targets, objective, 0.1, 10, wide(), random())
    expected = batch.images + 0.1 * direction.sign()[:, None, None]
    if objective is away:  # y1 - y0 does not depend on blue: there it stays where it started
        assert (changed[:, 2] - batch.images[:, 2]).abs().max() <= 0.1
        changed, expected = changed[:, :2], expected[:, :2]
    torch.testing.assert_close(changed, expected)


def test_the_strongest_of_the_others_is_pushed_away_and_padding_never():
    batch = noise(2)
    targets = Targets.of([[1, 0, 2], [1, 0]], [["b", "a", "c"], ["b", "a"]])
    scores = Linear().scores(batch.images, batch, targets).masked_fill(~targets.mask, -torch.inf)
    expected = [scores[0, 0] - max(scores[0, 1], scores[0, 2]), scores[1, 0] - scores[1, 1]]
    torch.testing.assert_close(away(scores), torch.stack(expected))
    changed = attack(Linear(), batch, targets, away, 0.1, 5, wide(), random())
    assert torch.isfinite(changed).all()


def test_nothing_leaves_the_range_of_pixels():
    batch, task = noise(3), Linear()
    low, high = colours = pixel_range(task)
    torch.testing.assert_close(low.flatten(), -torch.tensor(MEAN) / torch.tensor(STD))
    torch.testing.assert_close(high.flatten(), (1 - torch.tensor(MEAN)) / torch.tensor(STD))
    changed = attack(task, batch, Targets.of([[1, 0]] * 3, [["b", "a"]] * 3), towards, 3.0, 4, colours, random())
    assert (changed >= low).all()
    assert (changed <= high).all()
    assert (changed == high).any()  # it would have left it


def test_a_trunk_without_a_graph_is_refused():
    class Closed(Linear):
        def trunk(self, batch):
            return batch.images.detach()

    with pytest.raises(UserError, match="expected a trunk that can be differentiated in the images, got Closed"):
        attack(Closed(), noise(1), Targets.of([[1, 0]], [["b", "a"]]), away, 0.1, 1, wide(), random())


@pytest.mark.parametrize("values", [{"epsilon": 0.0}, {"steps": 0}])
def test_an_attack_that_is_none_is_refused(values):
    with pytest.raises(UserError, match="expected epsilon above 0 and 1 step at least"):
        Adversarial(**values)


def test_the_embedded_classifier_is_fooled_by_the_attack_and_not_by_noise_of_its_size():
    task = SceneTask().eval()
    before = copy.deepcopy(task.state_dict())
    table, paired = Adversarial(epsilon=0.4, steps=5).run(task, ClassifiedScenes(count=4), limit=4, seed=0)
    rows = table.rows
    for row in ("clean", "noise"):
        assert rows[row]["says the wrong class"].value == 0
        assert rows[row]["p(right)"].value > 0.6
        assert rows[row]["pointing"].value > 0.7
    for row in ("attack towards", "attack towards and away"):
        assert rows[row]["p(wrong)"].value > rows["noise"]["p(wrong)"].value + 0.3
        assert rows[row]["says the wrong class"].value >= 0.5
        assert rows[f"{row}, where it succeeds"]["mass"].n <= rows[row]["mass"].n
    assert rows["attack towards and away"]["p(right)"].value < rows["attack towards"]["p(right)"].value
    assert rows["attack towards and away"]["mass"].value < rows["noise"]["mass"].value
    assert table.conditions["grey levels of 255"] == [51.0] * 3  # 0.4 of the 2 from black to white
    difference = paired.rows["attack towards and away less clean"]["mass"].value
    assert difference < 0
    assert {"centre", "random", "uniform", "flipped"} < set(rows)
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    assert all(p.grad is None for p in task.parameters())


def test_a_picture_that_holds_every_class_cannot_be_attacked():
    with pytest.raises(UserError, match="test-0: expected a class that is not in it, but all are; use more pictures"):
        Adversarial().run(SceneTask().eval(), ClassifiedScenes(count=1), limit=1, seed=0)
