"""Running experiments: what is shipped fits together, what is missing is told, and the page of results."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from classification.data import ClassifiedScenes
from classification.scenes import SceneTask
from mmcam.config import instantiate, read_config, resolve
from mmcam.errors import UserError
from mmcam.evaluation.runs import explained
from mmcam.evaluation.tables import Table
from mmcam.experiments import Experiment
from mmcam.experiments.asked import Asked
from mmcam.experiments.everything import Everything
from mmcam.experiments.layers import Layers
from mmcam.experiments.reproduce import Done, called, drawable, page, reproduce, shipped_experiments
from mmcam.load import load_task
from mmcam.methods.table import names
from mmcam.metrics.base import Figure
from mmcam.metrics.curves import Deletion
from mmcam.metrics.mass import MassAccuracy
from mmcam.metrics.occlusion import OcclusionCorrelation
from mmcam.task import Task
from mmcam.truth import Truth
from tests.truths import Halves

BLIND = ["centre", "random", "uniform", "flipped"]
SCRIPT = Path(__file__).parents[1] / "scripts" / "reproduce.py"
CONFIG = {
    "task": {"class_path": "tests.tiny_task.TinyTask"},
    "data": {"class_path": "tests.truths.Halves"},
    "experiment": {
        "class_path": "mmcam.experiments.judged.Judged",
        "init_args": {
            "title": "Halves",
            "given": True,
            "paper": "A dog and a cat.",
            "metrics": {"mass": {"class_path": "mmcam.metrics.mass.MassAccuracy"}},
        },
    },
}


class Silent(Halves):
    """Annotated pictures none of whose words means a thing."""

    def about(self, number, words):
        return [None] * len(words)


@pytest.fixture(scope="module")
def scene_task():
    return SceneTask().eval()


def written(folder, name="mine.yaml", **sections):
    """A configuration with some sections changed."""
    path = folder / name
    path.write_text(yaml.safe_dump({**CONFIG, **sections}))
    return path


@pytest.fixture(scope="module")
def inside():
    """The names inside the script."""
    found: dict = {"__name__": "reproduce"}
    exec(compile(SCRIPT.read_text(encoding="utf-8"), str(SCRIPT), "exec"), found)
    return found


@pytest.fixture
def script(inside, monkeypatch):
    """The script as if from the command line, in this process; gives the exit code."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["reproduce.py", *map(str, words)])
        try:
            return inside["main"]()
        except SystemExit as stop:
            return stop.code

    return run


# What is shipped


