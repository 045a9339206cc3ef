import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from classification.scenes import SceneClassifier
from mmcam.checkpoint import save_model
from mmcam.errors import UserError
from mmcam.scenes.kinds import NAMES
from mmcam.scenes.questions import questions
from mmcam.scenes.write import scenes, write
from mmcam.text import tokenise
from mmcam.training import train
from vqa.load import load
from vqa.models import NormProduct, StackedAttention
from vqa.recipe import VQARecipe

CPU = torch.device("cpu")
SIZES = {"NormProduct": {"embedding": 4, "hidden": 5, "common": 6}, "StackedAttention": {"hidden": 5}}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write(folder, "train", 6, seed=7, questions_each=6)
    return write(folder, "val", 2, seed=7, questions_each=6)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    torch.manual_seed(1)
    model = SceneClassifier()
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    return str(save_model(model, tmp_path_factory.mktemp("classifier")))


@pytest.fixture(scope="module")
def asked():
    return [[(q.text, q.answer) for q in questions(scene, 6)] for scene in scenes(7, "train", 6)]


def make(world, model="StackedAttention", **more):
    options = {"epochs": 1, "batch_size": 3, "questions_each": 4, "options": SIZES.get(model)}
    return VQARecipe(model, str(world), **{**options, **more})


@pytest.mark.parametrize("model", list(SIZES))
@pytest.mark.parametrize("blind", [False, True])
def test_a_trained_model_is_loaded_and_knows_words_and_answers(world, classifier, asked, tmp_path, model, blind):
    folder = train(make(world, model, backbone_weights=classifier, blind=blind), tmp_path, CPU)
    vqa = load(str(folder))
    assert type(vqa).__name__ == model
    assert set(vqa.answers) == {answer for rows in asked for _, answer in rows}
    assert set(vqa.vocabulary.plain) == {word for rows in asked for text, _ in rows for word in tokenise(text)}
    trunk = load_file(f"{classifier}/model.safetensors")
    for name, value in vqa.backbone.state_dict().items():  # frozen, also in its batch statistics
        assert torch.equal(value, trunk[name]), name
    assert "val_accuracy" in (folder / "curves.csv").read_text()


def test_a_trunk_with_a_rate_learns_along(world, classifier, tmp_path):
    recipe = make(world, "NormProduct", backbone_weights=classifier, trunk_rate=1e-3)
    after = load(str(train(recipe, tmp_path, CPU))).backbone.state_dict()
    assert not torch.equal(
        load_file(f"{classifier}/model.safetensors")["features.0.weight"], after["features.0.weight"]
    )
    assert [group["lr"] for group in recipe.rates(recipe.build())] == [2e-3, 1e-3]


def test_every_question_has_its_turn_with_its_own_picture(world, asked):
    recipe = make(world)
    model = recipe.build().eval()
    data = recipe.examples(model, CPU)
    assert len(data) == 6
    drawn = set()
    for _ in range(20):
        for i, rows in enumerate(asked):
            _, some = data[i]
            assert len(some) == 4
            for words, answer in some:
                text = " ".join(model.vocabulary.words[word] for word in words)
                assert (text, model.answers[answer]) in rows
                drawn.add((i, text))
    assert len(drawn) == sum(len(rows) for rows in asked)
    pixels = make(world, trunk_rate=1.0).examples(model, CPU)
    for i in (0, 5):
        with torch.no_grad():
            expected, _ = model.backbone.trunk(pixels[i][0][None])
        torch.testing.assert_close(data[i][0].float(), expected[0], rtol=0.05, atol=0.05)  # bfloat16 and float16


