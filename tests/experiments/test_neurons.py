"""Dissection against a double loop and by construction, chance against counting, and names of the embedded channels."""

from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image

from classification.data import ClassifiedScenes
from classification.scenes import SceneTask
from mmcam.draw import upsample
from mmcam.errors import UserError
from mmcam.experiments.dissection import dissect, thresholds
from mmcam.experiments.neurons import Neurons, chance
from mmcam.image import to_tensor
from mmcam.task import Batch, Sample, Targets, Task
from mmcam.truth import Things, Truth


class Colours(Task):
    """Its channels are red, green and blue of the picture itself, and red again."""

    layer = "input"

    def collate(self, samples):
        images = torch.stack([to_tensor(sample.image, (6, 6), (0.0,) * 3, (1.0,) * 3) for sample in samples])
        return Batch(images, tuple(s.id for s in samples), ((6, 6),) * len(samples))

    def trunk(self, batch):
        return torch.cat([batch.images, batch.images[:, :1]], 1)

    def predict(self, activations, batch):
        return Targets.of([[0]] * len(batch), [["cat"]] * len(batch))

    def scores(self, activations, batch, targets):
        return targets.pick(activations.mean((2, 3)) @ torch.tensor([[3.0, -1.0], [0.0, 2.0], [-1.0, 1.0], [2.0, 0.0]]))


class Patches(Truth):
    """A cat is red, a dog is blue; green is noise everywhere."""

    def __init__(self, count=3, ignored=False):
        self.ids = [f"p{i}" for i in range(count)]
        self.ignored = ignored

    def sample(self, number):
        pixels = np.zeros((6, 6, 3), dtype=np.uint8)
        pixels[..., 1] = np.random.default_rng(number).integers(0, 255, (6, 6))
        pixels[:2, number : number + 2, 0] = 255
        pixels[4:, number : number + 2, 2] = 200
        pixels[4:, 5, 2] = 255  # blue outside of the dog
        return Sample(Image.fromarray(pixels), self.ids[number])

    def things(self, number):
        masks = torch.zeros(2, 6, 6, dtype=torch.bool)
        masks[0, :2, number : number + 2] = masks[1, 4:, number : number + 2] = True
        ignored = torch.zeros(6, 6, dtype=torch.bool)
        ignored[4:, 5] = True
        return Things.of_masks(["cat", "dog"], masks, ignored if self.ignored else None)

    def about(self, number, words):
        return [{"cat": (0,), "dog": (1,)}.get(word) for word in words]


def test_channels_are_named_by_what_they_cover():
    red, green, blue, again = dissect(Colours(), Patches(), range(3), 1 / 6)
    assert (red.name, red.iou) == ("cat", pytest.approx(1))
    assert (again.channel, again.name, again.iou) == (3, "cat", pytest.approx(1))
    assert (blue.name, blue.iou) == ("dog", pytest.approx(4 / 6))  # 4 pixels of a dog, 2 beside it
    assert green.iou < 0.3


def test_places_that_count_for_nothing_are_left_out():
    assert dissect(Colours(), Patches(ignored=True), range(3), 1 / 6)[2].iou == pytest.approx(1)


def test_a_double_loop_says_the_same():
    task, truth, numbers, share = SceneTask().eval(), ClassifiedScenes(count=5), range(1, 5), 0.02
    found = dissect(task, truth, numbers, share, batch_size=3)
    batch = task.collate([truth.sample(n) for n in numbers])
    with torch.no_grad():
        activations = task.trunk(batch)
    names = sorted({name for n in numbers for name in truth.things(n).names})
    for channel in (0, 17, 95):
        values = activations[:, channel].flatten().sort(descending=True).values
        edge = values[int(0.02 * len(values))]
        ious = {}
        for name in names:
            both = either = 0
            for i, n in enumerate(numbers):
                on = upsample(activations[i, channel][None], (96, 96))[0] > edge
                things = truth.things(n)
                of = torch.zeros(96, 96, dtype=torch.bool)
                for other, mask in zip(things.names, things.masks, strict=True):
                    of |= mask & (other == name)
                both, either = both + int((on & of).sum()), either + int((on | of).sum())
            ious[name] = both / either
        assert found[channel].iou == pytest.approx(max(ious.values()))
        assert ious[found[channel].name] == max(ious.values())


def test_a_threshold_leaves_the_share_above_it():
    activations = torch.rand(3, 5, 7, 9)
    edges = thresholds(activations, 0.1)
    above = (activations > edges[:, None, None]).movedim(1, 0).flatten(1).sum(1)
    assert above.tolist() == [int(0.1 * 3 * 63)] * 5
    assert thresholds(torch.zeros(1, 2, 3, 3), 0.1).tolist() == [0, 0]  # nothing exceeds it: a dead channel is never on


@pytest.mark.parametrize(("channels", "owners", "drawn"), [(6, 2, 3), (5, 1, 1), (4, 4, 1), (4, 0, 2), (5, 3, 4)])
def test_chance_is_what_counting_says(channels, owners, drawn):
    draws = list(combinations(range(channels), drawn))
    assert chance(channels, owners, drawn) == pytest.approx(sum(min(d) < owners for d in draws) / len(draws))


def test_the_names_come_in_the_order_of_the_weights():
    task = Colours()
    task.method = "eigen_cam"  # by which the user explains it; here it is the weights that count
    tables = Neurons(naming=2, share=1 / 6, least=0.5, top=1).run(task, Patches(), limit=1, seed=0)
    counts, rows = tables[0].rows["explained layer"], tables[1].rows
    assert (counts["channels"], counts["named"], counts["different names"]) == (4, 3, 2)
    # α of cat: red 3, green 0, blue -1, red again 2 over 36 places; green has no name.
    assert tables[1].notes == ("cat because of cat; despite dog.",)
    column = "explained kind among the names"
    assert [rows[name][column].value for name in ("top", "bottom")] == [1, 0]
    assert rows["chance"][column].value == pytest.approx(2 / 3)


def test_the_embedded_classifier_explains_itself_by_channels_of_the_same_name():
    neurons = Neurons(naming=60, share=0.01)
    counts, names = neurons.run(SceneTask().eval(), ClassifiedScenes(count=84), limit=24, seed=0)
    assert counts.rows["explained layer"]["named"] > 30
    column = "explained kind among the names"
    top, bottom, by_chance = (names.rows[row][column] for row in ("top", "bottom", "chance"))
    assert top.low > by_chance.high
    assert bottom.value < by_chance.value
    assert len(names.notes) == 5


def test_what_cannot_be_named():
    task = SceneTask().eval()
    with pytest.raises(UserError, match="expected more than 4 pictures, the rest to name channels on; got 4"):
        Neurons().run(task, ClassifiedScenes(count=4), limit=4, seed=0)
    with pytest.raises(UserError, match=r"expected 10 channels with an IoU above 0.99, found 0 of 96"):
        Neurons(least=0.99).run(task, ClassifiedScenes(count=5), limit=4, seed=0)
    with pytest.raises(UserError, match="expected 1 picture and 1 name at least"):
        Neurons(share=1.0)
