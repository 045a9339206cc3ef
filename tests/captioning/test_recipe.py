import json

import pytest
import torch
from torch.nn.functional import cross_entropy

from captioning.data import CocoCaptions
from captioning.load import load
from captioning.models import AttendAndTell, ShowAndTell
from captioning.recipe import CaptionRecipe
from classification.scenes import SceneClassifier
from mmcam.checkpoint import save_model
from mmcam.errors import UserError
from mmcam.scenes.kinds import KINDS, NAMES
from mmcam.scenes.language import captions
from mmcam.scenes.write import scenes, write
from mmcam.text import tokenise
from mmcam.training import train

CPU = torch.device("cpu")
TINY = {"embedding": 4, "hidden": 5}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write(folder, "train", 6, seed=7, captions_each=3)
    return write(folder, "val", 2, seed=7)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    torch.manual_seed(1)
    return str(save_model(SceneClassifier(), tmp_path_factory.mktemp("classifier")))


def make(world, model="AttendAndTell", **more):
    options = {"epochs": 1, "batch_size": 3, "options": TINY}
    return CaptionRecipe(model, str(world), **{**options, **more})


def test_captions_are_read_with_their_pictures(world):
    data = CocoCaptions(world / "train", world / "annotations" / "captions_train.json")
    assert data.captions == [[caption.text for caption in captions(scene, 3)] for scene in scenes(7, "train", 6)]
    assert all(path.is_file() for path in data.paths)
    some = CocoCaptions(world / "train", world / "annotations" / "captions_train.json", limit=2)
    assert (some.paths, some.captions) == (data.paths[:2], data.captions[:2])


def test_a_picture_without_captions_is_named(world, tmp_path):
    content = json.loads((world / "annotations" / "captions_train.json").read_text())
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] != 2]
    file = tmp_path / "captions.json"
    file.write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=r"captions.json: 1 pictures have no caption, the first is scenes_train_0*2.png"
    ):
        CocoCaptions(world / "train", file)


