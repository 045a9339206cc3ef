"""Seeds by hand, SEC's files byte by byte and as SEC's layer reads them, and the embedded classifier's seeds."""

import pickle
import pickletools

import numpy as np
import pytest
import torch

from classification.data import ClassifiedScenes
from classification.scenes import SceneTask
from mmcam.errors import UserError
from mmcam.experiments.sec import GRID, Cues
from mmcam.experiments.seeds import Seeds
from mmcam.explanation import Explanation


def explanation(name, *maps, size=(82, 164), window=None):
    signed = torch.tensor(np.array(maps), dtype=torch.float32)
    words = tuple(f"word {i}" for i in range(len(maps)))
    window = window or (0.0, 0.0, float(size[0]), float(size[1]))
    return Explanation(name, "", words, torch.zeros(len(maps)), signed, size, window, "grad_cam", "layer")


def read(folder):
    """As SEC's layer does; it is our own file."""
    return pickle.loads((folder / "localization_cues.pickle").read_bytes())


def as_layer(content, number, classes=21):
    labels, cues = np.zeros(classes), np.zeros((classes, GRID, GRID))
    labels[content[f"{number}_labels"]] = 1
    cues[tuple(content[f"{number}_cues"])] = 1
    return labels, cues


def left(value=1.0):
    grid = np.zeros((GRID, GRID))
    grid[:, :20] = value
    return grid


def test_seeds_are_where_the_maps_are_and_background_where_none_is(tmp_path):
    cues = Cues(0.2, 0.05)
    faint = np.zeros((GRID, GRID))
    faint[0, 30], faint[0, 31], faint[0, 40] = 0.1, 0.2, 1.0  # between the thresholds; a seed; the maximum
    cues.add(explanation("a.jpg", left(), faint), ["dog", "cat"])
    cues.add(explanation("b.jpg", left(), left(2)), [None, "dog"])
    path = cues.write(tmp_path / "sec")
    assert path == tmp_path / "sec" / "localization_cues.pickle"
    assert (tmp_path / "sec" / "input_list.txt").read_text() == "a.jpg 0\nb.jpg 1\n"
    assert (tmp_path / "sec" / "classes.txt").read_text() == "background\ncat\ndog\n"
    labels, found = as_layer(read(tmp_path / "sec"), 0)
    assert np.flatnonzero(labels).tolist() == [1, 2]
    assert (found[2] == left()).all()
    assert np.argwhere(found[1]).tolist() == [[0, 31], [0, 40]]
    assert found[0].sum() == GRID * GRID - 20 * GRID - 3  # all but dog, cat and the place that is left open
    assert found[0, 0, 30] == 0
    assert found.sum(0).max() == 1
    assert np.flatnonzero(as_layer(read(tmp_path / "sec"), 1)[0]).tolist() == [2]


def test_of_two_classes_the_stronger_one_gets_the_place(tmp_path):
    cues = Cues(0.2, 0.05)
    one, two = left(), left()
    one[3, 3], two[3, 3] = 0.5, 10.0  # each by its own maximum: 0.5 against 1, elsewhere 1 against 0.1
    cues.add(explanation("a", one, two), ["dog", "cat"])
    _, found = as_layer(read(cues.write(tmp_path).parent), 0)
    assert found[1, 3, 3] == 1
    assert found[1].sum() == 1
    assert found[2].sum() == 20 * GRID - 1


def test_classes_have_the_numbers_of_the_given_order(tmp_path):
    cues = Cues(0.2, 0.05)
    cues.add(explanation("a", left()), ["dog"])
    cues.write(tmp_path, ["cow", "dog", "cat"])
    content = read(tmp_path)
    assert content["0_labels"] == [2]
    assert set(content["0_cues"][0]) == {0, 2}


def test_maps_of_a_part_lie_there_on_the_grid(tmp_path):
    cues = Cues(0.5, 0.05)
    cues.add(explanation("a", np.ones((4, 4)), size=(82, 82), window=(0.0, 0.0, 82.0, 40.0)), ["dog"])
    _, found = as_layer(read(cues.write(tmp_path).parent), 0)
    assert found[1, :, :20].all()
    assert not found[1, :, 20:].any()


def test_old_pythons_can_read_the_file(tmp_path):
    """SEC runs on Python 2: no classes by name, no newer protocol, no NumPy."""
    cues = Cues(0.2, 0.05)
    cues.add(explanation("a", left()), ["dog"])
    operations = [code.name for code, _, _ in pickletools.genops(cues.write(tmp_path).read_bytes())]
    assert operations[0] == "PROTO"
    assert not {"GLOBAL", "STACK_GLOBAL", "REDUCE", "FRAME", "SHORT_BINUNICODE"} & set(operations)


def test_what_sec_cannot_hold(tmp_path):
    cues = Cues(0.2, 0.05)
    cues.add(explanation("a b.jpg", left()), ["dog"])
    with pytest.raises(UserError, match=r"expected names without blanks for SEC's list of pictures, got 'a b.jpg'"):
        cues.write(tmp_path)
    cues = Cues(0.2, 0.05)
    cues.add(explanation("a", left()), ["dgo"])
    with pytest.raises(UserError, match="unknown class 'dgo': did you mean 'dog'"):
        cues.write(tmp_path, ["dog"])
    assert not any(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"expected thresholds above 0 and at most 1, got 0\.0"):
        Seeds(thresholds=(0.0, 0.2))


def test_maps_of_the_given_kinds_are_better_seeds_than_maps_that_know_no_kind(tmp_path):
    truth, task = ClassifiedScenes(count=12), SceneTask().eval()
    (table,) = Seeds(thresholds=(0.1, 0.5), export=str(tmp_path)).run(task, truth, limit=12, seed=0)
    for row in ("centre", "random", "uniform", "flipped", "background only", "activation_norm"):
        assert table.rows["grad_cam"]["mIoU at 10%"].value > table.rows[row]["mIoU at 10%"].value
    # By hand: of c classes only the background has any pixel right, its share of the picture.
    kinds = {name for n in range(12) for name in truth.things(n).names}
    empty = np.mean([1 - truth.things(n).masks.any(0).double().mean().item() for n in range(12)])
    assert table.rows["background only"]["mIoU at 50%"].value == pytest.approx(empty / (len(kinds) + 1))
    content = read(tmp_path)
    assert len(content) == 24
    order = (tmp_path / "classes.txt").read_text().split()
    for n in range(12):
        things = truth.things(n)
        labels, found = as_layer(content, n, len(order))
        assert {order[i] for i in np.flatnonzero(labels)} == set(things.names)
        on = torch.nn.functional.interpolate(things.masks.any(0)[None, None].float(), (GRID, GRID))[0, 0].numpy() > 0
        assert found[1:].any(0)[on].mean() > 2 * found[1:].any(0)[~on].mean()


def test_given_classes_that_are_no_things_are_refused():
    class Elsewhere(ClassifiedScenes):
        def about(self, number, words):
            return [() for _ in words]

    with pytest.raises(UserError, match="expected given classes that are things of their pictures, got none in 2"):
        Seeds().run(SceneTask().eval(), Elsewhere(count=2), limit=2, seed=0)
