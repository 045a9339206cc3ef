from abc import ABC, abstractmethod
from dataclasses import dataclass

import pytest
import yaml

from mmcam.config import import_class, instantiate, one_line, read_config, resolve
from mmcam.errors import UserError

HERE = __name__


class Base(ABC):
    @abstractmethod
    def work(self): ...


class Part:
    def __init__(self, hidden: int = 3, name: str = "part"):
        if hidden < 0:
            raise UserError("hidden must not be negative")
        self.hidden, self.name = hidden, name


class Whole(Base):
    def __init__(
        self,
        part: Part | str,
        layer: str = "layer4",
        rate: float = 0.1,
        flag: bool = False,
        size: tuple[int, int] = (3, 4),
        parts: list[Part] | None = None,
        **more: int,
    ):
        self.part, self.layer, self.rate, self.flag, self.size = part, layer, rate, flag, size
        self.parts, self.more = parts, more

    def work(self): ...


class Unmakable(Base): ...


@dataclass(frozen=True)
class Plain:
    epochs: int = 3
    names: list[str] | None = None


def config(**init):
    return {"task": {"class_path": f"{HERE}.Whole", "init_args": init}}


def part(**init):
    return {"class_path": f"{HERE}.Part", "init_args": init}


def test_a_file_a_dictionary_and_a_name_give_the_same(tmp_path):
    content = config(part="x")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    assert read_config(path) == read_config(str(path)) == read_config(content) == content


def test_yes_no_and_on_are_words(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("task: {words: [yes, no, on, Off, y], flags: [true, False, TRUE], rest: [1, 1.5, null, ~]}")
    assert read_config(path)["task"] == {
        "words": ["yes", "no", "on", "Off", "y"],
        "flags": [True, False, True],
        "rest": [1, 1.5, None, None],
    }


def test_what_is_read_is_the_callers_own():
    content = config(part="x")
    read_config(content)["task"]["init_args"]["part"] = "y"
    instantiate(content, "task", Base, {"part": "z"})
    assert content == config(part="x")


def test_nested_classes_and_defaults():
    made = instantiate(config(part=part(hidden=5), parts=[part(), part(name="n")], rate="1e-3"), "task", Base)
    assert type(made) is Whole
    assert type(made.part) is Part
    assert (made.part.hidden, made.rate, made.size, made.layer) == (5, 0.001, (3, 4), "layer4")
    assert [p.name for p in made.parts] == ["part", "n"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"layer": "layer3"}, {"layer": "layer3"}),
        ({"task.layer": "layer3"}, {"layer": "layer3"}),
        ({"task.init_args.layer": "3"}, {"layer": "3"}),
        ({"task__init_args__layer": "layer3"}, {"layer": "layer3"}),
        ({"size": "[5, 6]", "flag": "true", "rate": "1e-4"}, {"size": (5, 6), "flag": True, "rate": 1e-4}),
        ({"size": (5, 6), "flag": True}, {"size": (5, 6), "flag": True}),
        ({"train.layer": "of another section"}, {"layer": "layer4"}),
        ({"dict_kwargs.extra": 3}, {"more": {"extra": 3}}),
    ],
)
def test_overrides(overrides, expected):
    made = instantiate(config(part="x"), "task", Base, overrides)
    assert {name: getattr(made, name) for name in expected} == expected


@pytest.mark.parametrize("key", ["part.init_args.hidden", "task.init_args.part.hidden", "part__hidden"])
def test_overrides_of_nested_classes(key):
    assert instantiate(config(part=part()), "task", Base, {key: "9"}).part.hidden == 9


def test_an_object_may_be_given():
    mine = Part(hidden=8)
    assert instantiate(config(part="x"), "task", Base, {"part": mine}).part is mine


def test_the_class_may_be_overridden():
    assert type(instantiate({"task": {}}, "task", Base, {"task.class_path": f"{HERE}.Whole", "part": "x"})) is Whole


def test_a_section_without_class_is_the_base_itself():
    assert instantiate({"train": {"epochs": 5}}, "train", Plain, {"train.names": "[a, b]"}) == Plain(5, ["a", "b"])
    assert instantiate({"task": {}}, "train", Plain) == Plain()