PUBLISHED = {"localisation_ilsvrc"}
"""Experiments on published data, which are not here."""
TRAINED = {"hf_ved", "hf_llava"}
"""Experiments on models that are trained first; see tests/captioning/test_hf_scenes.py."""


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_data_that_are_missing_are_told_before_a_model_is_loaded(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    instantiate(f"experiments/{name}", "experiment", Experiment)
    resolve(f"experiments/{name}", "task", Task)
    with pytest.raises(UserError, match=r"no such file; docs/data\.md"):
        reproduce(name, limit=1, seed=0)


@pytest.mark.parametrize("name", sorted({*shipped_experiments()} - PUBLISHED - TRAINED))
def test_every_shipped_experiment_is_one_of_scenes_with_an_embedded_model(name):
    config = f"experiments/{name}"
    assert set(read_config(config)) == {"task", "data", "experiment"}
    experiment = instantiate(config, "experiment", Experiment)
    assert instantiate(config, "data", Truth, {"data.init_args.seed": 3, "data.init_args.count": 2}).seed == 3
    arguments = resolve(config, "task", Task)["init_args"]
    model = arguments.get("model") or arguments.get("weights")
    assert (Path(__file__).parents[1] / "mmcam" / "weights" / model).is_dir()
    for method in getattr(experiment, "methods", ()):
        assert method in names()


@pytest.mark.parametrize("name", [name for name in shipped_experiments() if name.startswith("layers")])
def test_layers_are_those_of_the_task_that_is_told(name):
    experiment = instantiate(f"experiments/{name}", "experiment", Experiment)
    assert isinstance(experiment, Layers)
    assert resolve(experiment.config, "task", Task) == resolve(f"experiments/{name}", "task", Task)


def test_an_experiment_gives_tables_with_all_conditions():
    done = reproduce("counterfactual", limit=2, seed=5, device="cpu")
    assert done.name == "counterfactual"
    assert "negated gradient" in done.paper
    assert done.reason == ""
    assert done.seconds > 0
    (table,) = done.tables
    assert list(table.rows) == ["grad_cam", "activation_norm", *BLIND]
    conditions = table.conditions
    assert conditions["data"]["init_args"] == {"split": "test", "count": 1000, "seed": 5}
    assert conditions["explained"] == "what people said"
    assert (conditions["limit"], conditions["seed"], conditions["layer"]) == (2, 5, "features")
    assert len(conditions["weights"]) == 64
    assert {"task", "device", "mmcam", "torch", "python"} <= set(conditions)
    again, other = (reproduce("counterfactual", limit=2, seed=seed, device="cpu").tables[0] for seed in (5, 6))
    assert again.json() == table.json()
    assert other.record()["rows"] != table.record()["rows"]  # of other scenes


def test_data_without_a_seed_are_taken_as_they_are(tmp_path):
    done = reproduce(str(written(tmp_path)), limit=3, seed=11)
    assert done.name == "mine"
    (table,) = done.tables
    data = table.conditions["data"]["init_args"]
    assert (data["count"], data["caption"], "seed" in data) == (6, "a dog left of the cat", False)
    figure = table.rows["uniform"]["mass"]
    assert (figure.value, figure.n, figure.excluded) == (pytest.approx(0.5), 6, 0)  # a dog and a cat in three pictures


# Layers


def test_rows_of_layers_are_what_the_layers_give_alone(scene_task):
    metrics, layers = {"mass": MassAccuracy()}, ["features.9", "features.18"]
    truth = ClassifiedScenes(count=2, seed=1)
    (table,) = Layers("Two layers", "classification/scenes", layers, metrics).run(scene_task, truth, limit=2, seed=0)
    assert list(table.rows) == [*layers, *BLIND]
    assert table.higher == {"mass": True}
    assert "row" in table.conditions["layer"]
    for layer in layers:
        own, values = load_task("classification/scenes", device="cpu", layer=layer), []
        for some in explained(own, truth, ["grad_cam"], given=True, limit=2):
            for number, found in zip(some.numbers, some.explanations, strict=True):
                things, explanation = truth.things(number), found["grad_cam"]
                for word, map in zip(explanation.words, explanation.upsample(), strict=True):
                    mask = things.masks[[name == word for name in things.names]].any(0)
                    values.append(float(map[mask].sum() / map.sum()))
        assert table.rows[layer]["mass"].value == pytest.approx(sum(values) / len(values), abs=1e-6)
        assert table.rows[layer]["mass"].n == len(values)


def test_layers_of_another_model_are_refused(scene_task):
    experiment = Layers("Layers", "captioning/scenes", ["features.9"], {"mass": MassAccuracy()})
    with pytest.raises(UserError, match="expected the model of the section 'task:', captioning/scenes has other"):
        experiment.run(scene_task, ClassifiedScenes(count=1), limit=1, seed=0)


def test_no_layers_and_no_things(scene_task):
    with pytest.raises(UserError, match="Layers: expected layers, got none"):
        Layers("Layers", "classification/scenes", [], {})
    experiment = Layers("Layers", "classification/scenes", ["features.9"], {"mass": MassAccuracy()})
    with pytest.raises(UserError, match="Layers: no word of 1 samples names a thing"):
        experiment.run(scene_task, Silent(caption="dog, cat"), limit=1, seed=0)


# Asking the model


def test_asking_takes_its_share_of_the_samples_and_judges_every_row(scene_task):
    metrics = {"occlusion": OcclusionCorrelation(patch=32, stride=32), "deletion": Deletion(steps=4)}
    experiment = Asked("Asked", metrics, ["grad_cam"], given=True, share=0.5, paper="P.")
    truth = ClassifiedScenes(count=4, seed=2)
    (table,) = experiment.run(scene_task, truth, limit=4, seed=0)
    assert table.conditions == {"explained": "what people said", "samples": 2}
    assert list(table.rows) == ["grad_cam", *BLIND]
    kinds = sum(len(truth.given(number)[0].split(", ")) for number in range(2))
    for row in table.rows.values():
        assert list(row) == ["occlusion", "deletion probability", "deletion score"]
        assert all(figure.n + figure.excluded == kinds for figure in row.values())
    assert table.rows["uniform"]["occlusion"].value == 0
    again = Asked("Asked", metrics, ["grad_cam"], given=True, share=1e-9).run(scene_task, truth, limit=4, seed=0)
    assert again[0].conditions["samples"] == 1  # one at least


def test_asking_about_words_that_name_nothing_is_refused(scene_task):
    experiment = Asked("Asked", {"occlusion": OcclusionCorrelation()}, given=True)
    with pytest.raises(UserError, match="Asked: no word of 2 samples names a thing"):
        experiment.run(scene_task, Silent(count=2, caption="dog"), limit=2, seed=0)


# The full table


@pytest.fixture
def few(tmp_path):
    """A file of few and fast metrics."""
    maps = {"mass": {"class_path": "mmcam.metrics.mass.MassAccuracy"}}
    scores = {"deletion": {"class_path": "mmcam.metrics.curves.Deletion", "init_args": {"steps": 2}}}
    path = tmp_path / "few.yaml"
    path.write_text(yaml.safe_dump({"metrics": {"init_args": {"maps": maps, "scores": scores}}}))
    return str(path)


def test_the_full_table_leaves_out_methods_that_refuse_the_model(scene_task, few, monkeypatch):
    some = ("grad_cam", "layer_cam", "cam")  # this head is no linear layer behind an average
    monkeypatch.setattr("mmcam.experiments.everything.names", lambda: some)
    experiment = Everything(few, destroyed=["grad_cam"], given=True, share=0.5, faithful=0.25, sanity=0.25)
    maps, said, scores, destroyed = experiment.run(scene_task, ClassifiedScenes(count=4), limit=4, seed=0)
    assert list(maps.rows) == ["grad_cam", "layer_cam", *BLIND]
    assert maps.notes[-1] == "Left out, as they refuse the model: cam."
    assert said.rows["people"]["class_right"].n == 2  # a half of four
    assert scores.notes[0].startswith("The first 1 samples")
    assert list(scores.rows) == list(maps.rows)
    assert list(destroyed.rows) == ["grad_cam"]
    assert destroyed.rows["grad_cam"]["language spearman"].n == 0  # a classifier has no language half
    assert destroyed.rows["grad_cam"]["vision spearman"].n > 0


def test_of_methods_that_are_named_a_wrong_one_is_an_error(scene_task, few):
    truth = ClassifiedScenes(count=1)
    with pytest.raises(UserError, match="global average pooling"):
        Everything(few, methods=["grad_cam", "cam"], given=True).run(scene_task, truth, limit=1, seed=0)
    experiment = Everything(few, methods=["grad_cam", "cam"], without=["cam"], destroyed=[], given=True)
    maps = experiment.run(scene_task, truth, limit=1, seed=0)[0]
    assert list(maps.rows) == ["grad_cam", *BLIND]
    assert not any("refuse" in note for note in maps.notes)


# The page


def cell(value=0.5):
    return Figure(value, value - 0.1, value + 0.1, 7, 2)


def table(title="Of pictures", columns=1, conditions=None):
    cells = {f"c{i}": cell() for i in range(columns)}
    return Table(title, {"grad_cam": cells}, conditions or {})


def test_the_page_tells_paper_tables_and_reasons():
    same = {"seed": 7}
    many = Done(
        "two_tables", " What it did. ", (table("First", 9, same), replace(table("Second"), conditions=same)), 1.6
    )
    plain = Done("one_table", "", (table("Third", conditions={"seed": 8}),), 2.0)
    text = page([many, plain, Done("missing", reason="data/x: expected a folder, there is none")], "python x.py --all")
    assert text.startswith("# Results\n\nMade by `python x.py --all` in 4 s.\n")
    assert "are not to be compared with" in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## two tables",
        "## one table",
        "## missing",
    ]
    assert "*The paper:* What it did.\n" in text
    assert text.count("*The paper:*") == 1
    assert "| grad_cam | 0.500 ± 0.100 |" in text
    assert "n = 7 (2 undefined)" in text
    assert text.count("seed 7") == 1  # equal conditions stand below the last of the tables
    assert text.index("### Second") < text.index("seed 7") < text.index("### Third") < text.index("seed 8")
    assert "![Third](one_table.png)" in text
    assert "two_tables.png" not in text  # too many columns to draw
    assert "Not run here: data/x: expected a folder, there is none" in text


