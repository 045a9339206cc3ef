import os
import pickle

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from mmcam import explain, load_task
from mmcam.engine import explain_activations
from mmcam.errors import UserError
from mmcam.task import Sample
from tests.vqa.importers.verb import through_the_verb
from vqa.importers.bottom_up import convert, read
from vqa.peers.boxes import paint, picture_of

WORDS = {"what": 1, "is": 0, "dog": 2, "'s": 3}
LISTED = sorted(WORDS, key=WORDS.get)
SAID = ["yes", "no", "dog", "2"]
CHANNELS, HIDDEN, BOXES = 6, 5, 3
SIZE = (40, 60)  # height, width
CORNERS = [[[0, 0, 30, 40], [30, 0, 60, 20], [10, 10, 50, 30]], [[0, 0, 60, 40], [15, 8, 45, 24], [30, 20, 60, 40]]]


def state(attention="product"):
    """Weights of the peer's form and names, as torch before 0.4 wrote them: g has an axis."""
    torch.manual_seed(4)
    made = {
        "w_emb.emb.weight": torch.randn(len(WORDS) + 1, 3),
        "q_emb.rnn.weight_ih_l0": torch.randn(3 * HIDDEN, 3),
        "q_emb.rnn.weight_hh_l0": torch.randn(3 * HIDDEN, HIDDEN),
        "q_emb.rnn.bias_ih_l0": torch.randn(3 * HIDDEN),
        "q_emb.rnn.bias_hh_l0": torch.randn(3 * HIDDEN),
    }
    layers = {
        "q_net.main.0": (HIDDEN, HIDDEN),
        "v_net.main.0": (HIDDEN, CHANNELS),
        "classifier.main.0": (2 * HIDDEN, HIDDEN),
        "classifier.main.3": (len(SAID), 2 * HIDDEN),
        "v_att.linear": (1, HIDDEN),
    }
    if attention == "product":
        layers |= {"v_att.v_proj.main.0": (HIDDEN, CHANNELS), "v_att.q_proj.main.0": (HIDDEN, HIDDEN)}
    else:
        layers["v_att.nonlinear.main.0"] = (HIDDEN, CHANNELS + HIDDEN)
    for name, (out, ins) in layers.items():
        made[f"{name}.bias"] = torch.randn(out)
        made[f"{name}.weight_g"] = torch.rand(1) * 3 + 2
        made[f"{name}.weight_v"] = torch.randn(out, ins)
    return {f"module.{name}": value for name, value in made.items()}


