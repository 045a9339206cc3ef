import json

import pytest
import yaml

from mmcam.cli import main
from mmcam.errors import UserError
from mmcam.evaluation.results import Judging, open_run, results
from mmcam.metrics.base import Figure
from mmcam.metrics.chosen import MetricSet
from mmcam.metrics.pointing import Pointing

CONFIG = {
    "task": {"class_path": "tests.tiny_task.TinyTask"},
    "data": {"class_path": "tests.truths.Halves"},
    "metrics": {
        "init_args": {
            "maps": {
                "pointing": {"class_path": "mmcam.metrics.pointing.Pointing"},
                "mass": {"class_path": "mmcam.metrics.mass.MassAccuracy"},
            }
        }
    },
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The user stands beside `run.yaml`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


def evaluate(*words):
    return main(["evaluate", *words, "--metrics", "run.yaml", "--batch-size", "4"])


def judged(path):
    return json.loads(path.read_text())


def test_a_model_is_judged_on_the_spot(here, capsys):
    assert evaluate("--config", "run.yaml", "--targets", "given", "--json", "out.json", "--markdown", "out.md") == 0
    record = judged(here / "out.json")
    assert list(record["rows"]) == ["grad_cam", "activation_norm", "centre", "random", "uniform", "flipped"]
    assert record["rows"]["grad_cam"]["pointing"]["n"] == 12  # a dog and a cat in each of six pictures
    assert record["rows"]["uniform"]["mass"]["value"] == pytest.approx(0.5)  # each half is half of the picture
    assert record["rows"]["uniform"]["pointing"]["value"] == 0
    assert record["tables"][0]["rows"]["people"]["says_dog"]["value"] == 1  # the model has said nothing
    conditions = record["conditions"]
    assert conditions["explained"] == "given"
    assert len(conditions["weights_sha256"]) == 64
    assert conditions["layer"] == "conv2"
    assert conditions["data"]["init_args"]["count"] == 6
    assert {"device", "mmcam", "torch", "python", "seed"} <= set(conditions)
    assert len(record["pictures"]["ids"]) == 6
    assert "| grad_cam |" in (here / "out.md").read_text()
    assert "Maps against the truth" in capsys.readouterr().out


def test_a_dump_gives_the_figures_of_its_model(here):
    data = ["--config", "run.yaml", "--targets", "given"]
    assert main(["dump", *data, "--out", "dump", "--methods", "grad_cam,activation_norm", "--signed"]) == 0
    assert evaluate("dump", "--json", "dumped.json") == 0
    assert evaluate(*data, "--json", "live.json") == 0
    dumped, live = judged(here / "dumped.json"), judged(here / "live.json")
    assert dumped["rows"].keys() == live["rows"].keys()
    for row in dumped["rows"]:
        for name in ("pointing", "mass"):
            figures = dumped["rows"][row][name], live["rows"][row][name]
            assert figures[0]["n"] == figures[1]["n"]
            assert figures[0]["value"] == pytest.approx(figures[1]["value"], abs=2e-3), (row, name)


def test_without_signed_maps_there_is_no_flipped_row(here):
    assert main(["dump", "--config", "run.yaml", "--targets", "given", "--out", "dump"]) == 0
    assert evaluate("dump", "--json", "out.json") == 0
    assert "flipped" not in judged(here / "out.json")["rows"]


def test_of_a_dump_of_both_one_is_judged(here):
    """What people said must not be counted as what the model said, nor the other way round."""
    data = ["--config", "run.yaml", "--data.init_args.also", "the cat"]
    assert main(["dump", *data, "--targets", "both", "--out", "both"]) == 0
    assert main(["dump", *data, "--out", "said"]) == 0
    assert evaluate("both", "--json", "both.json") == 0
    assert evaluate("said", "--json", "said.json") == 0
    both, said = judged(here / "both.json"), judged(here / "said.json")
    assert both["conditions"]["explained"] == "predicted"
    assert both["tables"] == [table | {"conditions": both["conditions"]} for table in said["tables"]]
    assert list(both["tables"][0]["rows"]) == ["model"]
    assert both["rows"] == said["rows"]
    assert evaluate("both", "--targets", "given", "--json", "given.json") == 0
    given = judged(here / "given.json")
    assert given["conditions"]["explained"] == "given"
    assert given["rows"]["grad_cam"]["pointing"]["n"] == 18  # dog, cat and, of the second text, cat in six pictures
    assert given["tables"][0]["rows"]["people"]["says_dog"]["value"] == 1  # in the first text
    assert evaluate("both", "--targets", "given", "--limit", "2", "--json", "two.json") == 0
    assert judged(here / "two.json")["pictures"]["ids"] == ["h0", "h1"]
    assert judged(here / "two.json")["rows"]["grad_cam"]["pointing"]["n"] == 6


def test_of_a_dump_of_what_was_said_nothing_given_is_judged(here, capsys):
    assert main(["dump", "--config", "run.yaml", "--out", "said"]) == 0
    assert evaluate("said", "--targets", "given") == 2
    assert "leave --targets out" in capsys.readouterr().err


def test_a_model_beside_a_dump_leaves_the_dump_its_data(here):
    mine = ["--data.init_args.wide=10", "--data.init_args.caption", "a dog"]
    data = ["--config", "run.yaml", "--targets", "given", *mine]
    assert main(["dump", *data, "--out", "dump"]) == 0
    assert evaluate("dump", "--config", "run.yaml", "--json", "out.json") == 0
    record = judged(here / "out.json")
    assert record["conditions"]["data"]["init_args"]["wide"] == 10  # and not the 20 of run.yaml
    assert record["rows"]["uniform"]["mass"]["value"] == pytest.approx(0.25)  # of each picture a quarter is dog


def test_some_pictures_and_methods(here):
    options = ["--targets", "given", "--limit", "2", "--methods", "hires_cam"]
    assert evaluate("--config", "run.yaml", *options, "--json", "out.json") == 0
    record = judged(here / "out.json")
    assert list(record["rows"])[:2] == ["hires_cam", "activation_norm"]  # which is always there
    assert record["pictures"]["ids"] == ["h0", "h1"]


def test_two_results_are_compared(here, capsys):
    for method in ("grad_cam", "hires_cam"):
        evaluate("--config", "run.yaml", "--targets", "given", "--methods", method, "--json", f"{method}.json")
    assert main(["evaluate", "--compare", "grad_cam.json", "grad_cam.json", "--json", "same.json"]) == 0
    row = judged(here / "same.json")["rows"]["grad_cam"]
    assert (row["mass"]["value"], row["p(mass)"]) == (0, 1)
    capsys.readouterr()
    assert main(["evaluate", "--compare", "grad_cam.json", "hires_cam.json"]) == 0  # the baselines are in both
    assert "centre" in capsys.readouterr().out


def test_other_metrics_by_a_key(here):
    key = "--metrics.init_args.maps.pointing.init_args.tolerance=1000"
    assert evaluate("--config", "run.yaml", "--targets", "given", key, "--json", "out.json") == 0
    assert judged(here / "out.json")["rows"]["centre"]["pointing"]["value"] == 1  # 0.5 without tolerance


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "neither"),
        (("nowhere",), "no such file"),
        (("--config", "run.yaml", "--limit", "0"), "--limit"),
        (("--config", "run.yaml", "--methods", "grad_cm"), "grad_cam"),
        (("--config", "run.yaml", "--data", "photos"), "photos"),
        (("--config", "run.yaml", "--data.init_args.caption", "", "--targets", "given"), "texts given"),
        (("--compare", "run.yaml", "run.yaml"), "--json"),
    ],
)
def test_mistakes_are_told_in_one_line(here, capsys, words, said):
    assert evaluate(*words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert error.endswith("\n")
    assert error.splitlines()[-1].startswith("mmcam evaluate: ")


def test_data_that_say_nothing_of_things_are_refused(here, capsys):
    (here / "photos").mkdir()
    from PIL import Image

    Image.new("RGB", (40, 30)).save(here / "photos" / "a.png")
    assert evaluate("--config", "run.yaml", "--data", "photos") == 2
    assert "annotated data" in capsys.readouterr().err


def test_words_that_name_nothing_there_are_told_but_not_judged(here, capsys):
    assert evaluate("--config", "run.yaml", "--targets", "given", "--data.init_args.caption", "a pizza") == 0
    out = capsys.readouterr().out
    assert "What was said" in out
    assert "absent_things" in out
    assert "Maps against the truth" not in out


def test_an_unfinished_dump_is_refused(tmp_path):
    (tmp_path / "dump").mkdir()
    with pytest.raises(UserError, match="finished dump"):
        open_run(str(tmp_path / "dump"), "")


def test_the_library_without_the_command(here):
    tables, pictures = results(open_run("", "run.yaml"), Judging(given=True), MetricSet({"pointing": Pointing()}))
    figure = tables[0].rows["grad_cam"]["pointing"]
    assert isinstance(figure, Figure)
    assert figure.n == 12
    assert pictures["values"]["centre"]["pointing"] == [0.5] * 6  # the very centre belongs to the right half