def test_what_can_be_drawn():
    assert not drawable(table(columns=0))
    assert drawable(table(columns=1))
    assert drawable(table(columns=8))
    assert not drawable(table(columns=9))
    assert not drawable(Table("Counts", {"a": {"b": 3, "c": 0.5, "d": "x"}}))


def test_names_of_files_are_no_paths():
    assert called("localisation") == "localisation"
    assert called("/somewhere/my.v2.yaml") == "my.v2"
    assert called("experiments/localisation") == "localisation"


# The script


def test_the_script_writes_page_record_and_plots_into_its_folder(tmp_path, capsys, script):
    config = written(tmp_path, "mine.yaml")
    out = tmp_path / "out"
    assert script(config, "--limit", 2, "--out", out) == 0
    assert sorted(file.name for file in out.iterdir()) == ["mine.png", "results.json", "results.md"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mine.yaml", "out"]
    text = (out / "results.md").read_text()
    assert f"Made by `python scripts/reproduce.py {config} --limit 2 --out {out}`" in text
    assert "*The paper:* A dog and a cat." in text
    assert "![Halves](mine.png)" in text
    (record,) = json.loads((out / "results.json").read_text())
    assert (record["name"], record["reason"]) == ("mine", "")
    assert record["tables"][0]["rows"]["uniform"]["mass"]["value"] == pytest.approx(0.5)
    assert record["tables"][0]["rows"]["uniform"]["mass"]["n"] == 4
    assert capsys.readouterr().out.rstrip().endswith(str(out / "results.md"))


def test_missing_data_are_told_and_the_others_run(tmp_path, capsys, script):
    section = {
        "class_path": "classification.voc.Voc",
        "init_args": {"data": str(tmp_path / "VOC2007"), "split": "test"},
    }
    missing, there = written(tmp_path, "voc.yaml", data=section), written(tmp_path, "halves.yaml")
    out = tmp_path / "out"
    assert script(missing, there, "--limit", 2, "--out", out) == 1
    text = (out / "results.md").read_text()
    assert "## voc\n\nNot run here: " in text
    assert "VOC2007" in text
    assert text.index("Not run here") < text.index("### Halves")
    voc, halves = json.loads((out / "results.json").read_text())
    assert voc["tables"] == []
    assert "VOC2007" in voc["reason"]
    assert halves["reason"] == ""


def test_all_is_done_when_what_can_run_has_run(tmp_path, monkeypatch, inside, script):
    """With --all missing data are no failure; the names are those of the shipped ones."""
    monkeypatch.setitem(inside, "shipped_experiments", lambda: ["one", "other"])
    asked = []

    def instead(name, *, limit, seed, device):
        asked.append((name, limit, seed, device))
        if name == "one":
            raise UserError("data/one: none")
        return Done(name, tables=(table(),))

    monkeypatch.setitem(inside, "reproduce", instead)
    assert script("--all", "--seed", 3, "--device", "cpu", "--out", tmp_path) == 0
    assert asked == [("one", 200, 3, "cpu"), ("other", 200, 3, "cpu")]
    assert "Not run here: data/one: none" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "other.png").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name experiments, or give --all"),
        (["--all", "localisation"], "name experiments, or give --all"),
        (["--all", "--limit", "0"], "--limit: expected 1 or more, got 0"),
        (["--all", "--seed", "x"], "invalid int value"),
    ],
)
def test_a_wrong_command_is_told(tmp_path, capsys, script, words, said):
    assert script(*words, "--out", tmp_path / "out") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_unknown_name_is_told_with_the_nearest(tmp_path, capsys, script):
    assert script("localization", "--out", tmp_path) == 1
    assert "Not run here: " in (tmp_path / "results.md").read_text()
    assert "localization" in capsys.readouterr().out


def test_help_names_what_is_shipped(capsys, script):
    assert script("--help") == 0
    out = capsys.readouterr().out
    assert all(name in out for name in shipped_experiments())