@pytest.mark.parametrize(
    ("images", "annotations", "reason"),
    [
        ([{"id": 1}], [{"image_id": 1, "caption": "a"}], r"images\[0\]: expected 'file_name' as str, got none"),
        ([{"id": 1, "file_name": "a.png"}], [{"image_id": 1}], r"annotations\[0\]: expected 'caption' as str"),
        (["a.png"], [], r"images\[0\]: expected an object, got 'a.png'"),
        ({"1": "a.png"}, [], "the file: expected 'images' as list"),
    ],
)
def test_entries_that_are_not_whole_are_said_in_one_line(tmp_path, images, annotations, reason):
    (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    with pytest.raises(UserError, match=f"captions.json: {reason}"):
        CocoCaptions(tmp_path, tmp_path / "captions.json")


@pytest.mark.parametrize("model", ["ShowAndTell", "AttendAndTell"])
def test_a_trained_captioner_is_loaded_and_knows_the_words(world, classifier, tmp_path, model):
    folder = train(make(world, model, backbone_weights=classifier), tmp_path, CPU)
    captioner = load(str(folder))
    assert type(captioner).__name__ == model
    texts = [caption.text for scene in scenes(7, "train", 6) for caption in captions(scene, 3)]
    assert set(captioner.vocabulary.plain) == {word for text in texts for word in tokenise(text)}
    trunk = SceneClassifier()
    trunk.load_state_dict(load_state(classifier))
    for name, value in captioner.backbone.state_dict().items():  # frozen, also in its batch statistics
        assert torch.equal(value, trunk.state_dict()[name]), name
    assert "val_loss" in (folder / "curves.csv").read_text()


def load_state(folder):
    from safetensors.torch import load_file

    return load_file(f"{folder}/model.safetensors")


def test_a_trunk_with_a_rate_learns_along(world, classifier, tmp_path):
    recipe = make(world, "ShowAndTell", backbone_weights=classifier, trunk_rate=1e-3)
    folder = train(recipe, tmp_path, CPU)
    before, after = load_state(classifier), load(str(folder)).backbone.state_dict()
    assert not torch.equal(before["features.0.weight"], after["features.0.weight"])
    groups = recipe.rates(recipe.build())
    assert [group["lr"] for group in groups] == [2e-3, 1e-3]
    assert len({id(p) for group in groups for p in group["params"]}) == sum(len(group["params"]) for group in groups)


def test_what_is_heard_begins_with_start_and_what_is_said_ends_with_end(world):
    recipe = make(world, captions_each=2)
    model = recipe.build()
    data = recipe.examples(model, CPU)
    sentences = CocoCaptions(world / "train", world / "annotations" / "captions_train.json").captions
    drawn = set()
    for _ in range(20):
        for i, texts in enumerate(sentences):
            _, rows = data[i]
            assert len(rows) == 2
            for heard, said in rows:
                assert (heard[0], said[-1]) == (1, 2)
                assert heard[1:] == said[:-1]
                text = " ".join(model.vocabulary.decode(said))
                assert text in texts
                drawn.add((i, text))
    assert len(drawn) == sum(len(set(texts)) for texts in sentences)  # every caption has its turn


def test_more_captions_than_there_are_repeat(world):
    recipe = make(world, captions_each=5)
    model = recipe.build()
    _, rows = recipe.examples(model, CPU)[0]
    assert len(rows) == 5


def test_the_loss_is_that_of_the_words_and_padding_costs_nothing(world):
    recipe = make(world, captions_each=2)
    model = recipe.build().eval()
    data = recipe.examples(model, CPU)
    batch = recipe.collate([data[i] for i in range(3)])
    pictures, heard, said = batch
    assert heard.shape == said.shape == (6, heard.shape[1])
    total = count = 0.0
    for row in range(6):
        n = int((said[row] > 0).sum())
        logits = model.readout(model.states(pictures[row // 2][None].float(), {}, heard[row : row + 1, :n]))[0]
        total += float(cross_entropy(logits, said[row, :n], label_smoothing=0.02, reduction="sum").detach())
        count += n
    assert recipe.loss(model, batch).item() == pytest.approx(total / count, rel=1e-4)


def test_frozen_activations_are_the_trunk_s_of_the_right_picture(world):
    recipe = make(world)
    model = recipe.build().eval()
    data = recipe.examples(model, CPU)
    pixels = make(world, trunk_rate=1.0).examples(model, CPU)
    for i in (0, 5):
        with torch.no_grad():
            expected, _ = model.backbone.trunk(pixels[i][0][None])
        torch.testing.assert_close(data[i][0].float(), expected[0], rtol=0.05, atol=0.05)  # bfloat16 and float16


def test_nouns_start_from_the_classifier_s_rows(world, classifier):
    model = make(world, backbone_weights=classifier).build()
    assert isinstance(model, AttendAndTell)
    classifier = model.backbone.classifier
    nouns = [kind for kind in KINDS if kind.name in model.vocabulary]
    assert nouns
    for kind in nouns:
        row = NAMES.index(kind.name)
        for number in model.vocabulary.encode([word for word in (kind.name, kind.plural) if word in model.vocabulary]):
            assert torch.equal(model.evidence.weight[model.readout.index[number]], classifier.weight[row])
            assert torch.equal(model.evidence.bias[model.readout.index[number]], classifier.bias[row])


def test_another_round_starts_from_the_last_one(world, tmp_path):
    first = make(world, "ShowAndTell").build()
    again = make(world, "ShowAndTell", start=str(save_model(first, tmp_path))).build()
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_round_of_other_words_or_options_is_no_start(world, tmp_path):
    first = make(world, "ShowAndTell").build()
    turned = ShowAndTell(list(first.vocabulary.plain[::-1]), **TINY)
    with pytest.raises(UserError, match=r"start: .* knows other words than"):
        make(world, "ShowAndTell", start=str(save_model(turned, tmp_path / "turned"))).build()
    save_model(first, tmp_path / "first")
    with pytest.raises(UserError, match=r"start: .* is of other options than .*size mismatch"):
        make(world, "ShowAndTell", start=str(tmp_path / "first"), options=TINY | {"hidden": 6}).build()
    with pytest.raises(UserError, match=r"unknown architecture in .* 'ShowAndTell'"):
        make(world, start=str(tmp_path / "first")).build()


def test_words_that_are_too_rare_are_left_out(world):
    plain = make(world, "ShowAndTell", least_count=3).build().vocabulary.plain
    assert "a" in plain
    assert len(plain) < len(make(world, "ShowAndTell").build().vocabulary.plain)


@pytest.mark.parametrize("name", ["batch_size", "captions_each", "limit"])
def test_numbers_that_are_none(world, name):
    with pytest.raises(UserError, match=f"{name}: expected 1 at least, got 0"):
        make(world, **{name: 0})


def test_errors_name_the_model_and_the_file(world, tmp_path):
    with pytest.raises(UserError, match="unknown captioner 'ShowAndTel': did you mean 'ShowAndTell'"):
        make(world, "ShowAndTel")
    with pytest.raises(UserError, match=r"captions_train.json is missing; for the embedded world make it with"):
        make(tmp_path).build()
    with pytest.raises(UserError, match=r"options: \{'hiden': 4\} are none of ShowAndTell: .*'hiden'"):
        make(world, "ShowAndTell", options={"hiden": 4}).build()
    assert isinstance(make(world, "ShowAndTell").build(), ShowAndTell)
