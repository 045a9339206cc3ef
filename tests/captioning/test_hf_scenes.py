import pytest
import torch
from safetensors.torch import load_file

from captioning.hf import HFCaptioningTask
from captioning.hf_scenes import FewKinds, HFScenesRecipe, PupilTask
from captioning.pupil import KINDS, build, vocabulary
from mmcam import explain
from mmcam.checkpoint import save_model
from mmcam.config import instantiate, read_config
from mmcam.errors import UserError
from mmcam.evaluation.evaluate import Evaluation
from mmcam.evaluation.runs import explained
from mmcam.experiments import Experiment
from mmcam.experiments.reproduce import reproduce
from mmcam.huggingface.task import Generation
from mmcam.methods.table import names
from mmcam.metrics.chosen import MetricSet
from mmcam.metrics.pointing import Pointing
from mmcam.scenes.language import captions
from mmcam.training import Recipe, train

CPU = torch.device("cpu")
SMALL = {"width": 32, "layers": 1, "patch": 24}
BOTH = pytest.mark.parametrize("kind", ["vision-encoder-decoder", "llava"])


def recipe(kind="vision-encoder-decoder", **options):
    fixed = {"epochs": 2, "pictures": 32, "batch_size": 16, "judged": 4, "options": SMALL}
    return HFScenesRecipe(kind, **{**fixed, **options})


def made(kind):
    torch.manual_seed(0)
    return build(kind, **SMALL).eval()


def test_one_or_two_things_of_different_kinds():
    world = FewKinds("test", 60, seed=7)
    found = [[thing.kind for thing in world.scene(i).things] for i in range(60)]
    assert {len(row) for row in found} == {1, 2}
    assert all(len(set(row)) == len(row) and set(row) <= set(KINDS) for row in found)
    assert world.scene(3) == FewKinds("test", 60, seed=7).scene(3)
    assert world.scene(3) != FewKinds("train", 60, seed=7).scene(3) != FewKinds("train", 60, seed=8).scene(3)
    pairs = FewKinds("test", 60, kinds=["dog", "cat"], least=2)
    assert all(sorted(t.kind for t in pairs.scene(i).things) == ["cat", "dog"] for i in range(60))


def test_refuses_kinds_that_are_none():
    with pytest.raises(UserError, match="elephant"):
        FewKinds(kinds=["elefant", "dog"])
    with pytest.raises(UserError, match="two kinds at least"):
        FewKinds(kinds=["dog"])


@BOTH
def test_learns_the_very_text_that_is_explained(kind):
    """What training makes probable is the score of the adapter: same marks, same prompt, same places."""
    pupil, world = made(kind), FewKinds("test", 12, seed=1)
    maker = recipe(kind)
    maker._pupil = pupil
    numbers = [i for i in range(12) if len(captions(world.scene(i), 1)[0].words) in (2, 5)][:4]
    texts = [captions(world.scene(i), 1)[0].text for i in numbers]
    assert len({len(text.split()) for text in texts}) == 2
    samples = [world.sample(i) for i in numbers]
    pixels, ids = maker.collate([(s.image, text) for s, text in zip(samples, texts, strict=True)])
    task = HFCaptioningTask(pupil.model, pupil.processor)
    with torch.no_grad():
        logs = pupil(pixels, ids).log_softmax(-1).gather(2, ids[..., None])[..., 0]
        batch = task.collate(samples)
        targets = task.given(texts, batch)
        scores = task.scores(task.trunk(batch), batch, targets)
    assert [list(row) for row in targets.words] == [text.split() for text in texts]
    for row, (mine, theirs) in enumerate(zip(logs, scores, strict=True)):
        count = len(texts[row].split())
        torch.testing.assert_close(mine[:count], theirs[:count], atol=1e-5, rtol=1e-5)
        assert ids[row, count] == pupil.tokenizer.eos_token_id


@BOTH
def test_is_explained_by_the_method_that_its_configuration_names(kind, tmp_path):
    save_model(made(kind), tmp_path)
    config = "captioning/hf_llava" if kind == "llava" else "captioning/hf_ved"
    task = PupilTask(str(tmp_path), config)
    batch = task.collate([FewKinds("test", 1).sample(0)])
    (explanation,) = explain(task, batch, task.given(["a dog"], batch), method=read_config(config)["explain"]["method"])
    assert explanation.words == ("a", "dog")
    assert explanation.signed.isfinite().all()
    assert explanation.signed.flatten(1).std(1).min() > 0