def test_resolved_has_every_default_and_no_objects():
    resolved = resolve(config(part=part(hidden=5)), "task", Base, {"size": "[5, 6]"})
    assert resolved == {
        "class_path": f"{HERE}.Whole",
        "init_args": {
            "part": {"class_path": f"{HERE}.Part", "init_args": {"hidden": 5, "name": "part"}},
            "layer": "layer4",
            "rate": 0.1,
            "flag": False,
            "size": [5, 6],
            "parts": None,
        },
    }
    assert resolve({"task": resolved}, "task", Base) == resolved


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"taks": {}}, r"unknown section of the configuration 'taks': did you mean 'task'"),
        ({}, "expected sections"),
        ({"train": {}}, "expected a section 'task' in the configuration, got train"),
        ({"task": 3}, "task: expected keys such as class_path"),
        ({"task": {"init_args": {}}}, "expected the key class_path"),
        (
            {"task": {"class_path": f"{HERE}.Whole", "init_arg": {}}},
            "unknown key of task 'init_arg': did you mean 'init_args'",
        ),
        (
            {"task": {"class_path": f"{HERE}.Whole", "init_args": [3]}},
            "task.init_args: expected the arguments of Whole by name",
        ),
        (config(part="x", layr="a"), r"unknown key of task.init_args 'layr': did you mean 'layer'"),
        (config(part=part(hiden=3)), r"unknown key of task.init_args.part 'hiden': did you mean 'hidden'"),
        (config(part="x", parts=[part(), part(nme=3)]), r"task.init_args.parts\[1\] 'nme': did you mean 'name'"),
        (config(), "task.init_args: .*required.*part"),
        (config(part="x", rate="quick"), r"^task.init_args: rate: Expected a float. Got value: quick$"),
        (config(part=part(hidden="much")), r"task.init_args: part: .*hidden: Expected a int. Got value: much"),
        (config(part=part(hidden=-1)), "^hidden must not be negative$"),
        ({"task": {"class_path": "Whole"}}, "task.class_path: expected a class with its module"),
        ({"task": {"class_path": 3}}, "task.class_path: expected a class with its module"),
        ({"task": {"class_path": "tests.nowhere.Whole"}}, "there is no 'tests.nowhere'; check the spelling"),
        ({"task": {"class_path": f"{HERE}.Whle"}}, r"unknown class in tests.test_config 'Whle': did you mean 'Whole'"),
        ({"task": {"class_path": f"{HERE}.Part"}}, "task.class_path: expected a subclass of tests.test_config.Base"),
        ({"task": {"class_path": f"{HERE}.HERE"}}, "expected a subclass of"),
        ({"task": {"class_path": f"{HERE}.Unmakable"}}, "abstract; it lacks work"),
        (config(part={"class_path": f"{HERE}.Prt"}), r"unknown class in tests.test_config 'Prt': did you mean"),
    ],
)
def test_mistakes_are_one_line(content, message):
    with pytest.raises(UserError, match=message) as caught:
        instantiate(content, "task", Base)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"layr": "a"}, "unknown key of task.init_args 'layr'"),
        (
            {"task.init_args.part.hidden": 3},
            "task.init_args.part is 'x', which has no keys; set task.init_args.part itself",
        ),
    ],
)
def test_mistakes_in_overrides(overrides, message):
    with pytest.raises(UserError, match=message):
        instantiate(config(part="x"), "task", Base, overrides)


@pytest.mark.parametrize("text", ["task: [", "task: a: b", "- a", "", "3", "\tx"])
def test_files_that_are_no_configuration(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"mine\.yaml: expected") as caught:
        read_config(path)
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    (tmp_path / "needy_module.py").write_text("import absent_package.inner")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"needy_module needs the package 'absent_package'.*pip install absent_package"):
        import_class("needy_module.Thing", "task.class_path")


def test_one_line():
    assert one_line("a\n  - b: <class 'int'>\n  Given value: 3\n\n c") == "a b: int c"