def test_the_loss_is_that_of_the_questions_one_by_one(world):
    recipe = make(world, "NormProduct")
    model = recipe.build().eval()
    data = recipe.examples(model, CPU)
    batch = recipe.collate([data[i] for i in range(2)])
    pictures, words, lengths, answers = batch
    assert len(words) == len(lengths) == len(answers) == 8
    losses = []
    for row in range(8):
        question = model.listen(words[row : row + 1, : lengths[row]], lengths[row : row + 1])
        logits = model.answer(pictures[row // 4][None].float(), {}, question)
        losses.append(cross_entropy(logits, answers[row : row + 1]).item())
    assert recipe.loss(model, batch).item() == pytest.approx(sum(losses) / 8, rel=1e-4)


def test_the_question_only_baseline_sees_grey(world, classifier):
    recipe = make(world, backbone_weights=classifier, blind=True)
    model = recipe.build()
    data = recipe.examples(model, CPU)
    with torch.no_grad():
        grey, _ = model.backbone.eval().trunk(torch.zeros(1, 3, 96, 96))
    for i in range(6):
        torch.testing.assert_close(data[i][0].float(), grey[0], rtol=0.05, atol=0.05)
    pixels = make(world, blind=True, trunk_rate=1.0).examples(model, CPU)
    assert all(not pixels[i][0].any() for i in range(6))


def test_questions_with_rare_answers_are_not_trained_on_but_count_as_wrong(world, asked):
    recipe = make(world, "NormProduct", most_answers=2)
    model = recipe.build().eval()
    assert len(model.answers) == 2
    data = recipe.examples(model, CPU)
    assert {answer for i in range(len(data)) for _, answer in data[i][1]} <= {0, 1}
    with torch.no_grad():
        model.readout[1].bias.copy_(torch.tensor([0.0, 1000.0]))
    truth = [q.answer for scene in scenes(7, "val", 2) for q in questions(scene, 6)]
    assert recipe.measure(model, CPU) == {"val_accuracy": truth.count(model.answers[1]) / len(truth)}


def test_what_the_classifier_knows_is_where_training_starts(world, classifier):
    model = make(world, backbone_weights=classifier).build()
    assert isinstance(model, StackedAttention)
    classifier = model.backbone.classifier
    things = [answer for answer in model.answers if answer in NAMES]
    assert things
    for name in things:
        number, row = model.answers.index(name), NAMES.index(name)
        assert torch.equal(model.evidence.weight[number], classifier.weight[row])
        assert torch.equal(model.evidence.bias[number], classifier.bias[row])
    nouns = [name for name in NAMES if name in model.vocabulary]
    for name in nouns:
        (number,) = model.vocabulary.encode([name])
        assert torch.equal(model.hear.weight[number], classifier.weight[NAMES.index(name)].flatten())
        # Such a vector is noticed by both look-ups.
        assert (model.notice.weight[:, :96] @ model.hear.weight[number]).tolist() == pytest.approx([6, 6], rel=1e-3)


def test_another_round_starts_from_the_last_one(world, tmp_path):
    first = make(world, "NormProduct").build()
    again = make(world, "NormProduct", start=str(save_model(first, tmp_path))).build()
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_round_of_other_words_answers_or_options_is_no_start(world, tmp_path):
    """With other data the most common answers come in another order: the weights would mean other answers."""
    first = make(world, "NormProduct").build()
    turned = NormProduct(list(first.vocabulary.words), list(first.answers[::-1]), **SIZES["NormProduct"])
    with pytest.raises(UserError, match=r"start: .* knows other words or answers than"):
        make(world, "NormProduct", start=str(save_model(turned, tmp_path / "turned"))).build()
    save_model(first, tmp_path / "first")
    wider = SIZES["NormProduct"] | {"hidden": 6}
    with pytest.raises(UserError, match=r"start: .* is of other options than .*size mismatch"):
        make(world, "NormProduct", start=str(tmp_path / "first"), options=wider).build()
    with pytest.raises(UserError, match=r"unknown architecture in .* 'NormProduct'"):
        make(world, start=str(tmp_path / "first")).build()


def test_some_validation_pictures_are_enough(world, monkeypatch):
    recipe = make(world, "NormProduct")
    model = recipe.build().eval()
    with torch.no_grad():
        model.readout[1].bias[0] += 1000
    monkeypatch.setattr("vqa.recipe.MEASURED", 1)
    truth = [q.answer for q in questions(next(iter(scenes(7, "val", 1))), 6)]
    assert recipe.measure(model, CPU) == {"val_accuracy": truth.count(model.answers[0]) / len(truth)}


@pytest.mark.parametrize("name", ["batch_size", "questions_each", "most_answers", "limit"])
def test_numbers_that_are_none(world, name):
    with pytest.raises(UserError, match=f"{name}: expected 1 at least, got 0"):
        make(world, **{name: 0})


def test_errors_name_the_model_and_the_file(world, tmp_path):
    with pytest.raises(UserError, match="unknown VQA model 'NormProdct': did you mean 'NormProduct'"):
        make(world, "NormProdct")
    with pytest.raises(UserError, match=r"v2_OpenEnded_scenes_train_questions.json is missing"):
        make(tmp_path).build()
    with pytest.raises(UserError, match=r"options: \{'hiden': 4\} are none of NormProduct: .*'hiden'"):
        make(world, "NormProduct", options={"hiden": 4}).build()
    with pytest.raises(UserError, match=r"file_name: expected a format such as .*, got 'a_\{split\}_\{:012d\}.png'"):
        make(world, file_name="a_{split}_{:012d}.png").build()