@BOTH
def test_loss_goes_down_in_twenty_steps(kind):
    torch.manual_seed(0)
    maker = recipe(kind)
    pupil = maker.build()
    data = maker.examples(pupil, CPU)
    batch = maker.collate([data[i] for i in range(16)])
    optimiser = torch.optim.AdamW(pupil.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        loss = maker.loss(pupil, batch)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(torch.tensor(len(vocabulary())).log().item(), abs=0.2)  # knows nothing
    assert losses[-1] < losses[0] - 1


@BOTH
def test_resumed_is_uninterrupted(kind, tmp_path):
    whole = train(recipe(kind), tmp_path / "whole", CPU)
    parts = train(recipe(kind), tmp_path / "parts", CPU, stop_after=1)
    assert not (parts / "model.safetensors").exists()
    train(recipe(kind), parts, CPU)
    a, b = (load_file(folder / "model.safetensors") for folder in (whole, parts))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    # and the folder is a checkpoint of transformers, which explains itself
    task = HFCaptioningTask(str(parts), generation=Generation(length=4))
    sample = FewKinds("test", 1).sample(0)
    (explanation,) = explain(task, task.collate([sample]))
    assert explanation.size == (96, 96)
    assert explanation.window == pytest.approx((0, 0, 96, 96), abs=0.1)


def test_epochs_have_other_pictures():
    maker = recipe()
    data = maker.examples(maker.build(), CPU)
    first = [data[i][1] for i in range(8)]
    maker.begin(torch.nn.Module(), 2)
    assert [data[i][1] for i in range(8)] != first
    maker.begin(torch.nn.Module(), 1)
    assert [data[i][1] for i in range(8)] == first


def test_llava_takes_over_a_trained_tower(tmp_path):
    trained = made("vision-encoder-decoder")
    save_model(trained, tmp_path)
    pupil = recipe("llava", start=str(tmp_path)).build()
    theirs, mine = trained.tower.state_dict(), pupil.tower.state_dict()
    assert theirs.keys() == mine.keys()
    assert all(torch.equal(theirs[name], mine[name]) for name in theirs)
    with pytest.raises(UserError, match="of other options"):
        recipe("llava", start=str(tmp_path), options={**SMALL, "patch": 12}).build()
    with pytest.raises(UserError, match="expected the folder"):
        recipe("llava", start=str(tmp_path / "none")).build()
    with pytest.raises(UserError, match="are none of a tiny model's"):
        recipe(options={"depth": 3}).build()


@pytest.mark.parametrize("name", ["hf_ved", "hf_llava"])
def test_experiments_say_how_their_model_is_trained(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = f"experiments/{name}"
    experiment = instantiate(config, "experiment", Experiment)
    assert len(experiment.methods) > 10
    assert set(experiment.methods) <= set(names())
    # under test is the method by which the model is explained
    assert experiment.methods[0] == read_config(f"captioning/{name}")["explain"]["method"]
    assert "pointing" in instantiate(experiment.metrics, "metrics", MetricSet).maps
    with pytest.raises(UserError, match=f"mmcam train --config captioning/{name} --out runs/hf"):
        reproduce(name, limit=1, seed=0)


def test_recipe_of_llava_begins_where_the_other_ended():
    first, second = (instantiate(f"captioning/{name}", "train", Recipe) for name in ("hf_ved", "hf_llava"))
    assert second.start == read_config("captioning/hf_ved")["task"]["init_args"]["model"]
    assert (first.options, first.world) == (second.options, second.world)


@pytest.mark.slow
def test_points_at_what_it_names_after_some_epochs(tmp_path):
    """Three minutes of one core: real grounding through the adapter, far above what knows nothing of the word."""
    maker = HFScenesRecipe(epochs=8, pictures=2048, kinds=KINDS[:4], judged=64)
    folder = train(maker, tmp_path, CPU)
    task, world = PupilTask(str(folder), "captioning/hf_ved"), FewKinds("test", 64, seed=7, kinds=KINDS[:4], least=2)
    evaluation = Evaluation({"pointing": Pointing()}, world, seed=0)
    for some in explained(task, world, ["attention_relevance", "activation_norm", "grad_cam"]):
        for number, found in zip(some.numbers, some.explanations, strict=True):
            evaluation.add(number, found)
    rows = {name: figures["pointing"].value for name, figures in evaluation.figures().items()}
    assert evaluation.said()["true_captions"].value >= 0.7
    for row in ("activation_norm", "centre", "random", "flipped"):
        assert rows[row] < rows["attention_relevance"] - 0.2, rows
