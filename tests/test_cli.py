"""The command line from outside: help, exit codes, one line an error; and what `mmcam explain` writes."""

import json
import re
import subprocess
import sys
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import mmcam.cli
import mmcam.load
from mmcam.cli import VERBS, main, split_overrides
from mmcam.config import resolve
from mmcam.dumps.reader import MapReader
from mmcam.errors import UserError
from mmcam.explanation import file_name
from mmcam.image import read_image
from mmcam.load import load_task
from mmcam.task import Sample, Task
from mmcam.verbs import table
from mmcam.verbs.pictures import names
from tests.tiny_task import WORDS

ROOT = Path(__file__).parents[1]


def picture(path: Path, seed: int = 0, size=(40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the user stands: a configuration and two pictures."""
    monkeypatch.chdir(tmp_path)
    for class_name in ("TinyTask", "Classes", "Leaking", "Pooled", "Abstract"):
        content = {"task": {"class_path": f"tests.tiny_task.{class_name}"}, "train": {"epochs": 3}}
        (tmp_path / f"{class_name}.yaml").write_text(yaml.safe_dump(content))
    picture(tmp_path / "dog.png")
    picture(tmp_path / "cat.png", seed=1)
    return tmp_path


def explain(*words, config="TinyTask.yaml"):
    return main(["explain", "--config", config, *map(str, words)])


def one_error(capsys) -> str:
    """What stderr holds, which must be one line and no traceback."""
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "Traceback" not in error
    return error.strip()


# --- the command itself ---


def test_help_is_quick_and_without_torch():
    """0.7 s is the promise; of the processor's time, since other tests run beside this one, and the best of three."""
    code = "import sys, mmcam.cli; mmcam.cli.main(['--help']); sys.exit('torch' in sys.modules)"
    took = []
    for _ in range(3):
        began = getrusage(RUSAGE_CHILDREN)
        result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        ended = getrusage(RUSAGE_CHILDREN)
        took.append(ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime)
        assert result.returncode == 0
        assert all(verb in result.stdout for verb in VERBS)
    assert min(took) < 0.7


def test_help_of_every_verb_teaches_and_needs_no_torch():
    written = [verb for verb in VERBS if (ROOT / "mmcam" / "verbs" / f"{verb}.py").exists()]
    code = f"""
import sys, mmcam.cli
for verb in {written}:
    assert mmcam.cli.main([verb, "--help"]) == 0
sys.exit('torch' in sys.modules)"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("examples:\n") == len(written)
    assert all(f"  mmcam {verb} " in result.stdout for verb in written)


def test_it_runs_as_a_module():
    result = subprocess.run([sys.executable, "-m", "mmcam", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, f"mmcam {mmcam.__version__}\n")


def test_version_and_nothing(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mmcam {mmcam.__version__}\n"
    assert main([]) == 2
    assert "usage: mmcam VERB" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["explian"], r"mmcam: unknown verb 'explian': did you mean 'explain'?"),
        (["--hlep"], "mmcam: unknown verb '--hlep'"),
        (["explain", "--qestion", "what?"], "unknown option of mmcam explain '--qestion': did you mean '--question'"),
        (["explain", "--config"], "--config: expected one argument"),
        (["explain", "--scale", "big"], "scale: Expected a Literal['own', 'joint', 'none']. Got value: big"),
        (["explain", "--batch-size", "some"], "batch_size: Expected a int. Got value: some"),
        (["explain", "--batch-size", "0", "dog.png"], "--batch-size: expected 1 or more, got 0"),
        (["explain", "--limit", "-3", "dog.png"], "--limit: expected 1 or more, got -3"),
        (["explain"], "name at least one picture"),
        (["explain", "dog.png", "--caption", "a", "--class", "b"], "expected one of --caption, --answer"),
        (["explain", "dog.png", "--task.layer"], "expected a value for --task.layer"),
        (["scenes", "--out", "x"], "expected a number of pictures"),
        (["scenes", "--out", "x", "--train", "-1", "--val", "3"], "expected a number of pictures"),
        (["scenes", "--train", "3"], "required: out"),
    ],
)
def test_wrong_commands(capsys, words, message):
    assert main(words) == 2
    assert message in one_error(capsys)


def test_overrides_are_parted_from_the_other_words():
    words = ["a.b", "--out", "x.y", "--task.layer=a=b", "--train.init_args.epochs", "3", "--other.thing=1"]
    assert split_overrides(words) == (
        ["a.b", "--out", "x.y", "--other.thing=1"],
        {"task.layer": "a=b", "train.init_args.epochs": "3"},
    )


def raising(error):
    def run(arguments):
        raise error

    return run


def test_ctrl_c(monkeypatch, capsys):
    monkeypatch.setattr("mmcam.verbs.scenes.run", raising(KeyboardInterrupt()))
    assert main(["scenes", "--out", "x", "--val", "1"]) == 130
    assert one_error(capsys) == "mmcam scenes: interrupted"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("expected a, got b"), "mmcam scenes: expected a, got b"),
        (PermissionError(13, "Permission denied", "/x"), "mmcam scenes: Permission denied: '/x'"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried …\n…"), "mmcam scenes: out of memory; choose a smaller"),
    ],
)
def test_errors_that_the_user_can_mend_are_one_line_unless_debugged(monkeypatch, capsys, error, message):
    monkeypatch.setattr("mmcam.verbs.scenes.run", raising(error))
    assert main(["scenes", "--out", "x", "--val", "1"]) == 2
    assert one_error(capsys).startswith(message)
    main(["scenes", "--out", "x", "--val", "1", "--debug"])
    assert "Traceback" in capsys.readouterr().err


def test_errors_of_ours_show_themselves(monkeypatch, capsys):
    monkeypatch.setattr("mmcam.verbs.scenes.run", raising(KeyError("ours")))
    assert main(["scenes", "--out", "x", "--val", "1"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_has_read_enough():
    code = "import sys, mmcam.cli; sys.exit(mmcam.cli.main(['--help']))"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_the_path_and_the_log_are_left_as_they_were(capsys):
    before = list(sys.path), list(mmcam.cli.logging.getLogger("mmcam").handlers)
    main(["--version"])
    assert (list(sys.path), list(mmcam.cli.logging.getLogger("mmcam").handlers)) == before


def test_scenes_are_written(monkeypatch, capsys):
    written = []
    monkeypatch.setattr("mmcam.scenes.write.write", lambda *words, seed: written.append((*words, seed)))
    assert main(["scenes", "--out", "world", "--val", "1", "--hard", "2", "--seed", "3"]) == 0
    assert capsys.readouterr().out == "world\n"
    assert written == [(Path("world"), "val", 1, 3), (Path("world"), "hard", 2, 3)]


# --- mmcam explain ---


def test_explain_prints_a_table_and_writes_the_files(folder, capsys):
    assert explain("dog.png", "cat.png", "--out", "out", "--hdf5") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert lines[-1] == "out/maps.h5"
    task = load_task("TinyTask.yaml")
    with MapReader("out/maps.h5") as reader:
        assert reader.ids == ("dog", "cat")
        for name in reader.ids:
            one, record = reader[name], json.loads((folder / "out" / f"{name}.json").read_text())
            assert record["words"] == list(one.words)
            np.testing.assert_allclose(np.load(folder / "out" / f"{name}.npy"), one.maps, rtol=1e-3, atol=1e-6)
            assert read_image(folder / "out" / f"{name}.png").width > 4 * 224
            start = lines.index(f"{name}: {' '.join(one.words)}")
            assert lines[start + 1].split() == ["word", "score", "where"]
            for line, word, score in zip(lines[start + 2 :], one.words, one.scores.tolist(), strict=False):
                assert line.split()[:2] == [word, f"{score:.3f}"]
            assert f"  out/{name}.png" in lines
        config = reader.attributes["config"]
        assert config == {"task": resolve("TinyTask.yaml", "task", Task)}
        assert len(reader.attributes["weights_sha256"]) == 64
        assert reader.attributes["layer"] == "conv2"
        assert reader.target_ids(0) == [WORDS.index(word) for word in reader[0].words]
    samples = [Sample(read_image(folder / "dog.png"), "dog")]
    (alone,) = mmcam.explain(task, task.collate(samples))
    np.testing.assert_allclose(np.load(folder / "out" / "dog.npy"), alone.maps, rtol=1e-5, atol=1e-7)


def test_explain_again_into_the_same_folder(folder):
    for words in (["dog.png"], ["cat.png"]):
        assert explain(*words, "--out", "out", "--hdf5") == 0
    with MapReader("out/maps.h5") as reader:
        assert reader.ids == ("cat",)
    assert (folder / "out" / "dog.png").exists()


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_the_batch_size_changes_nothing(folder, size):
    paths = [picture(folder / "many" / f"{i}.png", i) for i in range(5)]
    assert explain("many", "--out", "out", "--hdf5", "--batch-size", size) == 0
    with MapReader("out/maps.h5") as reader:
        assert reader.ids == tuple(path.stem for path in paths)
        maps = torch.stack([one.maps for one in reader])
    task = load_task("TinyTask.yaml")
    batch = task.collate([Sample(read_image(path), path.stem) for path in paths])
    expected = torch.stack([one.maps for one in mmcam.explain(task, batch)])
    torch.testing.assert_close(maps, expected, rtol=2e-3, atol=1e-6)


def test_limit(folder, capsys):
    assert explain(".", "--limit", 1, "--out", "out") == 0
    assert len(list((folder / "out").glob("*.png"))) == 1


def test_what_is_given_is_explained(folder, capsys):
    for option in ("--caption", "--answer", "--class"):
        assert explain("dog.png", option, "red dog", "--out", "out") == 0
        record = json.loads((folder / "out" / "dog.json").read_text())
        assert record["words"] == ["red", "dog"]
        assert record["prompt"] == ("red dog" if option == "--caption" else "")
        assert "dog: red dog\n" in capsys.readouterr().out


def test_words_phrases_and_the_sentence(folder):
    words = ["--words", "Dog", "--words", "the  dog", "--sentence"]
    assert explain("dog.png", "--caption", "the dog left of a dog", *words, "--out", "out", "--hdf5") == 0
    with MapReader("out/maps.h5") as reader:
        assert reader[0].words == ("dog", "dog", "the dog", "the dog left of a dog")
        assert reader.target_ids(0) == [1, 1, -1, -1]
        assert reader[0].prompt == "the dog left of a dog"


def test_words_that_are_nowhere(folder, capsys):
    assert explain("dog.png", "--caption", "the dog", "--words", "dgo", "--out", "out") == 2
    assert "unknown word in what was said 'dgo': did you mean 'dog'" in capsys.readouterr().err
    assert explain("dog.png", "--caption", "the dog", "--words", "dog", "--words", "cat", "--out", "out") == 0
    assert "'cat' was said of no picture" in capsys.readouterr().err


def test_a_picture_in_which_nothing_is_to_be_explained(folder, capsys):
    Image.new("RGB", (9, 9)).save("dark.png")
    task = load_task("TinyTask.yaml", length=5)
    batch = task.collate([Sample(read_image(folder / name), name) for name in ("dark.png", "dog.png")])
    dark, bright = task.predict(task.trunk(batch), batch).words
    (word,) = [word for word in bright if word not in dark][:1]
    words = ["--words", word, "--task.length=5", "--out", "out", "--hdf5"]
    assert explain("dark.png", "dog.png", *words) == 0
    assert f"nothing to explain in {dark[0]!r}" in capsys.readouterr().out
    with MapReader("out/maps.h5") as reader:
        assert [one.words for one in reader] == [(), (word,)]


def test_questions(folder, capsys):
    asks = ["--task.asks=true", "--out", "out", "--hdf5"]
    assert explain("dog.png", "cat.png", *asks, "--question", "red dog?", "--question", "the cat?") == 0
    with MapReader("out/maps.h5") as reader:
        assert reader.ids == ("dog-q1", "dog-q2", "cat-q1", "cat-q2")
        assert [one.prompt for one in reader] == ["red dog?", "the cat?"] * 2
        assert reader["dog-q1"].scores.tolist() != reader["dog-q2"].scores.tolist()
    assert "dog-q1: red dog?\n" in capsys.readouterr().out
    assert explain("dog.png", *asks, "--question", "red dog?") == 0
    with MapReader("out/maps.h5") as reader:
        assert reader.ids == ("dog",)


def test_options_and_overrides_reach_the_task(folder):
    assert (
        explain("dog.png", "--layer", "conv1", "--method", "hires_cam", "--task.init_args.length=1", "--out", "o") == 0
    )
    record = json.loads((folder / "o" / "dog.json").read_text())
    assert (record["layer"], record["method"], len(record["words"])) == ("conv1", "hires_cam", 1)


@pytest.mark.parametrize("option", [["--scale", "joint"], ["--scale", "none"], ["--colours", "viridis"]])
def test_how_it_looks(folder, option):
    assert explain("dog.png", "--out", "plain") == 0
    assert explain("dog.png", "--out", "other", *option) == 0
    strips = [np.asarray(read_image(folder / name / "dog.png")) for name in ("plain", "other")]
    assert (strips[0] != strips[1]).any()
    assert (folder / "plain" / "dog.npy").read_bytes() == (folder / "other" / "dog.npy").read_bytes()


@pytest.mark.parametrize("verb", ["train", "quality"])
def test_print_config_shows_the_sections_that_the_verb_uses(verb, capsys):
    """As they will be used: with the overrides of the command line, and every default."""
    section = {"train": ("vqa/scenes", "seed", 0), "quality": ("vqa/scenes", "each", 6)}[verb]
    changed = {"train": "epochs", "quality": "blind"}[verb]
    words = [verb, "--config", section[0], "--print_config", f"--{verb}.init_args.{changed}=3"]
    assert main([*words, "--out", "x"] if verb == "train" else words) == 0
    printed = yaml.safe_load(capsys.readouterr().out)[verb]["init_args"]
    assert str(printed[changed]) == "3"
    assert printed[section[1]] == section[2]


def test_quality_records_what_was_measured(folder):
    """The data that it was, not always scenes; and JSON that every reader takes, which has no NaN."""
    (folder / "my_quality.py").write_text(
        "from mmcam.quality import Quality\n"
        "class Mine(Quality):\n"
        "    def __init__(self, each: int = 6): ...\n"
        "    def measure(self, task, seed, limit): return {'share': float('nan'), 'n': limit}\n"
        "    def source(self, seed): return 'mine'\n"
    )
    quality = {"class_path": "my_quality.Mine"}
    content = {"task": {"class_path": "tests.tiny_task.TinyTask"}, "quality": quality}
    (folder / "mine.yaml").write_text(yaml.safe_dump(content))
    assert main(["quality", "--config", "mine.yaml", "--limit", "3", "--json", "figures.json"]) == 0
    record = json.loads((folder / "figures.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert (record["share"], record["n"]) == (None, 3)
    assert record["conditions"]["data"] == "mine"
    assert record["conditions"]["quality"]["init_args"] == {"each": 6}


def test_several_classes_are_shown_with_commas(folder, capsys):
    assert explain("dog.png", "--class", "red, dog", "--sentence", "--out", "out", config="Classes.yaml") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("dog: red, dog\n")
    assert "\n  red, dog  " in shown


def test_a_caption_does_not_hide_the_question(folder, capsys):
    words = ("dog.png", "--task.asks=true", "--question", "red dog?", "--caption", "dog", "--out", "out")
    assert explain(*words) == 0
    assert capsys.readouterr().out.startswith("dog: red dog?\n")


def test_print_config(folder, capsys):
    assert explain("--print_config", "--layer", "conv1", "--task.length", "7") == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["train"] == {"epochs": 3}
    assert printed["task"]["class_path"] == "tests.tiny_task.TinyTask"
    assert (printed["task"]["init_args"]["layer"], printed["task"]["init_args"]["length"]) == ("conv1", 7)
    assert printed["task"]["init_args"]["head"] == "linear"


def test_a_class_of_the_users_own_is_found_where_the_user_stands(folder, capsys):
    (folder / "my_own_task.py").write_text("from tests.tiny_task import TinyTask\nclass Mine(TinyTask): ...\n")
    (folder / "mine.yaml").write_text("task: {class_path: my_own_task.Mine}")
    assert explain("dog.png", "--out", "out", config="mine.yaml") == 0


def test_bad_pictures_are_listed_and_the_others_done(folder, capsys):
    (folder / "broken.png").write_bytes((folder / "dog.png").read_bytes()[:300])
    (folder / "text.jpg").write_text("no picture")
    assert explain("dog.png", "broken.png", "gone.png", "text.jpg", "cat.png", "--out", "out", "--hdf5") == 1
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    assert [line.split("'")[1] for line in printed.err.splitlines()[:-1]] == ["gone.png", "broken.png", "text.jpg"]
    assert printed.err.endswith("mmcam explain: 3 failed, 2 done\n")
    with MapReader("out/maps.h5") as reader:
        assert reader.ids == ("dog", "cat")


@pytest.mark.parametrize("size", [(1, 1), (30_000, 10), (3, 5000)])
def test_odd_shapes(folder, size):
    picture(folder / "odd.png", size=size)
    assert explain("odd.png", "--out", "out") == 0
    assert (folder / "out" / "odd.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gone.png"], "'gone.png': expected a picture, but there is no such file"),
        (["dog.png", "--config", "TinyTsk.yaml"], "unknown config file or name 'TinyTsk'"),
        (["dog.png", "--task.layr=conv1"], "unknown key of task.init_args 'layr': did you mean 'layer'"),
        (["dog.png", "--task.class_path=tests.tiny_task.TinyTak"], "'TinyTak': did you mean 'TinyTask'"),
        (["dog.png", "--task.class_path=tests.tiny_tusk.TinyTask"], "there is no 'tests.tiny_tusk'"),
        (["dog.png", "--task.length=many"], "length: Expected a int. Got value: many"),
        (["dog.png", "--layer", "conv9"], "unknown layer 'conv9': did you mean 'conv"),
        (["dog.png", "--method", "grad_kam"], "unknown method 'grad_kam': did you mean 'grad_cam'"),
        (["dog.png", "--class", "dgo"], "unknown word 'dgo': did you mean 'dog'"),
        (["dog.png", "--caption", "a dgo"], "unknown word 'dgo': did you mean 'dog'"),
        (["dog.png", "--caption", " "], "--caption: expected a text, got an empty one"),
        (["dog.png", "--question", ""], "--question: expected a text, got an empty one"),
        (["dog.png", "--words", ""], "--words: expected a text, got an empty one"),
        (["dog.png", "--question", "what?"], "TinyTask takes no question, got 'what?'"),
        (["dog.png", "--task.asks=true"], "expected a question"),
        (["dog.png", "--colours", "jett"], "unknown colour map 'jett': did you mean 'jet'"),
        (["dog.png", "--device", "cdua"], "unknown device 'cdua'"),
        (["dog.png", "--task.spoil=conv2.weight"], "expected finite weights, got NaN or infinity in conv2.weight"),
        (["dog.png", "--task.head=dead"], "no score depends on the layer 'conv2'"),
        (["dog.png", "--config", "Pooled.yaml"], "layer 'conv2' must give maps of shape (b, k, h, w)"),
        (["dog.png", "--config", "Abstract.yaml"], "is abstract; it lacks missing"),
    ],
)
def test_mistakes_give_one_line_and_two(folder, capsys, words, message):
    words = words if "--config" in words else ["--config", "TinyTask.yaml", *words]
    assert main(["explain", *words, "--out", "out", "--hdf5"]) == 2
    assert message in one_error(capsys)
    assert not list(folder.glob("out/.*.part"))
    assert not (folder / "out" / "maps.h5").exists()


@pytest.mark.gpu
def test_cuda_gives_the_same_maps(folder):
    for device in ("cpu", "cuda"):
        assert explain("dog.png", "cat.png", "--device", device, "--out", device, "--hdf5") == 0
    with MapReader("cpu/maps.h5") as one, MapReader("cuda/maps.h5") as other:
        assert one.attributes["weights_sha256"] == other.attributes["weights_sha256"]
        for ours, theirs in zip(one, other, strict=True):
            assert ours.words == theirs.words
            torch.testing.assert_close(ours.maps, theirs.maps, rtol=1e-2, atol=1e-4)


def test_cuda_asked_for_but_absent(folder, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert explain("dog.png", "--device", "cuda") == 2
    assert "device 'cuda': expected a CUDA device, but there are 0 here" in one_error(capsys)


@pytest.mark.parametrize(
    ("yaml_text", "message"),
    [
        ("tusk: {}", "unknown section of bad.yaml 'tusk': did you mean 'task'"),
        ("task: {class_path: tests.tiny_task.TinyTask, init_arg: {}}", "unknown key of task 'init_arg'"),
        ("task: [", "bad.yaml: expected YAML"),
        ("", "bad.yaml: expected sections"),
    ],
)
def test_configurations_that_are_none(folder, capsys, yaml_text, message):
    (folder / "bad.yaml").write_text(yaml_text)
    assert explain("dog.png", config="bad.yaml") == 2
    assert message in one_error(capsys)


# --- names, phrases, rows, tables ---


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a/dog.png", "a/cat.png"], ["dog", "cat"]),
        (["dog.png", "dog.jpg"], ["dog.png", "dog.jpg"]),
        (["a/dog.png", "b/dog.png", "cat.png"], ["a/dog", "b/dog", "cat"]),
        (["a/x/dog.png", "b/x/dog.png"], ["a/x/dog", "b/x/dog"]),
        (["a/dog.png", "a/dog.jpg", "b/dog.png"], ["dog.png", "dog.jpg", "b/dog"]),
        (["a_dog.png", "a/dog.png", "b/dog.png"], ["a_dog", "a/dog", "b/dog"]),
        (["a/dog.png", "a_dog.png", "b/dog.png", "a_dog.jpg"], None),
        (["dog.png", "Dog.PNG"], None),
        ([f"{'x' * n}{'y' * 120}.png" for n in range(4)], None),
        ([f"{'é' * n}{'ü' * 120}.png" for n in range(4)], None),
        (["?.png", "!.png", "_.png"], None),
        (["bad\udcff.png"], ["bad�"]),
    ],
)
def test_no_two_pictures_have_one_name(paths, expected):
    found = names([Path(path) for path in paths])
    assert expected is None or found == expected
    for numbers in ([""], ["-q1", "-q23"]):
        files = [file_name(name + number).casefold() for name in found for number in numbers]
        assert len(set(files)) == len(files)


def test_pictures_of_one_name_are_all_written(folder, capsys):
    for i in range(3):
        picture(folder / "many" / str(i) / "dog.png", i)
    assert explain("many", "dog.png", "--out", "out", "--hdf5") == 0
    assert len(list((folder / "out").glob("*.png"))) == 4
    with MapReader("out/maps.h5") as reader:
        assert len(reader) == 4


def test_the_same_picture_twice_is_explained_once(folder):
    assert explain("dog.png", "./dog.png", "d*.png", "--out", "out", "--hdf5") == 0
    with MapReader("out/maps.h5") as reader:
        assert reader.ids == ("dog",)


def test_table():
    assert table(("word", "n"), [("a", "1.5"), ("longer", "-10")]) == "  word      n\n  a       1.5\n  longer  -10"
    assert table(("word", "n"), []) == "  word  n"


# --- words heard ---


def test_words_heard_are_in_the_table_the_strip_and_the_json(folder, capsys):
    options = ("explain", "dog.png", "--question", "is there a dog?", "--device", "cpu")
    assert main([*options, "--out", "plain"]) == 0
    plain = capsys.readouterr().out
    assert main([*options, "--heard", "--out", "heard"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[1].split() == ["word", "score", "where", "unseen", "seen", "heard"]
    assert re.search(r" -?\d+\.\d{3} +\d+% +dog [+-]\d+\.\d\d, ", table[2])
    record, before = (json.loads(Path(out, "dog.json").read_text(encoding="utf-8")) for out in ("heard", "plain"))
    assert record["heard"] == ["is", "there", "a", "dog", "?"]
    assert len(record["heard_scores"][0]) == 5
    assert record.keys() - before.keys() == {"heard", "heard_scores", "image_shares", "without_picture"}
    assert "unseen" not in plain
    with Image.open("heard/dog.png") as more, Image.open("plain/dog.png") as less:
        assert more.height > less.height


def test_words_heard_of_a_phrase_and_a_sentence(folder, capsys):
    words = ("--caption", "a dog and a cat", "--words", "a dog", "--sentence", "--heard", "--device", "cpu")
    assert main(["explain", "dog.png", *words]) == 0
    record = json.loads(Path("runs/explain/dog.json").read_text(encoding="utf-8"))
    assert record["words"] == ["a dog", "a dog and a cat"]
    assert record["heard"] == ["<start>", "a", "dog", "and", "a"]
    assert record["heard_scores"][0][2:] == [0, 0, 0]  # a dog has not heard what follows
    assert all(value != 0 for value in record["heard_scores"][1])


def test_a_task_without_words(folder, capsys):
    assert explain("dog.png", "--heard") == 2
    assert "TinyTask hears no words: expected a task for questions or captions" in one_error(capsys)


def test_several_layers_side_by_side_and_fused(folder, capsys):
    assert explain("dog.png", "--layer", "conv1,conv2", "--out", "beside") == 0
    record = json.loads((folder / "beside" / "dog.json").read_text())
    assert len(record["words"]) == 6
    assert record["words"][0].endswith("(conv1)")
    assert record["words"][1].endswith("(conv2)")
    assert explain("dog.png", "--layer", "conv1, conv2", "--fuse", "max", "--hdf5", "--out", "fused") == 0
    assert json.loads((folder / "fused" / "dog.json").read_text())["layer"] == "conv1 max conv2"
    with MapReader(folder / "fused" / "maps.h5") as maps:
        assert maps.rows == 3
        assert maps.attributes["layer"] == "conv1 max conv2"
    capsys.readouterr()
    assert explain("dog.png", "--heard", "--task.init_args.layer=conv1,conv2") == 2
    assert "--heard: expected one layer, got several" in one_error(capsys)
    assert explain("dog.png", "--layer", "conv1,conv1") == 2
    assert "each once" in one_error(capsys)
    assert explain("dog.png", "--layer", "conv1", "--fuse", "mean") == 2
    assert "--fuse mean: expected several layers" in one_error(capsys)


def test_several_layers_are_of_one_model(folder, monkeypatch):
    loaded = []
    monkeypatch.setattr(mmcam.load, "load_task", lambda *a, **k: loaded.append(0) or load_task(*a, **k))
    layers = ("features.10", "features.12")
    command = ("dog.png", "--config", "classification/scenes", "--class", "dog")
    for layer in layers:
        assert explain(*command, "--layer", layer, "--out", layer) == 0
    loaded.clear()
    assert explain(*command, "--layer", ",".join(layers), "--out", "both") == 0
    assert len(loaded) == 1
    both = np.load(folder / "both" / "dog.npy")
    sizes = set()
    for maps, layer in zip(both, layers, strict=True):
        alone = np.load(folder / layer / "dog.npy")[0]
        sizes.add(alone.shape)
        assert alone.shape != maps.shape or np.allclose(maps, alone, atol=1e-6)
    assert both.shape[1:] in sizes