def features():
    return torch.rand(2, BOXES, CHANNELS, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def saved(tmp_path):
    """Write all files; gives the three small ones, and then those of features."""

    def write(weights=None, words=(WORDS, LISTED), said=SAID, rows=None, pixels=CORNERS):
        names = ["model.pth", "dictionary.pkl", "trainval_label2ans.pkl", "val36_imgid2idx.pkl", "val36.hdf5"]
        model, dictionary, answers, pictures, boxes = (tmp_path / name for name in names)
        torch.save(state() if weights is None else weights, model)
        dictionary.write_bytes(pickle.dumps(list(words), protocol=0))
        answers.write_bytes(pickle.dumps(said, protocol=2))
        pictures.write_bytes(pickle.dumps({17: 1, 5: 0} if rows is None else rows, protocol=0))
        with h5py.File(boxes, "w") as file:
            pixels = np.array(pixels, dtype=np.float32)
            corners = np.array(CORNERS, dtype=np.float32) / np.array([60, 40, 60, 40], dtype=np.float32)
            file["image_features"] = features().numpy()
            file["image_bb"] = pixels
            file["spatial_features"] = np.concatenate([corners, corners[..., 2:] - corners[..., :2]], 2)
        return [model, dictionary, answers, pictures, boxes]

    return write


def sample(text, name="COCO_val2014_000000000017", size=SIZE):
    return Sample(Image.new("RGB", size[::-1], "grey"), name, text)


def by_hand(weights, boxes, words):
    """The peer's forward pass for one picture and question, with torch's own weight normalisation."""
    weights = {name.removeprefix("module."): value for name, value in weights.items()}

    def layer(name):
        out, ins = weights[f"{name}.weight_v"].shape
        linear = weight_norm(nn.Linear(ins, out), dim=None)
        with torch.no_grad():
            linear.bias.copy_(weights[f"{name}.bias"])
            linear.parametrizations.weight.original0.copy_(weights[f"{name}.weight_g"].reshape(()))
            linear.parametrizations.weight.original1.copy_(weights[f"{name}.weight_v"])
        return linear

    gru = nn.GRU(3, HIDDEN)
    gru.load_state_dict({k.removeprefix("q_emb.rnn."): v for k, v in weights.items() if k.startswith("q_emb.rnn.")})
    padded = [len(WORDS)] * (14 - len(words)) + words
    asked = gru(weights["w_emb.emb.weight"][padded][:, None])[0][-1, 0]
    votes = []
    for box in boxes:
        if "v_att.nonlinear.main.0.bias" in weights:
            joint = layer("v_att.nonlinear.main.0")(torch.cat([box, asked])).relu()
        else:
            joint = layer("v_att.v_proj.main.0")(box).relu() * layer("v_att.q_proj.main.0")(asked).relu()
        votes.append(layer("v_att.linear")(joint)[0])
    look = torch.stack(votes).softmax(0)
    seen = sum(weight * box for weight, box in zip(look, boxes, strict=True))
    joint = layer("q_net.main.0")(asked).relu() * layer("v_net.main.0")(seen).relu()
    return layer("classifier.main.3")(layer("classifier.main.0")(joint).relu())


@pytest.mark.parametrize("attention", ["product", "joined"])
def test_scores_and_maps_are_the_peers(saved, tmp_path, attention):
    task = load_task(convert(saved(state(attention)), tmp_path / "out"), device="cpu")
    asked = {"What is, dog?": [1, 0, 2], "what dog's": [1, 2, 3]}
    batch = task.collate([sample(text) for text in asked])
    assert task.layer == "backbone.boxes"
    every = task.given([", ".join(SAID)] * 2, batch)
    for explanation, words in zip(explain(task, batch, every, "grad_cam"), asked.values(), strict=True):
        boxes = features()[1].requires_grad_()
        logits = by_hand(state(attention), boxes, words)
        torch.testing.assert_close(explanation.scores, logits.detach(), rtol=1e-4, atol=1e-5)
        assert explanation.signed.shape == (4, *SIZE)
        for row, logit in zip(explanation.signed, logits, strict=True):
            (gradient,) = torch.autograd.grad(logit, boxes, retain_graph=True)
            scores = (gradient.mean(0) * boxes).sum(1).detach()
            # Picture 17: the first box is all of it, so that every pixel has the highest of up to three scores.
            painted = scores[0].expand(SIZE).clone()
            for (left, top, right, bottom), score in zip(CORNERS[1], scores, strict=True):
                for y in range(top, bottom):
                    for x in range(left, right):
                        painted[y, x] = max(painted[y, x], score)
            torch.testing.assert_close(row, painted, rtol=1e-3, atol=1e-6)


def test_a_batch_gives_what_its_questions_give_alone(saved, tmp_path):
    task = load_task(convert(saved(), tmp_path / "out"), device="cpu")
    samples = [sample("is dog?"), sample("what is dog dog dog?", "5012"), sample("dog", "x_000000000005-q12")]
    together = explain(task, task.collate(samples))
    for one, explanation in zip(samples, together, strict=True):
        (alone,) = explain(task, task.collate([one]))
        assert alone.words == explanation.words
        torch.testing.assert_close(alone.scores, explanation.scores, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(alone.signed, explanation.signed, rtol=1e-4, atol=1e-6)


def test_probabilities_are_those_of_each_answer_alone(saved, tmp_path):
    task = load_task(convert(saved(), tmp_path / "out"), device="cpu")
    batch = task.collate([sample("what is dog?")])
    activations = task.trunk(batch)
    targets = task.given(["yes rather than no"], batch)
    logits = by_hand(state(), features()[1], [1, 0, 2])
    probabilities = task.probabilities(activations, batch, targets)
    torch.testing.assert_close(probabilities, logits[:1].sigmoid()[None].detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(task.scores(activations, batch, targets), (logits[0] - logits[1])[None, None])
    heard = task.heard(batch, targets)
    assert heard.words == (("what", "is", "dog"),)
    torch.testing.assert_close(
        task.scores_heard(activations, batch, targets, heard.vectors), task.scores(activations, batch, targets)
    )
    (found,) = explain_activations(task, activations, batch, targets, "hires_cam")
    assert found.signed.shape == (1, *SIZE)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("COCO_val2014_000000262148", 262148),
        ("COCO_train2014_000000000009-q3", 9),
        ("000000262148", 262148),
        ("262148003", 262148),  # a question of VQA v2
        ("5012", 5),
    ],
)
def test_a_picture_is_known_by_its_number(name, number):
    assert picture_of(name) == number


@pytest.mark.parametrize("name", ["photo", "", "12 monkeys", "9" * 19, "²"])
def test_names_without_a_number_are_refused(name):
    with pytest.raises(UserError, match="name of a picture with its number"):
        picture_of(name)


def test_boxes_are_painted_by_hand():
    boxes = torch.tensor([[0.0, 0.0, 0.5, 1.0], [0.25, 0.0, 0.75, 0.5], [0.9, 0.9, 0.91, 0.91]])
    scores = torch.tensor([[1.0, 2.0, 5.0], [-1.0, -2.0, -5.0]])
    high, low = paint(scores, boxes, (2, 4)).tolist()
    assert high == [[1, 2, 2, 0], [1, 1, 0, 5]]  # the third box lies between centres: it gets the pixel it lies in
    assert low == [[-1, -1, -2, 0], [-1, -1, 0, -5]]
    assert paint(scores, torch.tensor([[-1.0, -1.0, 2.0, 2.0]] * 3), (448, 896)).shape == (2, 112, 224)
    assert paint(scores[:, :1], torch.tensor([[1.0, 1.0, 1.2, 1.2]]), (2, 2))[0].tolist() == [[0, 0], [0, 1]]


def test_what_is_written_holds_no_pickle(saved, tmp_path):
    files = saved(said={answer: i for i, answer in enumerate(SAID)})
    model = read(files[:3])
    assert model.answers == tuple(SAID)
    folder = convert(files, tmp_path / "out")
    assert {path.name for path in folder.iterdir()} <= {"config.json", "model.safetensors", "README.md"}
    again = load_task(folder, device="cpu").model
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"said": SAID[:3]}, "expected 4 answers, as .*model.pth has, got 3; is it another training's"),
        ({"said": [1, 2, 3, 4]}, "expected a list of answers, got one of other things"),
        ({"words": ({"is": 0, "what": 1}, [])}, "expected 4 words"),
        ({"words": ({"is": 0, "what": 2}, [])}, "expected the numbers from 0 to 1, each once"),
        ({"weights": {k: v for k, v in state().items() if "w_emb" not in k}}, "expected a tensor 'w_emb.emb.weight'"),
        (
            {"weights": {k: v for k, v in state().items() if "v_proj.main.0.weight_g" not in k}},
            "expected .*weight_g as one",
        ),
        ({"weights": {k: v for k, v in state().items() if "q_net.main.0.bias" not in k}}, "lacks question.bias"),
        ({"weights": {**state(), "module.extra": torch.ones(1)}}, "has also extra"),
        ({"rows": {"5": 1}}, "such as val36.hdf5 with val36_imgid2idx.pkl, got 1 and 0"),
    ],
)
def test_what_does_not_fit_is_named(saved, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        convert(saved(**changes), tmp_path / "out")


def test_questions_and_pictures_that_do_not_fit_are_named(saved, tmp_path):
    task = load_task(convert(saved(rows={17: 1, 5: 9}), tmp_path / "out"), device="cpu")
    assert task.collate([sample("dog " * 20)]).inputs["words"].tolist() == [[2] * 14]
    for one, message in (
        (sample("what cat?"), "unknown word of a question 'cat'"),
        (sample("?,"), "expected a question with words"),
        (sample(""), "got an empty one"),
        (sample("dog", "COCO_000000000018"), "expected a picture of which .* has features, got number 18"),
        (sample("dog", "5000"), "got number 5"),
        (sample("dog", size=(41, 80)), "of 60 x 40 pixels that the features of number 17 are of, got one of 80 x 41"),
    ):
        with pytest.raises(UserError, match=message):
            task.collate([one])


def test_other_features_are_refused(saved, tmp_path):
    files = saved()
    with h5py.File(files[4], "w") as file:
        file["image_features"] = np.zeros((2, 3, 6))
    with pytest.raises(UserError, match=r"image_bb \(\)"):
        convert(files, tmp_path / "out")
    with h5py.File(files[4], "w") as file:
        for name, length in (("image_features", 7), ("image_bb", 4), ("spatial_features", 6)):
            file[name] = np.zeros((2, 3, length))
    with pytest.raises(UserError, match="expected features of length 6, got 7"):
        convert(files, tmp_path / "out")
    files[4].write_bytes(files[4].read_bytes()[:600])
    with pytest.raises(UserError, match="expected whole HDF5"):
        convert(files, tmp_path / "out")


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("number", range(4))
def test_nothing_in_a_file_is_run(saved, tmp_path, monkeypatch, number):
    monkeypatch.chdir(tmp_path)
    files = saved()
    if number:
        files[number].write_bytes(pickle.dumps([{"is": 0}, Hostile()]))
    else:
        torch.save({"w_emb.emb.weight": Hostile()}, files[0])
    with pytest.raises(UserError, match=r"names (posix|nt|os)\.mkdir, .* nothing was run"):
        convert(files, tmp_path / "out")
    assert not (tmp_path / "executed").exists()


def test_the_verb_writes_a_folder_that_explains(saved, tmp_path, capsys):
    through_the_verb("bottom_up", saved(), "what is dog?", tmp_path, capsys)


@pytest.mark.parametrize(("count", "kind"), [(2**22, "f4"), (2, h5py.string_dtype())])
def test_features_that_no_memory_holds_or_that_are_no_numbers(saved, count, kind, tmp_path):
    """A data set that was never written takes no room in its file."""
    files = saved()
    with h5py.File(files[4], "w") as file:
        file.create_dataset("image_features", (1, count, CHANNELS), kind, chunks=(1, 2, CHANNELS))
        for name, length in (("image_bb", 4), ("spatial_features", 6)):
            file.create_dataset(name, (1, count, length), "f4", chunks=(1, 2, length))
    with pytest.raises(UserError, match="expected numbers, 16777216 a picture at most, got"):
        convert(files, tmp_path / "out")
